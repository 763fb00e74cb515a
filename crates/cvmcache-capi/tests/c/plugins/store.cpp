// A cache without a limit, in C++11, written as existing plugins are: maps by hash and by number, and
// no check of what the library promises. With THROW=callback, that callback throws; with READ_ONLY set,
// there are no callbacks but those that every plugin needs.
#include <pthread.h>
#include <signal.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "layout.h"

namespace {

struct Less {
  bool operator()(const cvmcache_hash &a, const cvmcache_hash &b) const {
    return cvmcache_hash_cmp(const_cast<cvmcache_hash *>(&a), const_cast<cvmcache_hash *>(&b)) < 0;
  }
};

struct Object {
  std::string content;
  std::string description;
  cvmcache_object_type type;
  int64_t references;
};

struct Upload {
  cvmcache_hash id;
  Object object;
};

struct Listing {
  std::vector<std::pair<cvmcache_hash, Object>> items;
  size_t at;
};

typedef std::map<cvmcache_hash, Object, Less> Objects;

Objects objects;
std::map<uint64_t, Upload> uploads;
std::map<int64_t, Listing> listings;
std::map<std::string, cvmcache_breadcrumb> breadcrumbs;
std::string throwing;

void Called(const char *name) {
  if (throwing == name) throw std::runtime_error("told to throw");
}

char *Copy(const std::string &text) { return text.empty() ? nullptr : strdup(text.c_str()); }

int ChangeRefcount(cvmcache_hash *id, int32_t by) {
  Called("chrefcnt");
  auto found = objects.find(*id);
  if (found == objects.end()) return CVMCACHE_STATUS_NOENTRY;
  if (found->second.references + by < 0) return CVMCACHE_STATUS_BADCOUNT;
  found->second.references += by;
  return CVMCACHE_STATUS_OK;
}

int GetObjectInfo(cvmcache_hash *id, cvmcache_object_info *info) {
  Called("obj_info");
  auto found = objects.find(*id);
  if (found == objects.end()) return CVMCACHE_STATUS_NOENTRY;
  info->size = found->second.content.size();
  info->type = found->second.type;
  info->pinned = found->second.references > 0;
  info->description = Copy(found->second.description);
  return CVMCACHE_STATUS_OK;
}

int Pread(cvmcache_hash *id, uint64_t offset, uint32_t *size, unsigned char *buffer) {
  Called("pread");
  const std::string &content = objects.at(*id).content;
  if (offset > content.size()) return CVMCACHE_STATUS_OUTOFBOUNDS;
  *size = static_cast<uint32_t>(content.copy(reinterpret_cast<char *>(buffer), *size, offset));
  return CVMCACHE_STATUS_OK;
}

int StartTxn(cvmcache_hash *id, uint64_t txn_id, cvmcache_object_info *info) {
  Called("start_txn");
  const std::string description(info->description != nullptr ? info->description : "");
  uploads[txn_id] = Upload{*id, Object{"", description, info->type, 1}};
  return CVMCACHE_STATUS_OK;
}

int WriteTxn(uint64_t txn_id, unsigned char *buffer, uint32_t size) {
  Called("write_txn");
  uploads.at(txn_id).object.content.append(reinterpret_cast<char *>(buffer), size);
  return CVMCACHE_STATUS_OK;
}

int CommitTxn(uint64_t txn_id) {
  Called("commit_txn");
  Upload &upload = uploads.at(txn_id);
  auto found = objects.find(upload.id);
  if (found != objects.end())
    found->second.references++;
  else
    objects[upload.id] = upload.object;
  uploads.erase(txn_id);
  return CVMCACHE_STATUS_OK;
}

int AbortTxn(uint64_t txn_id) {
  Called("abort_txn");
  uploads.erase(uploads.find(txn_id));
  return CVMCACHE_STATUS_OK;
}

int GetInfo(cvmcache_info *info) {
  info->size_bytes = static_cast<uint64_t>(-1);
  for (const auto &object : objects) {
    info->used_bytes += object.second.content.size();
    if (object.second.references > 0) info->pinned_bytes += object.second.content.size();
  }
  info->no_shrink = 0;
  return CVMCACHE_STATUS_OK;
}

int Shrink(uint64_t target, uint64_t *used) {
  cvmcache_info info = {0, 0, 0, 0};
  GetInfo(&info);
  for (int round = 0; round < 2; round++) {
    for (auto object = objects.begin(); object != objects.end() && info.used_bytes > target;) {
      const bool goes = object->second.references == 0 &&
                        (round == 1 || object->second.type == CVMCACHE_OBJECT_VOLATILE);
      if (goes) info.used_bytes -= object->second.content.size();
      object = goes ? objects.erase(object) : std::next(object);
    }
  }
  *used = info.used_bytes;
  return *used <= target ? CVMCACHE_STATUS_OK : CVMCACHE_STATUS_PARTIAL;
}

int ListingBegin(uint64_t lst_id, cvmcache_object_type type) {
  Listing &listing = listings[static_cast<int64_t>(lst_id)];
  listing.at = 0;
  for (const auto &object : objects)
    if (object.second.type == type) listing.items.push_back(object);
  return CVMCACHE_STATUS_OK;
}

int ListingNext(int64_t lst_id, cvmcache_object_info *item) {
  Listing &listing = listings.at(lst_id);
  if (listing.at == listing.items.size()) return CVMCACHE_STATUS_OUTOFBOUNDS;
  const auto &object = listing.items[listing.at++];
  item->id = object.first;
  item->size = object.second.content.size();
  item->type = object.second.type;
  item->pinned = object.second.references > 0;
  item->description = Copy(object.second.description);
  return CVMCACHE_STATUS_OK;
}

int ListingEnd(int64_t lst_id) {
  listings.erase(listings.find(lst_id));
  return CVMCACHE_STATUS_OK;
}

int StoreBreadcrumb(const char *fqrn, const cvmcache_breadcrumb *breadcrumb) {
  breadcrumbs[fqrn] = *breadcrumb;
  return CVMCACHE_STATUS_OK;
}

int LoadBreadcrumb(const char *fqrn, cvmcache_breadcrumb *breadcrumb) {
  const auto found = breadcrumbs.find(fqrn);
  if (found == breadcrumbs.end()) return CVMCACHE_STATUS_NOENTRY;
  *breadcrumb = found->second;
  return CVMCACHE_STATUS_OK;
}

std::string Option(cvmcache_option_map *options, const char *key) {
  char *value = cvmcache_options_get(options, key);
  const std::string result(value != nullptr ? value : "");
  cvmcache_options_free(value);
  return result;
}

}  // namespace

