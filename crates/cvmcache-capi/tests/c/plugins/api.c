/* What there is to say about the interface without a client, in C99. Prints what does not hold, and
 * exits with the number of it. The argument is a directory to write to. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"

static int wrong = 0;

#define HOLDS(condition)                                          \
  do {                                                            \
    if (!(condition)) {                                           \
      fprintf(stderr, "line %d: wrong: %s\n", __LINE__, #condition); \
      wrong++;                                                    \
    }                                                             \
  } while (0)

static int equal(char *text, const char *expected) {
  int same = text != NULL && strcmp(text, expected) == 0;
  if (!same) fprintf(stderr, "got \"%s\"\n", text != NULL ? text : "(NULL)");
  cvmcache_options_free(text);
  return same;
}

static void hashes(void) {
  struct cvmcache_hash a, b;
  char *text;
  memset(&a, 0, sizeof a);
  a.digest[0] = 0xab;
  a.algorithm = CVMCACHE_HASH_SHA1;
  b = a;
  HOLDS(cvmcache_hash_cmp(&a, &b) == 0);
  b.digest[19] = 0xff;
  HOLDS(cvmcache_hash_cmp(&a, &b) == -1);
  HOLDS(cvmcache_hash_cmp(&b, &a) == 1);
  a.algorithm = CVMCACHE_HASH_SHAKE128;
  HOLDS(cvmcache_hash_cmp(&a, &b) == 1);
  HOLDS(cvmcache_hash_cmp(NULL, &a) == -1);
  HOLDS(cvmcache_hash_cmp(NULL, NULL) == 0);
  text = cvmcache_hash_print(&a);
  HOLDS(strcmp(text, "ab00000000000000000000000000000000000000-shake128") == 0);
  free(text);
  a.algorithm = CVMCACHE_HASH_RIPEMD160;
  text = cvmcache_hash_print(&a);
  HOLDS(strcmp(text, "ab00000000000000000000000000000000000000-rmd160") == 0);
  free(text);
  HOLDS(cvmcache_hash_print(NULL) == NULL);
}

static void options(const char *directory) {
  cvmcache_option_map *map = cvmcache_options_init(), *copy;
  char path[4096], expected[8192];
  FILE *file;
  HOLDS(equal(cvmcache_options_get(map, "CVMFS_MOUNT_DIR"), "/cvmfs"));
  HOLDS(cvmcache_options_get(map, "KEY") == NULL);
  cvmcache_options_set(map, "KEY", "set");
  cvmcache_options_set(map, "OTHER", "it's");
  snprintf(path, sizeof path, "%s/options", directory);
  HOLDS(cvmcache_options_parse(map, path) == -1);
  file = fopen(path, "w");
  if (file == NULL) abort();
  fputs("# comment\nexport KEY = 'a value' # comment\nno line\n", file);
  fclose(file);
  HOLDS(cvmcache_options_parse(map, path) == 0);
  HOLDS(equal(cvmcache_options_get(map, "KEY"), "a value"));
  copy = cvmcache_options_clone(map);
  cvmcache_options_unset(map, "KEY");
  cvmcache_options_unset(map, "KEY");
  HOLDS(cvmcache_options_get(map, "KEY") == NULL);
  HOLDS(equal(cvmcache_options_get(copy, "KEY"), "a value"));
  snprintf(expected, sizeof expected,
           "CVMFS_MOUNT_DIR=/cvmfs    # from @INTERNAL@\nKEY='a value'    # from %s\n"
           "OTHER='it\\'s'    # from @INTERNAL@\n", path);
  HOLDS(equal(cvmcache_options_dump(copy), expected));
  cvmcache_options_fini(map);
  cvmcache_options_fini(copy);

  cvmcache_options_fini(NULL);
  cvmcache_options_free(NULL);
  cvmcache_options_set(NULL, "KEY", "value");
  cvmcache_options_unset(NULL, "KEY");
  HOLDS(cvmcache_options_clone(NULL) == NULL);
  HOLDS(cvmcache_options_get(NULL, "KEY") == NULL);
  HOLDS(cvmcache_options_dump(NULL) == NULL);
  HOLDS(cvmcache_options_parse(NULL, path) == -1);
  map = cvmcache_options_init();
  cvmcache_options_set(map, NULL, "value");
  cvmcache_options_set(map, "KEY", NULL);
  HOLDS(cvmcache_options_get(map, NULL) == NULL);
  HOLDS(cvmcache_options_get(map, "KEY") == NULL);
  HOLDS(cvmcache_options_parse(map, NULL) == -1);
  cvmcache_options_fini(map);
}

static int chrefcnt(struct cvmcache_hash *id, int32_t by) { return id == NULL ? 0 : (int)by; }
static int obj_info(struct cvmcache_hash *id, struct cvmcache_object_info *info) {
  return id == NULL && info == NULL;
}
static int pread_object(struct cvmcache_hash *id, uint64_t offset, uint32_t *size,
                        unsigned char *buffer) {
  return id == NULL && offset == 0 && size == NULL && buffer == NULL;
}
static int by_txn(uint64_t txn_id) { return txn_id == 0; }
static int start_txn(struct cvmcache_hash *id, uint64_t txn_id, struct cvmcache_object_info *info) {
  return id == NULL && txn_id == 0 && info == NULL;
}
static int write_txn(uint64_t txn_id, unsigned char *buffer, uint32_t size) {
  return txn_id == 0 && buffer == NULL && size == 0;
}
static int info(struct cvmcache_info *out) { return out == NULL; }
static int shrink(uint64_t target, uint64_t *used) { return target == 0 && used == NULL; }
static int listing_begin(uint64_t lst_id, enum cvmcache_object_type type) {
  return lst_id == 0 && type == CVMCACHE_OBJECT_REGULAR;
}
static int listing_next(int64_t lst_id, struct cvmcache_object_info *item) {
  return lst_id == 0 && item == NULL;
}
static int listing_end(int64_t lst_id) { return lst_id == 0; }
static int breadcrumb_store(const char *fqrn, const struct cvmcache_breadcrumb *crumb) {
  return fqrn == NULL && crumb == NULL;
}
static int breadcrumb_load(const char *fqrn, struct cvmcache_breadcrumb *crumb) {
  return fqrn == NULL && crumb == NULL;
}

static struct cvmcache_callbacks all(void) {
  struct cvmcache_callbacks table;
  memset(&table, 0, sizeof table);
  table.cvmcache_chrefcnt = chrefcnt;
  table.cvmcache_obj_info = obj_info;
  table.cvmcache_pread = pread_object;
  table.cvmcache_start_txn = start_txn;
  table.cvmcache_write_txn = write_txn;
  table.cvmcache_commit_txn = by_txn;
  table.cvmcache_abort_txn = by_txn;
  table.cvmcache_info = info;
  table.cvmcache_shrink = shrink;
  table.cvmcache_listing_begin = listing_begin;
  table.cvmcache_listing_next = listing_next;
  table.cvmcache_listing_end = listing_end;
  table.cvmcache_breadcrumb_store = breadcrumb_store;
  table.cvmcache_breadcrumb_load = breadcrumb_load;
  table.capabilities = CVMCACHE_CAP_ALL_V2;
  return table;
}

/* A table without one callback makes no context, unless the capability is not declared, either. */
#define NEEDS(callback, capability)                           \
  do {                                                        \
    struct cvmcache_callbacks table = all();                  \
    struct cvmcache_context *context;                         \
    table.callback = NULL;                                    \
    HOLDS(cvmcache_init(&table) == NULL);                     \
    table.capabilities = CVMCACHE_CAP_ALL_V2 & ~(capability); \
    context = cvmcache_init(&table);                          \
    HOLDS((context != NULL) == ((capability) != 0));          \
    if (context != NULL) cvmcache_wait_for(context);          \
  } while (0)

