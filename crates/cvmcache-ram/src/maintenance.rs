//! What a tier above the cache needs: which objects are idle, reads that are no use of them, and eviction of one
//! object.

use std::iter;
use std::sync::Arc;

use bytes::Bytes;
use cvmcache::plugin::{Data, ObjectId, ObjectInfo, PluginResult};

use crate::object::Object;
use crate::plugin::RamCache;
use crate::store::Rank;

/// An object without references that has not been used for a while, see [`RamCache::idle_objects`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdleObject {
    /// Its name.
    pub id: ObjectId,
    /// Its size and type.
    pub info: ObjectInfo,
    /// What it was stored with: usually a path.
    pub description: Option<Bytes>,
}

/// Maintenance. None of these methods is a use of an object, and none waits.
impl RamCache {
    /// How many times an object was closed since the start: the clock of the order of use. The cache reads no other.
    pub fn uses(&self) -> u64 {
        self.shared().locked(|store| store.uses())
    }

    /// The objects without references whose last use was the one with the number `until`, or an earlier one, in
    /// the order in which they would be evicted. Each is returned once, also if the caller leaves it in place.
    pub fn idle_objects(&self, until: u64) -> impl Iterator<Item = IdleObject> + Send + use<> {
        let shared = Arc::clone(self.shared());
        let mut next = Some(Rank::FIRST);
        let batches = iter::from_fn(move || {
            let from = next?;
            Some(shared.locked(|store| {
                let (batch, following) = store.idle_batch(until, from);
                next = following;
                // Not the objects: nothing must keep what is evicted meanwhile.
                batch.into_iter().map(IdleObject::new).collect::<Vec<_>>()
            }))
        });
        batches.flatten()
    }

    /// What is known of an object, whether it has references or not.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`](cvmcache::plugin::Status::NoEntry) if there is no such object.
    pub fn object(&self, id: &ObjectId) -> PluginResult<IdleObject> {
        let object = self.shared().locked(|store| store.get(id).cloned())?;
        Ok(IdleObject::new(&object))
    }

    /// Reads as [`CachePlugin::read`](cvmcache::CachePlugin::read) does.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_unused(&self, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        self.shared().locked(|store| store.get(id).cloned())?.read(offset, len)
    }

    /// Evicts one object. False if it has references or is not there.
    pub fn evict(&self, id: &ObjectId) -> bool {
        self.shared().locked(|store| store.evict_one(id))
    }
}

impl IdleObject {
    fn new(object: &Object) -> Self {
        Self { id: *object.id(), info: object.info(), description: object.description() }
    }
}

#[cfg(test)]
mod tests {
    use cvmcache::plugin::{HashAlgorithm, NewObject, Status};
    use cvmcache::{CachePlugin, ServerHandle, Session};

    use super::*;

    fn id(number: u8) -> ObjectId {
        ObjectId::new(HashAlgorithm::Sha1, [number; ObjectId::DIGEST_LEN])
    }

    fn store(cache: &RamCache, number: u8) {
        let session = Session::new(1, "test");
        let mut upload = cache.begin(&session, NewObject::new(id(number))).unwrap();
        upload.write(vec![number; 10].into()).unwrap();
        upload.commit().unwrap();
        cache.change_refcount(&session, &id(number), -1).unwrap();
    }

    #[test]
    fn idle_objects_are_those_whose_last_use_was_before_and_each_comes_once() {
        let cache = RamCache::new(200 << 20, ServerHandle::new()).unwrap();
        (0..200).for_each(|number| store(&cache, number));
        let until = cache.uses();
        let session = Session::new(1, "test");
        cache.change_refcount(&session, &id(3), 1).unwrap();
        cache.change_refcount(&session, &id(4), 1).unwrap();
        cache.change_refcount(&session, &id(4), -1).unwrap();
        (200..210).for_each(|number| store(&cache, number));
        let idle: Vec<_> = cache.idle_objects(until).map(|object| object.id).collect();
        let expected: Vec<_> = (0..200).filter(|number| ![3, 4].contains(number)).map(id).collect();
        assert_eq!(idle, expected);
        assert_eq!(cache.idle_objects(u64::MAX).count(), 209);
    }

    #[test]
    fn one_object_is_evicted_unless_it_is_open() {
        let cache = RamCache::new(200 << 20, ServerHandle::new()).unwrap();
        (0..3).for_each(|number| store(&cache, number));
        let session = Session::new(1, "test");
        cache.change_refcount(&session, &id(1), 1).unwrap();
        assert!(!cache.evict(&id(1)) && cache.evict(&id(2)) && !cache.evict(&id(9)));
        assert_eq!(cache.object(&id(2)), Err(Status::NoEntry));
        let read = cache.read_unused(&id(0), 2, 3).unwrap();
        assert_eq!(read.into_bytes(), &[0; 3][..]);
        assert_eq!(cache.object(&id(1)).unwrap().info.size, 10);
    }
}
