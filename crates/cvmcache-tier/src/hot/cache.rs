//! The hot caches that the program has: on disk or in memory.

use std::time::SystemTime;

use cvmcache::admin::Administration;
use cvmcache::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, Listing, NewObject, ObjectId, ObjectInfo,
    ObjectType, PluginResult,
};
use cvmcache::{CachePlugin, Session, Transaction};
use cvmcache_disk::DiskCache;
use cvmcache_ram::RamCache;

use crate::hot::ram::{self, UseNotes};
use crate::hot::{HotObject, HotTier, Scrubbed};

/// A cache on disk or in memory.
#[derive(Debug)]
pub struct HotCache(Kind);

#[derive(Debug)]
enum Kind {
    Disk(Box<DiskCache>),
    Ram(RamCache, UseNotes),
}

impl From<DiskCache> for HotCache {
    fn from(cache: DiskCache) -> Self {
        Self(Kind::Disk(Box::new(cache)))
    }
}

impl From<RamCache> for HotCache {
    fn from(cache: RamCache) -> Self {
        Self(Kind::Ram(cache, UseNotes::default()))
    }
}

impl HotTier for HotCache {
    fn idle_objects(&self, until: SystemTime) -> Box<dyn Iterator<Item = HotObject> + Send> {
        match &self.0 {
            Kind::Disk(disk) => HotTier::idle_objects(&**disk, until),
            Kind::Ram(ram, notes) => Box::new(ram::idle_objects(ram, notes, until)),
        }
    }

    fn object(&self, id: &ObjectId) -> PluginResult<HotObject> {
        match &self.0 {
            Kind::Disk(disk) => HotTier::object(&**disk, id),
            Kind::Ram(ram, _) => ram.object(id).map(HotObject::from),
        }
    }

    fn block_digests(&self, id: &ObjectId) -> PluginResult<Vec<[u8; 32]>> {
        match &self.0 {
            Kind::Disk(disk) => HotTier::block_digests(&**disk, id),
            Kind::Ram(ram, _) => ram::block_digests(ram, id),
        }
    }

    fn verify(&self, id: &ObjectId) -> PluginResult<()> {
        match &self.0 {
            Kind::Disk(disk) => HotTier::verify(&**disk, id),
            Kind::Ram(ram, _) => ram::verify(ram, id),
        }
    }

    fn read_unused(&self, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        match &self.0 {
            Kind::Disk(disk) => disk.read_unused(id, offset, len),
            Kind::Ram(ram, _) => ram.read_unused(id, offset, len),
        }
    }

    fn scrub(&self, progress: &mut dyn FnMut(&Scrubbed) -> bool) {
        match &self.0 {
            Kind::Disk(disk) => HotTier::scrub(&**disk, progress),
            Kind::Ram(ram, _) => ram::scrub(ram, progress),
        }
    }

    fn is_complete(&self) -> bool {
        match &self.0 {
            Kind::Disk(disk) => HotTier::is_complete(&**disk),
            Kind::Ram(..) => true,
        }
    }

    fn evict(&self, id: &ObjectId) -> bool {
        match &self.0 {
            Kind::Disk(disk) => disk.evict(id),
            Kind::Ram(ram, _) => ram.evict(id),
        }
    }
}

impl HotCache {
    fn plugin(&self) -> &dyn CachePlugin {
        match &self.0 {
            Kind::Disk(disk) => &**disk,
            Kind::Ram(ram, _) => ram,
        }
    }
}

impl CachePlugin for HotCache {
    fn capabilities(&self) -> Capabilities {
        self.plugin().capabilities()
    }

    fn change_refcount(&self, session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        self.plugin().change_refcount(session, id, by)
    }

    fn try_change_refcount(
        &self,
        session: &Session,
        id: &ObjectId,
        by: i32,
    ) -> Option<PluginResult<()>> {
        self.plugin().try_change_refcount(session, id, by)
    }

    fn takes_references(&self) -> bool {
        self.plugin().takes_references()
    }

    fn object_info(&self, session: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        self.plugin().object_info(session, id)
    }

    fn try_object_info(
        &self,
        session: &Session,
        id: &ObjectId,
    ) -> Option<PluginResult<ObjectInfo>> {
        self.plugin().try_object_info(session, id)
    }

    fn read(&self, session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        self.plugin().read(session, id, offset, len)
    }

    fn try_read(
        &self,
        session: &Session,
        id: &ObjectId,
        offset: u64,
        len: u32,
    ) -> Option<PluginResult<Data>> {
        self.plugin().try_read(session, id, offset, len)
    }

    fn begin(&self, session: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        self.plugin().begin(session, object)
    }

    fn info(&self, session: Option<&Session>) -> PluginResult<CacheInfo> {
        self.plugin().info(session)
    }

    fn shrink(&self, session: &Session, target: u64) -> PluginResult<u64> {
        self.plugin().shrink(session, target)
    }

    fn list(&self, session: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        self.plugin().list(session, object_type)
    }

    fn store_breadcrumb(
        &self,
        session: &Session,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        self.plugin().store_breadcrumb(session, repository, breadcrumb)
    }

    fn load_breadcrumb(&self, session: &Session, repository: &[u8]) -> PluginResult<Breadcrumb> {
        self.plugin().load_breadcrumb(session, repository)
    }

    fn workers(&self) -> usize {
        self.plugin().workers()
    }

    fn administration(&self) -> Option<&dyn Administration> {
        self.plugin().administration()
    }
}