static void contexts(const char *directory) {
  struct cvmcache_callbacks table = all();
  struct cvmcache_context *context;
  struct cvmcache_session session;
  char locator[4096];

  NEEDS(cvmcache_chrefcnt, CVMCACHE_CAP_REFCOUNT);
  NEEDS(cvmcache_obj_info, 0);
  NEEDS(cvmcache_pread, 0);
  NEEDS(cvmcache_start_txn, CVMCACHE_CAP_WRITE);
  NEEDS(cvmcache_write_txn, CVMCACHE_CAP_WRITE);
  NEEDS(cvmcache_commit_txn, CVMCACHE_CAP_WRITE);
  NEEDS(cvmcache_abort_txn, CVMCACHE_CAP_WRITE);
  NEEDS(cvmcache_info, CVMCACHE_CAP_INFO | CVMCACHE_CAP_SHRINK_RATE);
  NEEDS(cvmcache_shrink, CVMCACHE_CAP_SHRINK);
  NEEDS(cvmcache_listing_begin, CVMCACHE_CAP_LIST);
  NEEDS(cvmcache_listing_next, CVMCACHE_CAP_LIST);
  NEEDS(cvmcache_listing_end, CVMCACHE_CAP_LIST);
  NEEDS(cvmcache_breadcrumb_store, CVMCACHE_CAP_BREADCRUMB);
  NEEDS(cvmcache_breadcrumb_load, CVMCACHE_CAP_BREADCRUMB);
  table.capabilities = CVMCACHE_CAP_SHRINK_RATE;
  HOLDS(cvmcache_init(&table) == NULL);
  HOLDS(cvmcache_init(NULL) == NULL);
  HOLDS(!cvmcache_is_supervised());

  table = all();
  context = cvmcache_init(&table);
  HOLDS(context != NULL);
  HOLDS(cvmcache_max_object_size(context) == 256 * 1024);
  cvmcache_process_requests(context, 0); /* it does not listen */
  cvmcache_ask_detach(context);
  cvmcache_terminate(context);
  cvmcache_admin(context, "/nowhere/at/all");
  cvmcache_admin(context, NULL); /* the last one holds */
  HOLDS(!cvmcache_listen(context, NULL));
  HOLDS(cvmcache_listen(context, strcat(strcpy(locator, "unix="), directory)) == 0);
  /* Another locator does. */
  strcat(strcat(strcpy(locator, "unix="), directory), "/socket");
  HOLDS(cvmcache_listen(context, locator));
  HOLDS(!cvmcache_listen(context, locator)); /* it listens already */
  cvmcache_admin(context, NULL); /* it is too late */
  cvmcache_allow_workers(context);
  cvmcache_process_requests(context, 2);
  cvmcache_process_requests(context, 2); /* it runs already */
  cvmcache_terminate(context);
  cvmcache_terminate(context);
  cvmcache_wait_for(context);

  /* There is no such context any more, and there was never a NULL. */
  HOLDS(!cvmcache_listen(context, locator));
  HOLDS(!cvmcache_listen(NULL, locator));
  cvmcache_process_requests(context, 0);
  cvmcache_allow_workers(context);
  cvmcache_ask_detach(context);
  cvmcache_admin(context, NULL);
  cvmcache_admin(NULL, "/tmp/x");
  cvmcache_terminate(context);
  cvmcache_wait_for(context);
  cvmcache_wait_for(NULL);
  HOLDS(cvmcache_max_object_size(context) == 0);

  session.id = 1;
  session.repository_name = session.client_instance = locator;
  cvmcache_get_session(&session);
  HOLDS(session.id == 0 && session.repository_name == NULL && session.client_instance == NULL);
  cvmcache_get_session(NULL);
}

static void *terminate(void *context) {
  cvmcache_terminate(context);
  return NULL;
}

/* Two at once; each is ended by another thread, while it is waited for or before. */
static void threads(const char *directory) {
  struct cvmcache_callbacks table = all();
  struct cvmcache_context *context[2];
  pthread_t thread[2];
  char locator[4096];
  int i;
  for (i = 0; i < 2; i++) {
    context[i] = cvmcache_init(&table);
    snprintf(locator, sizeof locator, "unix=%s/socket%d", directory, i);
    HOLDS(cvmcache_listen(context[i], locator));
    cvmcache_process_requests(context[i], 0);
  }
  for (i = 0; i < 2; i++) {
    HOLDS(pthread_create(&thread[i], NULL, terminate, context[i]) == 0);
    cvmcache_wait_for(context[i]);
    HOLDS(cvmcache_max_object_size(context[i]) == 0);
    pthread_join(thread[i], NULL);
  }
}

int main(int argc, char **argv) {
  if (argc != 2) return 100;
  cvmcache_init_global();
  cvmcache_init_global();
  hashes();
  options(argv[1]);
  contexts(argv[1]);
  threads(argv[1]);
  cvmcache_cleanup_global();
  return wrong;
}
