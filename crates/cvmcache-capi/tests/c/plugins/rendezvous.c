/* A plugin whose callback waits for another one, in C99: it finds an object if two of them run at once
 * within PATIENCE seconds. With ALLOW set, it allows that. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "layout.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int inside = 0, met = 0, patience = 0;

static int obj_info(struct cvmcache_hash *id, struct cvmcache_object_info *info) {
  struct timespec deadline;
  int found;
  (void)id;
  clock_gettime(CLOCK_REALTIME, &deadline);
  deadline.tv_sec += patience;
  pthread_mutex_lock(&lock);
  inside++;
  if (inside == 2) {
    met = 1;
    pthread_cond_broadcast(&changed);
  }
  while (!met && pthread_cond_timedwait(&changed, &lock, &deadline) == 0) continue;
  inside--;
  found = met;
  pthread_mutex_unlock(&lock);
  info->size = 0;
  return found ? CVMCACHE_STATUS_OK : CVMCACHE_STATUS_NOENTRY;
}

static int pread_object(struct cvmcache_hash *id, uint64_t offset, uint32_t *size,
                        unsigned char *buffer) {
  (void)id, (void)offset, (void)buffer;
  *size = 0;
  return CVMCACHE_STATUS_OK;
}

int main(int argc, char **argv) {
  struct cvmcache_callbacks callbacks;
  struct cvmcache_context *context;
  cvmcache_option_map *options;
  char *locator, *seconds, *allow;
  cvmcache_init_global();
  options = cvmcache_options_init();
  if (argc != 2 || cvmcache_options_parse(options, argv[1]) != 0) return 1;
  locator = cvmcache_options_get(options, "CVMFS_CACHE_PLUGIN_LOCATOR");
  seconds = cvmcache_options_get(options, "PATIENCE");
  allow = cvmcache_options_get(options, "ALLOW");
  if (seconds != NULL) patience = atoi(seconds);
  memset(&callbacks, 0, sizeof callbacks);
  callbacks.cvmcache_obj_info = obj_info;
  callbacks.cvmcache_pread = pread_object;
  callbacks.capabilities = CVMCACHE_CAP_NONE;
  context = cvmcache_init(&callbacks);
  if (!cvmcache_listen(context, locator)) return 1;
  if (allow != NULL) cvmcache_allow_workers(context);
  cvmcache_process_requests(context, 2);
  cvmcache_wait_for(context);
  return 0;
}