int main(int argc, char **argv) {
  cvmcache_init_global();
  cvmcache_option_map *options = cvmcache_options_init();
  if (argc != 2 || cvmcache_options_parse(options, argv[1]) != 0) return 1;
  std::string locator = Option(options, "CVMFS_CACHE_PLUGIN_LOCATOR");
  throwing = Option(options, "THROW");
  const bool read_only = !Option(options, "READ_ONLY").empty();
  const std::string dump = Option(options, "CVMFS_CACHE_PLUGIN_CRASH_DUMP");
  cvmcache_options_fini(options);

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  if (!dump.empty()) cvmcache_spawn_watchdog(dump.c_str());
  cvmcache_callbacks callbacks;
  memset(&callbacks, 0, sizeof(callbacks));
  callbacks.cvmcache_chrefcnt = ChangeRefcount;
  callbacks.cvmcache_obj_info = GetObjectInfo;
  callbacks.cvmcache_pread = Pread;
  callbacks.cvmcache_start_txn = StartTxn;
  callbacks.cvmcache_write_txn = WriteTxn;
  callbacks.cvmcache_commit_txn = CommitTxn;
  callbacks.cvmcache_abort_txn = AbortTxn;
  callbacks.cvmcache_info = GetInfo;
  callbacks.cvmcache_shrink = Shrink;
  callbacks.cvmcache_listing_begin = ListingBegin;
  callbacks.cvmcache_listing_next = ListingNext;
  callbacks.cvmcache_listing_end = ListingEnd;
  callbacks.cvmcache_breadcrumb_store = StoreBreadcrumb;
  callbacks.cvmcache_breadcrumb_load = LoadBreadcrumb;
  callbacks.capabilities = CVMCACHE_CAP_ALL_V2;

  if (read_only) {
    memset(&callbacks, 0, sizeof(callbacks));
    callbacks.cvmcache_obj_info = GetObjectInfo;
    callbacks.cvmcache_pread = Pread;
  }

  cvmcache_context *context = cvmcache_init(&callbacks);
  if (!cvmcache_listen(context, &locator[0])) return 1;
  cvmcache_process_requests(context, 0);
  int received;
  sigwait(&signals, &received);
  cvmcache_terminate(context);
  cvmcache_wait_for(context);
  cvmcache_terminate_watchdog();
  cvmcache_cleanup_global();
  return uploads.empty() && listings.empty() ? 0 : 3;
}
