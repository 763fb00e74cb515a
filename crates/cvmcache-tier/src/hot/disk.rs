//! The disk cache as a hot tier.

use std::ops::ControlFlow;
use std::time::SystemTime;

use cvmcache::plugin::{Data, ObjectId, PluginResult};
use cvmcache_disk::{DiskCache, IdleObject};

use crate::hot::{HotObject, HotTier, Scrubbed};

impl HotTier for DiskCache {
    fn idle_objects(&self, until: SystemTime) -> Box<dyn Iterator<Item = HotObject> + Send> {
        Box::new(self.idle_objects(until).map(HotObject::from))
    }

    fn object(&self, id: &ObjectId) -> PluginResult<HotObject> {
        self.object(id).map(HotObject::from)
    }

    fn block_digests(&self, id: &ObjectId) -> PluginResult<Vec<[u8; 32]>> {
        match self.block_digests(id)? {
            Some(digests) => Ok(digests),
            None => self.verify(id),
        }
    }

    fn verify(&self, id: &ObjectId) -> PluginResult<()> {
        self.verify(id).map(|_digests| ())
    }

    fn read_unused(&self, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        self.read_unused(id, offset, len)
    }

    fn scrub(&self, progress: &mut dyn FnMut(&Scrubbed) -> bool) {
        self.scrub(|counts| {
            let scrubbed = Scrubbed {
                good: (counts.good + counts.recorded) as u64,
                damaged: counts.damaged as u64,
                skipped: counts.skipped as u64,
                bytes: counts.bytes,
            };
            if progress(&scrubbed) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }

    fn is_complete(&self) -> bool {
        self.status().is_checked
    }

    fn evict(&self, id: &ObjectId) -> bool {
        self.evict(id)
    }
}

impl From<IdleObject> for HotObject {
    fn from(object: IdleObject) -> Self {
        Self {
            id: object.id,
            len: object.size,
            object_type: object.object_type,
            description: object.description,
        }
    }
}
