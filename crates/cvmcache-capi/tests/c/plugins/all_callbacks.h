/* The table of a plugin that can do everything. To be included behind its callbacks, which have to have
 * these names. */
#ifndef ALL_CALLBACKS_H
#define ALL_CALLBACKS_H

#include <string.h>

static struct cvmcache_callbacks all_callbacks(void) {
  struct cvmcache_callbacks table;
  memset(&table, 0, sizeof table);
  table.cvmcache_chrefcnt = chrefcnt;
  table.cvmcache_obj_info = obj_info;
  table.cvmcache_pread = pread_object;
  table.cvmcache_start_txn = start_txn;
  table.cvmcache_write_txn = write_txn;
  table.cvmcache_commit_txn = commit_txn;
  table.cvmcache_abort_txn = abort_txn;
  table.cvmcache_info = get_info;
  table.cvmcache_shrink = shrink;
  table.cvmcache_listing_begin = listing_begin;
  table.cvmcache_listing_next = listing_next;
  table.cvmcache_listing_end = listing_end;
  table.cvmcache_breadcrumb_store = breadcrumb_store;
  table.cvmcache_breadcrumb_load = breadcrumb_load;
  table.capabilities = CVMCACHE_CAP_ALL_V2;
  return table;
}

#endif
