/* A plugin in C99 that answers what no plugin should: ODD in its configuration says what. It has one
 * object of three bytes, "odd", by any name, unless it is told to lose that. It exits with 3 if a
 * listing was not ended. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "layout.h"

#define OBJECT "odd"

static const char *odd = "";
static int listings = 0, lost = 0;
static struct cvmcache_context *context;

static int is(const char *what) { return strcmp(odd, what) == 0; }

/* What a callback returns that has done what it should. */
static int done(void) {
  if (is("status")) return 4711;
  if (is("negative-status")) return -1;
  return CVMCACHE_STATUS_OK;
}

static int chrefcnt(struct cvmcache_hash *id, int32_t by) {
  (void)id, (void)by;
  return done();
}

static int obj_info(struct cvmcache_hash *id, struct cvmcache_object_info *info) {
  (void)id;
  if (lost) {
    /* It is freed all the same. */
    info->description = strdup("lost");
    return CVMCACHE_STATUS_NOENTRY;
  }
  if (is("thread")) pthread_exit(NULL);
  if (is("terminate")) cvmcache_terminate(context);
  if (is("wait")) cvmcache_wait_for(context);
  if (is("fork")) {
    int ended = 0;
    pid_t child = fork();
    if (child == 0) _exit(7);
    if (waitpid(child, &ended, 0) != child || WEXITSTATUS(ended) != 7) abort();
  }
  info->size = strlen(OBJECT);
  if (is("values")) {
    info->type = (enum cvmcache_object_type)77;
    info->pinned = -1;
  }
  return done();
}

static int pread_object(struct cvmcache_hash *id, uint64_t offset, uint32_t *size,
                        unsigned char *buffer) {
  if (lost) abort(); /* it was not to be asked for */
  if (is("values")) {
    *size += 1;
    return CVMCACHE_STATUS_OK;
  }
  if (is("untouched")) {
    /* But for one object, whose bytes no other may show. */
    if (id->digest[0] == 1) memset(buffer, 'x', *size);
    return CVMCACHE_STATUS_OK;
  }
  if (offset > strlen(OBJECT)) return CVMCACHE_STATUS_OUTOFBOUNDS;
  if (*size > strlen(OBJECT) - offset) *size = (uint32_t)(strlen(OBJECT) - offset);
  memcpy(buffer, OBJECT + offset, *size);
  return done();
}

static int start_txn(struct cvmcache_hash *id, uint64_t txn_id, struct cvmcache_object_info *info) {
  (void)id, (void)txn_id;
  /* What is there in its place is freed instead. */
  if (is("values")) {
    free(info->description);
    info->description = NULL;
  }
  return done();
}

static int write_txn(uint64_t txn_id, unsigned char *buffer, uint32_t size) {
  (void)txn_id, (void)buffer, (void)size;
  return done();
}

static int commit_txn(uint64_t txn_id) {
  (void)txn_id;
  lost = is("forgetful");
  return done();
}

static int abort_txn(uint64_t txn_id) {
  (void)txn_id;
  return done();
}

static int get_info(struct cvmcache_info *info) {
  memset(info, 0xff, sizeof *info);
  if (is("values")) info->no_shrink = INT64_MIN;
  return done();
}

static int shrink(uint64_t target, uint64_t *used) {
  *used = is("values") ? UINT64_MAX : target;
  return done();
}

static int listing_begin(uint64_t lst_id, enum cvmcache_object_type type) {
  (void)lst_id, (void)type;
  listings++;
  return done();
}

/* Never ends. */
static int listing_next(int64_t lst_id, struct cvmcache_object_info *item) {
  (void)lst_id;
  memset(&item->id, 0x0d, sizeof item->id);
  item->id.algorithm = is("values") ? 99 : CVMCACHE_HASH_SHA1;
  item->description = is("values") ? strdup("nameless") : NULL;
  return done();
}

static int listing_end(int64_t lst_id) {
  (void)lst_id;
  listings--;
  return done();
}

static int breadcrumb_store(const char *fqrn, const struct cvmcache_breadcrumb *crumb) {
  (void)fqrn, (void)crumb;
  return done();
}

static int breadcrumb_load(const char *fqrn, struct cvmcache_breadcrumb *crumb) {
  (void)fqrn;
  crumb->catalog_hash.algorithm = is("values") ? -1 : CVMCACHE_HASH_SHA1;
  return done();
}

#include "all_callbacks.h"

int main(int argc, char **argv) {
  struct cvmcache_callbacks callbacks;
  cvmcache_option_map *options;
  char *locator, *what;
  sigset_t signals;
  int received;
  cvmcache_init_global();
  options = cvmcache_options_init();
  if (argc != 2 || cvmcache_options_parse(options, argv[1]) != 0) return 1;
  locator = cvmcache_options_get(options, "CVMFS_CACHE_PLUGIN_LOCATOR");
  what = cvmcache_options_get(options, "ODD");
  if (what != NULL) odd = what;
  callbacks = all_callbacks();
  if (is("forgetful")) callbacks.capabilities = CVMCACHE_CAP_WRITE;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
  context = cvmcache_init(&callbacks);
  if (!cvmcache_listen(context, locator)) return 1;
  cvmcache_process_requests(context, 0);
  if (!is("terminate")) {
    sigwait(&signals, &received);
    cvmcache_terminate(context);
  }
  cvmcache_wait_for(context);
  if (is("again")) {
    context = cvmcache_init(&callbacks);
    if (!cvmcache_listen(context, locator)) return 1;
    cvmcache_process_requests(context, 0);
    cvmcache_terminate(context);
    cvmcache_wait_for(context);
  }
  cvmcache_options_free(locator);
  cvmcache_options_free(what);
  cvmcache_options_fini(options);
  cvmcache_cleanup_global();
  return listings == 0 ? 0 : 3;
}
