/*
 * libcvmfs_cache: CernVM-FS cache plugins in C and C++.
 *
 * A plugin is a process that keeps objects for CernVM-FS clients on its node. It fills in a table
 * of callbacks; the library talks to the clients, and calls them. The interface is that of
 * revision 5 of the library that comes with CernVM-FS, in C99 and C++; this library is made with
 * cvmcache, and docs/c-plugins.md there says how the two differ. SPDX: MIT OR Apache-2.0.
 *
 *   cvmcache_init_global
 *   cvmcache_options_...              read the plugin's configuration
 *   cvmcache_spawn_watchdog           while there is only one thread
 *   cvmcache_init                     with the callbacks: a context
 *   cvmcache_listen                   clients can connect, and wait
 *   cvmcache_process_requests         callbacks are called from now on
 *   cvmcache_wait_for                 until the end; the context is gone
 *   cvmcache_terminate_watchdog
 *   cvmcache_cleanup_global
 */
#ifndef CVMCACHE_LIBCVMFS_CACHE_H
#define CVMCACHE_LIBCVMFS_CACHE_H

/* The revision of the interface. */
#define LIBCVMFS_CACHE_REVISION 5

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
/* C++ sources know it as a class. It is opaque outside of the library. */
typedef class SimpleOptionsParser cvmcache_option_map;
#else
typedef struct OptionsManager cvmcache_option_map;
#endif

/* ---- Values ------------------------------------------------------------------------------- */

/* Hash functions; every digest has 20 bytes. */
enum cvmcache_hash_algorithm {
  CVMCACHE_HASH_SHA1      = 1,
  CVMCACHE_HASH_RIPEMD160 = 2,
  CVMCACHE_HASH_SHAKE128  = 3
};

/* What callbacks return, and what a user of the mount sees then. */
enum cvmcache_status {
  CVMCACHE_STATUS_UNKNOWN     = 0,  /* EIO */
  CVMCACHE_STATUS_OK          = 1,
  CVMCACHE_STATUS_NOSUPPORT   = 2,  /* the plugin cannot do that: EOPNOTSUPP */
  CVMCACHE_STATUS_FORBIDDEN   = 3,  /* the client may not do that: EPERM */
  CVMCACHE_STATUS_NOSPACE     = 4,  /* the cache is full of open objects: ENOSPC */
  CVMCACHE_STATUS_NOENTRY     = 5,  /* there is no such object: ENOENT */
  CVMCACHE_STATUS_MALFORMED   = 6,  /* the request makes no sense: EINVAL */
  CVMCACHE_STATUS_IOERR       = 7,  /* the storage has failed: EIO */
  CVMCACHE_STATUS_CORRUPTED   = 8,  /* a checksum is wrong: EIO */
  CVMCACHE_STATUS_TIMEOUT     = 9,  /* something did not come in time: EIO */
  CVMCACHE_STATUS_BADCOUNT    = 10, /* fewer than zero references: EINVAL */
  CVMCACHE_STATUS_OUTOFBOUNDS = 11, /* behind the end of an object, or of a listing: EINVAL */
  CVMCACHE_STATUS_PARTIAL     = 12  /* not shrunk as far as asked for: EIO */
};

/* What an object is to the client. */
enum cvmcache_object_type {
  CVMCACHE_OBJECT_REGULAR  = 0, /* a file, or a part of one */
  CVMCACHE_OBJECT_CATALOG  = 1, /* a file catalog; clients keep those they use open */
  CVMCACHE_OBJECT_VOLATILE = 2  /* unlikely to be used again: evict it first */
};

/* What a plugin can do. Callbacks for what it does not declare may be NULL, and are never called, but for
 * cvmcache_chrefcnt. */
