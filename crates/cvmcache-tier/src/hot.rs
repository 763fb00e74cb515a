//! The hot tier: what a cache on this node has to do besides being a plugin.

mod cache;
mod disk;
mod ram;

use std::time::SystemTime;

use bytes::Bytes;
use cvmcache::CachePlugin;
#[cfg(doc)]
use cvmcache::plugin::Status;
use cvmcache::plugin::{Data, ObjectId, ObjectType, PluginResult};

pub use cache::HotCache;

/// A cache plugin above an object store: cold objects leave it and come back.
///
/// None of these methods is a use of an object: it changes nothing of the order of eviction. All may wait for a
/// disk.
pub trait HotTier: CachePlugin {
    /// Objects without references whose last use was at `until` or earlier, the least recently used first. One
    /// that is used meanwhile may be among them.
    fn idle_objects(&self, until: SystemTime) -> Box<dyn Iterator<Item = HotObject> + Send>;

    /// What is known of an object, whether it has references or not.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if there is no such object.
    fn object(&self, id: &ObjectId) -> PluginResult<HotObject>;

    /// The BLAKE3 digest of each block of 1 MiB.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if there is no such object, [`Status::Corrupted`] if it is damaged: then it is a miss
    /// from now on.
    fn block_digests(&self, id: &ObjectId) -> PluginResult<Vec<[u8; 32]>>;

    /// Reads all of an object and compares it with its digests.
    ///
    /// # Errors
    ///
    /// As [`block_digests`](Self::block_digests).
    fn verify(&self, id: &ObjectId) -> PluginResult<()>;

    /// Reads `len` bytes from `offset` on, or fewer at the end of the object.
    ///
    /// # Errors
    ///
    /// As [`CachePlugin::read`].
    fn read_unused(&self, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data>;

    /// Reads all objects and compares them with their digests; damaged ones are misses from now on. `progress` is
    /// called for each at least, and ends it by returning false.
    fn scrub(&self, progress: &mut dyn FnMut(&Scrubbed) -> bool);

    /// False while objects may be missing in [`idle_objects`](Self::idle_objects) and in a scrub, as after a start.
    fn is_complete(&self) -> bool {
        true
    }

    /// Evicts one object; false if it has references or is not there.
    fn evict(&self, id: &ObjectId) -> bool;
}

/// How far a scrub is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Objects that are what was stored.
    pub good: u64,
    /// Objects that were damaged, and are misses from now on.
    pub damaged: u64,
    /// Objects that have gone meanwhile.
    pub skipped: u64,
    /// How many bytes were read.
    pub bytes: u64,
}

/// An object of the hot tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotObject {
    /// Its name.
    pub id: ObjectId,
    /// Its length in bytes.
    pub len: u64,
    /// Its type.
    pub object_type: ObjectType,
    /// What it was stored with, usually a path.
    pub description: Option<Bytes>,
}
