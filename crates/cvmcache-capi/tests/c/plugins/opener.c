/* A plugin in C99 that keeps objects as files in the directory STORE: it opens a file when its object is
 * opened, reads from the descriptor, and closes it with the last reference. It counts references for
 * itself and may lose an open object's file, so it does not declare REFCOUNT: it declares WRITE, or
 * nothing at all if its configuration has READ_ONLY. It exits with 4 if an object is open at the end. */
#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layout.h"

#define MOST 64

/* An open object: a descriptor, and how many references there are to it. */
struct object {
  struct cvmcache_hash id;
  int fd, references;
};

/* An upload: a file without the name of its object. */
struct upload {
  struct cvmcache_hash id;
  uint64_t txn_id;
  int fd;
};

static char *store;
static struct object objects[MOST];
static struct upload uploads[MOST];

static void path_of(char *path, size_t len, struct cvmcache_hash *id) {
  char *name = cvmcache_hash_print(id);
  snprintf(path, len, "%s/%s", store, name);
  free(name);
}

static struct object *find(struct cvmcache_hash *id) {
  int i;
  for (i = 0; i < MOST; i++)
    if (objects[i].references > 0 && cvmcache_hash_cmp(&objects[i].id, id) == 0) return &objects[i];
  return NULL;
}

static struct object *open_object(struct cvmcache_hash *id) {
  char path[4096];
  int i, fd;
  for (i = 0; i < MOST && objects[i].references > 0; i++) {}
  if (i == MOST) return NULL;
  path_of(path, sizeof path, id);
  fd = open(path, O_RDONLY);
  if (fd < 0) return NULL;
  objects[i].id = *id;
  objects[i].fd = fd;
  return &objects[i];
}

static int chrefcnt(struct cvmcache_hash *id, int32_t by) {
  struct object *object = find(id);
  if (object == NULL) {
    if (by < 0) return CVMCACHE_STATUS_BADCOUNT;
    object = open_object(id);
    if (object == NULL) return CVMCACHE_STATUS_NOENTRY;
  }
  if (object->references + by < 0) return CVMCACHE_STATUS_BADCOUNT;
  object->references += by;
  if (object->references == 0) close(object->fd);
  return CVMCACHE_STATUS_OK;
}

/* Only of open objects: clients open them first. */
static int obj_info(struct cvmcache_hash *id, struct cvmcache_object_info *info) {
  struct object *object = find(id);
  struct stat status;
  if (object == NULL || fstat(object->fd, &status) != 0) return CVMCACHE_STATUS_NOENTRY;
  info->size = (uint64_t)status.st_size;
  return CVMCACHE_STATUS_OK;
}

static int pread_object(struct cvmcache_hash *id, uint64_t offset, uint32_t *size,
                        unsigned char *buffer) {
  struct object *object = find(id);
  ssize_t got;
  if (object == NULL) return CVMCACHE_STATUS_NOENTRY;
  got = pread(object->fd, buffer, *size, (off_t)offset);
  if (got < 0) return CVMCACHE_STATUS_IOERR;
  *size = (uint32_t)got;
  return CVMCACHE_STATUS_OK;
}

static struct upload *upload_of(uint64_t txn_id) {
  int i;
  for (i = 0; i < MOST; i++)
    if (uploads[i].txn_id == txn_id) return &uploads[i];
  return NULL;
}

static void part_of(char *path, size_t len, uint64_t txn_id) {
  snprintf(path, len, "%s/upload-%lu", store, (unsigned long)txn_id);
}

static int start_txn(struct cvmcache_hash *id, uint64_t txn_id, struct cvmcache_object_info *info) {
  struct upload *upload = upload_of(0);
  char path[4096];
  (void)info;
  if (upload == NULL) return CVMCACHE_STATUS_NOSPACE;
  part_of(path, sizeof path, txn_id);
  upload->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (upload->fd < 0) return CVMCACHE_STATUS_IOERR;
  upload->id = *id;
  upload->txn_id = txn_id;
  return CVMCACHE_STATUS_OK;
}

static int write_txn(uint64_t txn_id, unsigned char *buffer, uint32_t size) {
  struct upload *upload = upload_of(txn_id);
  if (upload == NULL || write(upload->fd, buffer, size) != (ssize_t)size)
    return CVMCACHE_STATUS_IOERR;
  return CVMCACHE_STATUS_OK;
}

static int commit_txn(uint64_t txn_id) {
  struct upload *upload = upload_of(txn_id);
  char part[4096], path[4096];
  if (upload == NULL) return CVMCACHE_STATUS_IOERR;
  part_of(part, sizeof part, txn_id);
  path_of(path, sizeof path, &upload->id);
  close(upload->fd);
  upload->txn_id = 0;
  if (rename(part, path) != 0) return CVMCACHE_STATUS_IOERR;
  /* The reference that a commit leaves. */
  return chrefcnt(&upload->id, 1);
}

static int abort_txn(uint64_t txn_id) {
  struct upload *upload = upload_of(txn_id);
  char part[4096];
  if (upload == NULL) return CVMCACHE_STATUS_IOERR;
  part_of(part, sizeof part, txn_id);
  close(upload->fd);
  upload->txn_id = 0;
  return unlink(part) == 0 ? CVMCACHE_STATUS_OK : CVMCACHE_STATUS_IOERR;
}

int main(int argc, char **argv) {
  struct cvmcache_callbacks callbacks;
  struct cvmcache_context *context;
  cvmcache_option_map *options;
  char *locator, *read_only;
  sigset_t signals;
  int received, i, left = 0;
  cvmcache_init_global();
  options = cvmcache_options_init();
  if (argc != 2 || cvmcache_options_parse(options, argv[1]) != 0) return 1;
  locator = cvmcache_options_get(options, "CVMFS_CACHE_PLUGIN_LOCATOR");
  store = cvmcache_options_get(options, "STORE");
  read_only = cvmcache_options_get(options, "READ_ONLY");
  if (locator == NULL || store == NULL) return 1;
  memset(&callbacks, 0, sizeof callbacks);
  callbacks.cvmcache_chrefcnt = chrefcnt;
  callbacks.cvmcache_obj_info = obj_info;
  callbacks.cvmcache_pread = pread_object;
  if (read_only == NULL) {
    callbacks.cvmcache_start_txn = start_txn;
    callbacks.cvmcache_write_txn = write_txn;
    callbacks.cvmcache_commit_txn = commit_txn;
    callbacks.cvmcache_abort_txn = abort_txn;
    callbacks.capabilities = CVMCACHE_CAP_WRITE;
  }
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
  context = cvmcache_init(&callbacks);
  if (!cvmcache_listen(context, locator)) return 1;
  cvmcache_process_requests(context, 0);
  sigwait(&signals, &received);
  cvmcache_terminate(context);
  cvmcache_wait_for(context);
  for (i = 0; i < MOST; i++) left += objects[i].references > 0 || uploads[i].txn_id != 0;
  cvmcache_options_free(locator);
  cvmcache_options_free(store);
  cvmcache_options_free(read_only);
  cvmcache_options_fini(options);
  cvmcache_cleanup_global();
  return left == 0 ? 0 : 4;
}