enum cvmcache_capabilities {
  CVMCACHE_CAP_NONE        = 0,
  CVMCACHE_CAP_WRITE       = 1,   /* store objects */
  CVMCACHE_CAP_REFCOUNT    = 2,   /* count references, and never evict an open object */
  CVMCACHE_CAP_SHRINK      = 4,   /* evict objects on request */
  CVMCACHE_CAP_INFO        = 8,   /* tell how full the cache is */
  CVMCACHE_CAP_SHRINK_RATE = 16,  /* count evictions; goes with INFO */
  CVMCACHE_CAP_LIST        = 32,  /* list objects */
  CVMCACHE_CAP_ALL_V1      = 63,
  CVMCACHE_CAP_BREADCRUMB  = 64,  /* keep the last known root catalog of each repository */
  CVMCACHE_CAP_ALL_V2      = 127
};

/* An unknown size. */
#ifdef __cplusplus
#define CVMCACHE_SIZE_UNKNOWN (uint64_t(-1))
#else
#define CVMCACHE_SIZE_UNKNOWN ((uint64_t)-1)
#endif

/* The name of an object. The same digest by two algorithms names two objects. */
struct cvmcache_hash {
  unsigned char digest[20];
  char algorithm; /* enum cvmcache_hash_algorithm */
} __attribute__((__packed__));

struct cvmcache_object_info {
  struct cvmcache_hash id;
  uint64_t size; /* in bytes */
  enum cvmcache_object_type type;
  int pinned;        /* not 0: it has references */
  char *description; /* usually a path, or NULL; the library frees what a plugin sets, by free() */
};

struct cvmcache_info {
  uint64_t size_bytes;   /* what the cache can hold; (uint64_t)-1 for no limit */
  uint64_t used_bytes;   /* what its objects take; uploads under way do not count */
  uint64_t pinned_bytes; /* the part of that in open objects */
  int64_t no_shrink;     /* how often it was cleaned up; -1 if that is not counted */
};

/* A plugin that serves, or is about to. */
struct cvmcache_context;

/* The mount that a callback is called for. */
struct cvmcache_session {
  uint64_t id;           /* never used again as long as the plugin runs */
  char *repository_name; /* need not be UTF-8 */
  char *client_instance; /* NULL if the client gave none */
};

/* The last known root catalog of a repository. */
struct cvmcache_breadcrumb {
  struct cvmcache_hash catalog_hash;
  uint64_t timestamp; /* seconds since 1970 */
  uint64_t revision;  /* of the repository; 0 if the client gave none */
};

/* Compares two names: -1, 0 or 1. */
int cvmcache_hash_cmp(struct cvmcache_hash *a, struct cvmcache_hash *b);

/* The name in hexadecimal digits, with -rmd160 or -shake128 behind it. Free it with free(). */
char *cvmcache_hash_print(const struct cvmcache_hash *h);

/* ---- Callbacks ---------------------------------------------------------------------------- */

/*
 * All callbacks return an enum cvmcache_status. They are called one at a time, on one thread that
 * the library has started, unless cvmcache_allow_workers() says more. No C++ exception may leave a
 * callback, and its thread may not end there: either would end the process, with a message. Nor may it
 * longjmp() out, which the library cannot see. A child that it forks must exec or _exit.
 *
 * A number that is no cvmcache_status counts as CVMCACHE_STATUS_UNKNOWN.
 *
 * What pointers point to is there until the callback returns. Strings that callbacks set are from
 * malloc(), or NULL, and end with a zero: they are freed whatever the callback returns.
 */
struct cvmcache_callbacks {
  /* REFCOUNT, but called whenever it is not NULL. Opens (> 0) or closes (< 0) an object, or (0) looks
   * whether it is there. NOENTRY if it is not, BADCOUNT if fewer than zero references would be left. */
  int (*cvmcache_chrefcnt)(struct cvmcache_hash *id, int32_t change_by);

  /* Always there. Sets size, and may set type, pinned and description. NOENTRY if there is no such
   * object. */
  int (*cvmcache_obj_info)(struct cvmcache_hash *id, struct cvmcache_object_info *info);

