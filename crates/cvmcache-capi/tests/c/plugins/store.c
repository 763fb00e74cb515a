/* A cache in memory, in C99, that ends with a core as soon as the library breaks a promise: a second
 * thread, a callback without a session, an upload or a listing that was not begun, a read of an
 * object that is not there. It exits with 3 if something was not ended. */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"

#define BUCKETS 4096

#define PROMISED(condition)                                              \
  do {                                                                   \
    if (!(condition)) {                                                  \
      fprintf(stderr, "%s: not as promised: %s\n", __func__, #condition); \
      abort();                                                           \
    }                                                                    \
  } while (0)

struct object {
  struct object *next;             /* in its bucket, or among the uploads */
  struct object *older, *younger;  /* among all objects */
  uint64_t txn_id;
  struct cvmcache_hash id;
  enum cvmcache_object_type type;
  int64_t references;
  char *description;
  size_t size;
  unsigned char *content;
};

struct listing {
  struct listing *next;
  uint64_t id;
  size_t count, at;
  struct cvmcache_object_info *items;
};

struct breadcrumb {
  struct breadcrumb *next;
  char *fqrn;
  struct cvmcache_breadcrumb crumb;
};

static struct object *buckets[BUCKETS], *oldest, *youngest, *uploads;
static struct listing *listings;
static struct breadcrumb *breadcrumbs;
static struct cvmcache_info info;
static struct cvmcache_context *context;
static int has_administrator = 0;

/* What holds in every callback. */
static void in_callback(void) {
  static pthread_t thread;
  static int known = 0;
  struct cvmcache_session session;
  if (!known) {
    thread = pthread_self();
    known = 1;
  }
  PROMISED(pthread_equal(thread, pthread_self()));
  cvmcache_get_session(&session);
  PROMISED((session.id != 0 || has_administrator) && session.repository_name != NULL);
}

static void *allocate(size_t size) {
  void *memory = calloc(1, size > 0 ? size : 1);
  if (memory == NULL) abort();
  return memory;
}

static struct object **bucket(struct cvmcache_hash *id) {
  return &buckets[(id->digest[0] | id->digest[1] << 8) % BUCKETS];
}

static struct object *find(struct cvmcache_hash *id) {
  struct object *object = *bucket(id);
  while (object != NULL && cvmcache_hash_cmp(&object->id, id) != 0) object = object->next;
  return object;
}

static void forget(struct object *object) {
  free(object->description);
  free(object->content);
  free(object);
}

static void take_out(struct object *object) {
  struct object **place = bucket(&object->id);
  while (*place != object) place = &(*place)->next;
  *place = object->next;
  *(object->older != NULL ? &object->older->younger : &oldest) = object->younger;
  *(object->younger != NULL ? &object->younger->older : &youngest) = object->older;
  info.used_bytes -= object->size;
}

/* Evicts objects, those of one type only unless it is negative. */
static void evict(uint64_t target, int type) {
  struct object *object = oldest, *younger;
  for (; object != NULL && info.used_bytes > target; object = younger) {
    younger = object->younger;
    if (object->references > 0 || (type >= 0 && (int)object->type != type)) continue;
    take_out(object);
    forget(object);
  }
}

static void shrink_to(uint64_t target) {
  if (info.used_bytes <= target) return;
  evict(target, CVMCACHE_OBJECT_VOLATILE);
  evict(target, -1);
  info.no_shrink++;
}

static int refer(struct object *object, int32_t by) {
  int was_open = object->references > 0;
  if (object->references + by < 0) return CVMCACHE_STATUS_BADCOUNT;
  object->references += by;
  if (!was_open && object->references > 0) info.pinned_bytes += object->size;
  if (was_open && object->references == 0) info.pinned_bytes -= object->size;
  if (info.pinned_bytes > info.size_bytes / 10 * 7) cvmcache_ask_detach(context);
  return CVMCACHE_STATUS_OK;
}

static int chrefcnt(struct cvmcache_hash *id, int32_t change_by) {
  struct object *object = find(id);
  in_callback();
  return object == NULL ? CVMCACHE_STATUS_NOENTRY : refer(object, change_by);
}

static int obj_info(struct cvmcache_hash *id, struct cvmcache_object_info *item) {
  struct object *object = find(id);
  in_callback();
  if (object == NULL) return CVMCACHE_STATUS_NOENTRY;
  item->size = object->size;
  item->type = object->type;
  item->pinned = object->references > 0;
  item->description = object->description != NULL ? strdup(object->description) : NULL;
  return CVMCACHE_STATUS_OK;
}

static int pread_object(struct cvmcache_hash *id, uint64_t offset, uint32_t *size,
                        unsigned char *buffer) {
  struct object *object = find(id);
  in_callback();
  PROMISED(object != NULL);
  if (offset > object->size) return CVMCACHE_STATUS_OUTOFBOUNDS;
  if (*size > object->size - offset) *size = (uint32_t)(object->size - offset);
  memcpy(buffer, object->content + offset, *size);
  return CVMCACHE_STATUS_OK;
}

static struct object **find_upload(uint64_t txn_id) {
  struct object **place = &uploads;
  while (*place != NULL && (*place)->txn_id != txn_id) place = &(*place)->next;
  PROMISED(*place != NULL);
  return place;
}

static int start_txn(struct cvmcache_hash *id, uint64_t txn_id,
                     struct cvmcache_object_info *item) {
  struct object *object = allocate(sizeof *object);
  in_callback();
  object->txn_id = txn_id;
  object->id = *id;
  object->type = item->type;
  object->description = item->description != NULL ? strdup(item->description) : NULL;
  object->next = uploads;
  uploads = object;
  return CVMCACHE_STATUS_OK;
}

static int write_txn(uint64_t txn_id, unsigned char *buffer, uint32_t size) {
  struct object *object = *find_upload(txn_id);
  in_callback();
  PROMISED(size > 0 && size <= cvmcache_max_object_size(context));
  if (object->size + size > info.size_bytes) return CVMCACHE_STATUS_NOSPACE;
  object->content = realloc(object->content, object->size + size);
  if (object->content == NULL) abort();
  memcpy(object->content + object->size, buffer, size);
  memset(buffer, 0, size); /* a callback may do that */
  object->size += size;
  return CVMCACHE_STATUS_OK;
}

static int commit_txn(uint64_t txn_id) {
  struct object **place = find_upload(txn_id), *object = *place, *there;
  in_callback();
  *place = object->next;
  there = find(&object->id);
  if (there != NULL) {
    forget(object);
    return refer(there, 1);
  }
  if (info.used_bytes + object->size > info.size_bytes)
    shrink_to(object->size > info.size_bytes / 4 * 3 ? 0 : info.size_bytes / 4 * 3 - object->size);
  if (info.used_bytes + object->size > info.size_bytes) {
    forget(object);
    return CVMCACHE_STATUS_NOSPACE;
  }
  object->next = *bucket(&object->id);
  *bucket(&object->id) = object;
  object->older = youngest;
  *(youngest != NULL ? &youngest->younger : &oldest) = object;
  youngest = object;
  info.used_bytes += object->size;
  return refer(object, 1);
}

static int abort_txn(uint64_t txn_id) {
  struct object **place = find_upload(txn_id), *object = *place;
  in_callback();
  *place = object->next;
  forget(object);
  return CVMCACHE_STATUS_OK;
}

static int get_info(struct cvmcache_info *out) {
  in_callback();
  *out = info;
  return CVMCACHE_STATUS_OK;
}

static int shrink(uint64_t target, uint64_t *used) {
  in_callback();
  shrink_to(target);
  *used = info.used_bytes;
  return *used <= target ? CVMCACHE_STATUS_OK : CVMCACHE_STATUS_PARTIAL;
}

static int listing_begin(uint64_t lst_id, enum cvmcache_object_type type) {
  struct listing *listing = allocate(sizeof *listing);
  struct object *object;
  size_t count = 0;
  in_callback();
  for (object = oldest; object != NULL; object = object->younger) count += object->type == type;
  listing->id = lst_id;
  listing->items = allocate(count * sizeof *listing->items);
  for (object = oldest; object != NULL; object = object->younger) {
    struct cvmcache_object_info *item = &listing->items[listing->count];
    if (object->type != type) continue;
    listing->count++;
    item->id = object->id;
    item->size = object->size;
    item->pinned = object->references > 0;
    item->description = object->description != NULL ? strdup(object->description) : NULL;
  }
  listing->next = listings;
  listings = listing;
  return CVMCACHE_STATUS_OK;
}

static struct listing **find_listing(int64_t lst_id) {
  struct listing **place = &listings;
  while (*place != NULL && (*place)->id != (uint64_t)lst_id) place = &(*place)->next;
  PROMISED(*place != NULL);
  return place;
}

static int listing_next(int64_t lst_id, struct cvmcache_object_info *item) {
  struct listing *listing = *find_listing(lst_id);
  in_callback();
  if (listing->at == listing->count) return CVMCACHE_STATUS_OUTOFBOUNDS;
  *item = listing->items[listing->at++];
  return CVMCACHE_STATUS_OK;
}

static int listing_end(int64_t lst_id) {
  struct listing **place = find_listing(lst_id), *listing = *place;
  in_callback();
  *place = listing->next;
  for (; listing->at < listing->count; listing->at++) free(listing->items[listing->at].description);
  free(listing->items);
  free(listing);
  return CVMCACHE_STATUS_OK;
}

static struct breadcrumb *find_breadcrumb(const char *fqrn) {
  struct breadcrumb *found = breadcrumbs;
  while (found != NULL && strcmp(found->fqrn, fqrn) != 0) found = found->next;
  return found;
}

static int breadcrumb_store(const char *fqrn, const struct cvmcache_breadcrumb *crumb) {
  struct breadcrumb *kept = find_breadcrumb(fqrn);
  in_callback();
  if (kept == NULL) {
    kept = allocate(sizeof *kept);
    kept->fqrn = strdup(fqrn);
    kept->next = breadcrumbs;
    breadcrumbs = kept;
  }
  kept->crumb = *crumb;
  return CVMCACHE_STATUS_OK;
}

static int breadcrumb_load(const char *fqrn, struct cvmcache_breadcrumb *crumb) {
  struct breadcrumb *kept = find_breadcrumb(fqrn);
  in_callback();
  if (kept == NULL) return CVMCACHE_STATUS_NOENTRY;
  *crumb = kept->crumb;
  return CVMCACHE_STATUS_OK;
}

/* True if everything that was begun has ended. */
static int all_ended(void) {
  int open = info.pinned_bytes > 0;
  if (uploads != NULL || listings != NULL || open)
    fprintf(stderr, "left: uploads %d, listings %d, open objects %d\n", uploads != NULL,
            listings != NULL, open);
  return uploads == NULL && listings == NULL && !open;
}

static void forget_all(void) {
  struct object *object;
  struct breadcrumb *crumb;
  while ((object = oldest) != NULL) {
    take_out(object);
    forget(object);
  }
  while ((crumb = breadcrumbs) != NULL) {
    breadcrumbs = crumb->next;
    free(crumb->fqrn);
    free(crumb);
  }
}

#include "all_callbacks.h"

int main(int argc, char **argv) {
  struct cvmcache_callbacks callbacks;
  struct cvmcache_session session;
  cvmcache_option_map *options;
  char *locator, *size, *admin;
  sigset_t signals;
  int signal_received, ended;

  if (argc != 2) {
    fprintf(stderr, "usage: %s CONFIG\n", argv[0]);
    return 2;
  }
  cvmcache_init_global();
  options = cvmcache_options_init();
  if (cvmcache_options_parse(options, argv[1]) != 0) return 1;
  locator = cvmcache_options_get(options, "CVMFS_CACHE_PLUGIN_LOCATOR");
  size = cvmcache_options_get(options, "CVMFS_CACHE_PLUGIN_SIZE");
  admin = cvmcache_options_get(options, "ADMIN");
  if (locator == NULL) return 1;
  info.size_bytes = (size != NULL ? strtoull(size, NULL, 10) : 100) << 20;

  callbacks = all_callbacks();

  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);

  cvmcache_spawn_watchdog(NULL);
  context = cvmcache_init(&callbacks);
  has_administrator = admin != NULL || getenv("CVMFS_CACHE_PLUGIN_ADMIN") != NULL;
  if (admin != NULL) cvmcache_admin(context, admin[0] == '/' ? admin : NULL);
  if (!cvmcache_listen(context, locator)) return 1;
  /* It was allowed no workers, so it gets none. */
  cvmcache_process_requests(context, 4);
  if (!cvmcache_is_supervised()) {
    while (sigwait(&signals, &signal_received) == EINTR) continue;
    cvmcache_terminate(context);
  }
  cvmcache_get_session(&session);
  PROMISED(session.id == 0 && session.repository_name == NULL && session.client_instance == NULL);
  cvmcache_wait_for(context);
  cvmcache_terminate_watchdog();

  ended = all_ended();
  forget_all();
  cvmcache_options_free(locator);
  cvmcache_options_free(size);
  cvmcache_options_free(admin);
  cvmcache_options_fini(options);
  cvmcache_cleanup_global();
  return ended ? 0 : 3;
}
