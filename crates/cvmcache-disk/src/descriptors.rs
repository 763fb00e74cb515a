//! Open files of objects that are read often: an open and a close take as long as the read of a small object.

use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::Arc;

use cvmcache::plugin::ObjectId;
use lru::LruCache;
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};

/// A bounded number of open files, of which the least recently used is closed first.
///
/// Invariant: a file is put in only under the lock of the store while the index has its object, so a file that
/// has been evicted is not kept, and its blocks are free. The lock of the store is taken before one of these.
#[derive(Debug)]
pub(crate) struct Descriptors {
    shards: Vec<Mutex<LruCache<ObjectId, Arc<File>>>>,
}

impl Descriptors {
    const SHARDS: usize = 16;

    /// Enough for the objects that jobs have open at a time.
    const MOST: u64 = 4096;

    /// As many as leave three quarters of the limit to connections and all else.
    pub(crate) fn new() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let each = (limit / 4).min(Self::MOST) as usize / Self::SHARDS;
        let each = NonZeroUsize::new(each).unwrap_or(NonZeroUsize::MIN);
        let shard = || Mutex::new(LruCache::new(each));
        Self { shards: std::iter::repeat_with(shard).take(Self::SHARDS).collect() }
    }

    pub(crate) fn get(&self, id: &ObjectId) -> Option<Arc<File>> {
        self.shard(id).lock().get(id).cloned()
    }

    pub(crate) fn put(&self, id: ObjectId, file: Arc<File>) {
        // What it replaces is closed without the lock.
        let replaced = self.shard(&id).lock().push(id, file);
        drop(replaced);
    }

    pub(crate) fn remove(&self, id: &ObjectId) {
        let removed = self.shard(id).lock().pop(id);
        drop(removed);
    }

    /// How many files are open.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, id: &ObjectId) -> &Mutex<LruCache<ObjectId, Arc<File>>> {
        let [.., last] = id.digest();
        &self.shards[usize::from(*last) % Self::SHARDS]
    }
}