  /* Always there. Reads *size bytes from offset on, or fewer at the end, and sets *size to how many
   * it has written to the buffer, never more: the client takes what is in the buffer besides for bytes of
   * the object. That is zeros, or what a read of the same object has left there. OUTOFBOUNDS if offset
   * is larger than the object; one equal to its size reads 0 bytes. Called only for objects that are
   * there. */
  int (*cvmcache_pread)(struct cvmcache_hash *id, uint64_t offset, uint32_t *size,
                        unsigned char *buffer);

  /* WRITE, all four. An upload begins; several of the same object may be under way at once.
   * info has type, description, and size, which is what the client promises, or
   * CVMCACHE_SIZE_UNKNOWN. */
  int (*cvmcache_start_txn)(struct cvmcache_hash *id, uint64_t txn_id,
                            struct cvmcache_object_info *info);

  /* Appends a part: cvmcache_max_object_size() bytes, but for the last part, and never none. */
  int (*cvmcache_write_txn)(uint64_t txn_id, unsigned char *buffer, uint32_t size);

  /* The object is there from now on, with one reference; if there is one already, it gains that
   * reference. Whatever is returned, txn_id is not heard of again. */
  int (*cvmcache_commit_txn)(uint64_t txn_id);

  /* The upload is given up: by the client, because the client is gone, or because write_txn has
   * failed. txn_id is not heard of again. */
  int (*cvmcache_abort_txn)(uint64_t txn_id);

  /* INFO. */
  int (*cvmcache_info)(struct cvmcache_info *info);

  /* SHRINK. Evicts objects without references until at most shrink_to bytes are used, and sets
   * *used to how many are. PARTIAL if that is more than shrink_to. */
  int (*cvmcache_shrink)(uint64_t shrink_to, uint64_t *used);

  /* LIST, all three. A listing of the objects of one type begins. It need not show what comes and
   * goes meanwhile. */
  int (*cvmcache_listing_begin)(uint64_t lst_id, enum cvmcache_object_type type);

  /* Sets id, pinned and description of the next object. OUTOFBOUNDS if there is none. */
  int (*cvmcache_listing_next)(int64_t lst_id, struct cvmcache_object_info *item);

  /* The listing is over: it was read to its end, it has failed, or the client is gone. */
  int (*cvmcache_listing_end)(int64_t lst_id);

  /* BREADCRUMB, both. NOENTRY if none is kept for the repository. */
  int (*cvmcache_breadcrumb_store)(const char *fqrn, const struct cvmcache_breadcrumb *breadcrumb);
  int (*cvmcache_breadcrumb_load)(const char *fqrn, struct cvmcache_breadcrumb *breadcrumb);

  /* Flags of enum cvmcache_capabilities. */
  int capabilities;
};

/* ---- The life of a plugin ----------------------------------------------------------------- */

/* To be called before anything else. Opens /dev/null for each of the descriptors 0 to 2 that is
 * closed: a client starts its plugins with all three closed. */
void cvmcache_init_global(void);

/* To be called after everything else. */
void cvmcache_cleanup_global(void);

/* Not 0 if a client has started this process: it ends with the last mount then. */
int cvmcache_is_supervised(void);

/* Makes a context. The callbacks are copied. NULL, and a message on standard error, if a callback
 * is NULL that the capabilities need. */
struct cvmcache_context *cvmcache_init(struct cvmcache_callbacks *callbacks);

/* Listens on unix=/path/to/socket or tcp=host:port. Not 0 if clients can connect. A process may
 * fork between this and cvmcache_process_requests() and serve in the child. */
int cvmcache_listen(struct cvmcache_context *ctx, char *locator);

/* Starts the threads that talk to clients and call the callbacks. nworkers means nothing, unless
 * cvmcache_allow_workers() says so. */
void cvmcache_process_requests(struct cvmcache_context *ctx, unsigned nworkers);

/* Asks all clients to close the file catalogs they can do without. They do so when they like. */
void cvmcache_ask_detach(struct cvmcache_context *ctx);

