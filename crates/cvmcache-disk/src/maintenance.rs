//! What a tier above the cache needs: which objects are idle, reads that are no use of them, digests, eviction
//! of one object, and scrubbing on request.

use std::iter;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cvmcache::plugin::{Data, ObjectId, ObjectType, PluginResult, Status};

use crate::entry::Entry;
use crate::index::Rank;
use crate::plugin::DiskCache;
use crate::scrub::{ScrubCounts, Scrubbed};
use crate::store::to_nanoseconds;

/// An object without references that has not been used for a while, see [`DiskCache::idle_objects`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdleObject {
    /// Its name.
    pub id: ObjectId,
    /// Its length in bytes.
    pub size: u64,
    /// Its type, as far as it is known: an object found in the tree alone is [`Regular`](ObjectType::Regular)
    /// until it is scrubbed or verified, and then a [`Catalog`](ObjectType::Catalog) if it begins as one.
    pub object_type: ObjectType,
    /// What it was stored with: usually a path.
    pub description: Option<Bytes>,
    /// When it was last opened, closed or stored.
    pub last_use: SystemTime,
}

/// Maintenance. None of these methods is a use of an object, and all may wait for the disk.
impl DiskCache {
    /// The objects without references whose last use was at `until` or earlier, in the order in which they
    /// would be evicted: volatile ones first, and the least recently used first among equals.
    ///
    /// The cache is locked for a few objects at a time, so any number is fine. Each object is returned once, also if
    /// the caller leaves it in place; one that is used meanwhile is left out, or may have been by the time that it
    /// is returned.
    pub fn idle_objects(
        &self,
        until: SystemTime,
    ) -> impl Iterator<Item = IdleObject> + Send + use<> {
        let store = Arc::clone(&self.store);
        let until = to_nanoseconds(until);
        let mut next = Some(Rank::FIRST);
        let batches = iter::from_fn(move || {
            let from = next?;
            Some(store.locked(|state| {
                let (batch, following) = state.index.idle_batch(until, from);
                next = following;
                batch.into_iter().map(IdleObject::new).collect::<Vec<_>>()
            }))
        });
        batches.flatten()
    }

    /// What is known of an object, whether it has references or not.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if there is no such object.
    pub fn object(&self, id: &ObjectId) -> PluginResult<IdleObject> {
        self.store.find(id, |index| index.get(id).map(IdleObject::new).ok_or(Status::NoEntry))
    }

    /// Reads as [`CachePlugin::read`](cvmcache::CachePlugin::read) does, and keeps no file open.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_unused(&self, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        self.store.read_unused(id, offset, len)
    }

    /// The BLAKE3 digest of each [block](Self::BLOCK_LEN) of an object; `None` if it was stored by another program and has not
    /// been scrubbed since.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if there is no such object.
    pub fn block_digests(&self, id: &ObjectId) -> PluginResult<Option<Vec<[u8; 32]>>> {
        self.store.info(id)?;
        Ok(self.store.digests(id).map(|digests| digests.blocks()))
    }

    /// Reads all of an object, compares it with its digests, and returns them. An object without any gets them.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if there is no such object, and [`Status::Corrupted`] if its bytes are not those
    /// that were stored, or cannot be read: it was moved aside then, and is a miss from now on.
    pub fn verify(&self, id: &ObjectId) -> PluginResult<Vec<[u8; 32]>> {
        self.store.info(id)?;
        // It may get its name between the look-up and the open, but only once.
        for _ in 0..2 {
            match self.store.scrub(id, &mut |_| true) {
                Scrubbed::Good | Scrubbed::Recorded => {
                    let digests = self.store.digests(id).ok_or(Status::NoEntry)?;
                    return Ok(digests.blocks());
                }
                Scrubbed::Damaged => return Err(Status::Corrupted),
                Scrubbed::Skipped | Scrubbed::Stopped => {}
            }
        }
        Err(Status::NoEntry)
    }

    /// Evicts one object. False if it has references, is not there, or the cache is an alien one.
    pub fn evict(&self, id: &ObjectId) -> bool {
        self.store.evict(id)
    }

    /// Reads all objects at full speed and compares them with their digests; damaged ones are moved aside.
    /// `progress` is called before each read and after each object, and may end it.
    pub fn scrub(&self, mut progress: impl FnMut(&ScrubCounts) -> ControlFlow<()>) -> ScrubCounts {
        self.store.scrub_all(|_, counts| progress(counts)).0
    }

    /// The length of the blocks that have digests. The last block of an object may be shorter.
    pub const BLOCK_LEN: usize = crate::digest::BLOCK;
}

impl IdleObject {
    fn new(entry: &Entry) -> Self {
        Self {
            id: entry.id,
            size: entry.size,
            object_type: entry.object_type,
            description: entry.description(),
            last_use: UNIX_EPOCH + Duration::from_nanos(entry.last_use),
        }
    }
}
