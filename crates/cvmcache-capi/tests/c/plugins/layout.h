/* The layout of the interface, for compilers of C99 and C++: the numbers are those that src/layout.rs
 * has for Rust. A wrong one is an array of negative length. */
#ifndef LAYOUT_H
#define LAYOUT_H

#include <stddef.h>

#include "libcvmfs_cache.h"

#define CHECK(name, condition) typedef char check_##name[(condition) ? 1 : -1]
#define SIZE(type, bytes) CHECK(size_of_##type, sizeof(struct type) == (bytes))
#define OFFSET(type, field, bytes) \
  CHECK(offset_of_##type##_##field, offsetof(struct type, field) == (bytes))

CHECK(revision, LIBCVMFS_CACHE_REVISION == 5);
CHECK(size_unknown, CVMCACHE_SIZE_UNKNOWN == UINT64_C(0xffffffffffffffff));

SIZE(cvmcache_hash, 21);
OFFSET(cvmcache_hash, algorithm, 20);

SIZE(cvmcache_object_info, 48);
OFFSET(cvmcache_object_info, id, 0);
OFFSET(cvmcache_object_info, size, 24);
OFFSET(cvmcache_object_info, type, 32);
OFFSET(cvmcache_object_info, pinned, 36);
OFFSET(cvmcache_object_info, description, 40);

SIZE(cvmcache_info, 32);
OFFSET(cvmcache_info, size_bytes, 0);
OFFSET(cvmcache_info, used_bytes, 8);
OFFSET(cvmcache_info, pinned_bytes, 16);
OFFSET(cvmcache_info, no_shrink, 24);

SIZE(cvmcache_session, 24);
OFFSET(cvmcache_session, id, 0);
OFFSET(cvmcache_session, repository_name, 8);
OFFSET(cvmcache_session, client_instance, 16);

SIZE(cvmcache_breadcrumb, 40);
OFFSET(cvmcache_breadcrumb, catalog_hash, 0);
OFFSET(cvmcache_breadcrumb, timestamp, 24);
OFFSET(cvmcache_breadcrumb, revision, 32);

SIZE(cvmcache_callbacks, 15 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_chrefcnt, 0);
OFFSET(cvmcache_callbacks, cvmcache_obj_info, 1 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_pread, 2 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_start_txn, 3 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_write_txn, 4 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_commit_txn, 5 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_abort_txn, 6 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_info, 7 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_shrink, 8 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_listing_begin, 9 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_listing_next, 10 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_listing_end, 11 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_breadcrumb_store, 12 * sizeof(void *));
OFFSET(cvmcache_callbacks, cvmcache_breadcrumb_load, 13 * sizeof(void *));
OFFSET(cvmcache_callbacks, capabilities, 14 * sizeof(void *));

CHECK(sha1, CVMCACHE_HASH_SHA1 == 1);
CHECK(ripemd160, CVMCACHE_HASH_RIPEMD160 == 2);
CHECK(shake128, CVMCACHE_HASH_SHAKE128 == 3);
CHECK(unknown, CVMCACHE_STATUS_UNKNOWN == 0);
CHECK(ok, CVMCACHE_STATUS_OK == 1);
CHECK(partial, CVMCACHE_STATUS_PARTIAL == 12);
CHECK(types, sizeof(enum cvmcache_object_type) == 4 && CVMCACHE_OBJECT_VOLATILE == 2);
CHECK(capabilities, CVMCACHE_CAP_ALL_V1 == 63 && CVMCACHE_CAP_ALL_V2 == 127);

#endif