/* Ends the threads, and waits for that, unless it is called in a callback or another thread is in
 * cvmcache_wait_for() already. The context stays. On any thread, but not in signal handlers, since it
 * waits and takes locks: sigwait() on a thread, instead. */
void cvmcache_terminate(struct cvmcache_context *ctx);

/* Waits until the threads have ended: by cvmcache_terminate() or, in a plugin that a client has
 * started, with the last mount; otherwise for ever. Frees the context: what is called with it
 * afterwards writes an error message and does nothing; so does a call in a callback. */
void cvmcache_wait_for(struct cvmcache_context *ctx);

/* The most bytes in a part of an upload, and in a read. */
uint32_t cvmcache_max_object_size(struct cvmcache_context *ctx);

/* Starts a process that writes what there is to say to this file if the plugin crashes; NULL for
 * the log only. To be called before there are threads. */
void cvmcache_spawn_watchdog(const char *crash_dump_file);

/* Ends that process. A plugin that ends without this has crashed, for all that it knows. */
void cvmcache_terminate_watchdog(void);

/* Whose callback this is. Outside of callbacks, 0 and two NULLs; for cvmcache_info and cvmcache_shrink that
 * an administrator asks for (cvmcache_admin()), 0, an empty name and NULL. */
void cvmcache_get_session(struct cvmcache_session *session);

/* ---- Options: lines of KEY=VALUE ------------------------------------------------------------ */

cvmcache_option_map *cvmcache_options_init(void);

/* Frees the map. Using it afterwards is a mistake that nothing catches. */
void cvmcache_options_fini(cvmcache_option_map *opts);

/* A map of its own with the same options. */
cvmcache_option_map *cvmcache_options_clone(cvmcache_option_map *opts);

void cvmcache_options_set(cvmcache_option_map *opts, const char *key, const char *value);

void cvmcache_options_unset(cvmcache_option_map *opts, const char *key);

/* Adds the options in a file: 0, or -1 if it cannot be read. */
int cvmcache_options_parse(cvmcache_option_map *opts, const char *path);

/* The value, or NULL. Free it with cvmcache_options_free(). */
char *cvmcache_options_get(cvmcache_option_map *opts, const char *key);

/* All options, a line each, with where they come from. Free it with cvmcache_options_free(). */
char *cvmcache_options_dump(cvmcache_option_map *opts);

/* Frees what cvmcache_options_get() or cvmcache_options_dump() has returned; NULL is fine. */
void cvmcache_options_free(char *value);

/* ---- Beyond revision 5: only in this library ------------------------------------------------ */

#define LIBCVMFS_CACHE_HAS_WORKERS 1

/* Says that callbacks may be called on several threads at once: nworkers of
 * cvmcache_process_requests() is how many they are, at most 1024, and 0 is one thread as ever. To be
 * called before that. The environment variable CVMFS_CACHE_PLUGIN_CONCURRENT=yes does the same. The
 * parts of an upload and of a listing, and the changes of one object's references by one session, come
 * one after the other in any case. */
void cvmcache_allow_workers(struct cvmcache_context *ctx);

#define LIBCVMFS_CACHE_HAS_ADMIN 1

/* Serves an administration socket while the plugin runs, for its user and root: who is connected,
 * statistics, health, a detach, a shrink (docs/administration.md). It is at this path; with NULL, beside
 * the plugin's unix socket, with .admin appended. To be called before cvmcache_listen(). The environment
 * variable CVMFS_CACHE_PLUGIN_ADMIN=PATH does the same, and =no has the last word. A socket that cannot be
 * served is a line in the log, and the plugin goes on.
 *
 * Callbacks are called on the threads that call them anyway: cvmcache_info for statistics, and
 * cvmcache_shrink for a shrink, both without a client, see cvmcache_get_session(). Without this function
 * and the variable there is no such socket, file or thread. */
void cvmcache_admin(struct cvmcache_context *ctx, const char *path);

#ifdef __cplusplus
}
#endif

#endif /* CVMCACHE_LIBCVMFS_CACHE_H */
