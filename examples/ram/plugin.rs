//! The cache plugin: what clients ask, in terms of the store.

use std::error::Error;
use std::sync::Arc;
use std::vec;

use cvmcache::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, ListEntry, Listing, NewObject, ObjectId, ObjectInfo,
    ObjectType, Result,
};
use cvmcache::{CachePlugin, Options, ServerHandle, Session, Transaction};

use crate::breadcrumbs::Breadcrumbs;
use crate::shared::Shared;
use crate::size::CacheSize;
use crate::upload::Upload;

/// A cache in memory.
#[derive(Debug)]
pub(crate) struct RamCache {
    shared: Arc<Shared>,
    breadcrumbs: Breadcrumbs,
}

impl RamCache {
    /// A cache of the size that the options state, or of 1000 MB, which listens to SIGUSR2.
    ///
    /// # Errors
    ///
    /// If the size makes no sense, or the system does not cooperate.
    pub(crate) fn from_options(options: &Options) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let cache = Self::new(CacheSize::from_options(options)?);
        cache.breadcrumbs.forget_on_signal()?;
        Ok(cache)
    }

    /// A cache of `size` bytes.
    pub(crate) fn new(size: u64) -> Self {
        tracing::info!("keeping up to {size} bytes in memory");
        Self { shared: Arc::new(Shared::new(size)), breadcrumbs: Breadcrumbs::default() }
    }
}

impl CachePlugin for RamCache {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn change_refcount(&self, _session: &Session, id: &ObjectId, by: i32) -> Result<()> {
        self.shared.locked(|store| store.change_references(id, by))
    }

    fn object_info(&self, _session: &Session, id: &ObjectId) -> Result<ObjectInfo> {
        self.shared.locked(|store| store.get(id).map(|object| object.info()))
    }

    fn read(&self, _session: &Session, id: &ObjectId, offset: u64, len: u32) -> Result<Data> {
        let object = self.shared.locked(|store| store.get(id).cloned())?;
        object.read(offset, len)
    }

    fn begin(&self, _session: &Session, object: NewObject) -> Result<Box<dyn Transaction>> {
        Ok(Box::new(Upload::begin(&self.shared, object)?))
    }

    fn info(&self, _session: &Session) -> Result<CacheInfo> {
        Ok(self.shared.locked(|store| store.info()))
    }

    /// Others get at the store between two batches. What they close meanwhile could keep this
    /// going for ever, so it ends after as many objects as could be evicted when it began.
    fn shrink(&self, _session: &Session, target: u64) -> Result<u64> {
        let idle = self.shared.locked(|store| store.idle());
        let mut evicted = 0;
        loop {
            let (batch, used) = self.shared.locked(|store| {
                let batch = store.shrink(target, idle - evicted);
                if batch > 0 && evicted == 0 {
                    store.count_clean_up();
                }
                (batch, store.info().used_bytes)
            });
            evicted += batch;
            if batch == 0 {
                if evicted > 0 {
                    tracing::info!("evicted {evicted} objects on request, {used} bytes are used");
                }
                return Ok(used);
            }
        }
    }

    fn list(&self, _session: &Session, object_type: ObjectType) -> Result<Listing> {
        let shared = Arc::clone(&self.shared);
        Ok(Box::new(Pages { shared, object_type, page: Vec::new().into_iter(), next: Some(0) }))
    }

    fn store_breadcrumb(
        &self,
        _session: &Session,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> Result<()> {
        self.breadcrumbs.store(repository, breadcrumb)
    }

    fn load_breadcrumb(&self, _session: &Session, repository: &[u8]) -> Result<Breadcrumb> {
        self.breadcrumbs.load(repository)
    }

    fn started(&self, control: ServerHandle) {
        self.shared.started(control);
    }
}

/// A listing in pages, since a snapshot of a million objects would lock the store for too long. An
/// object that is there from beginning to end is listed exactly once.
struct Pages {
    shared: Arc<Shared>,
    object_type: ObjectType,
    page: vec::IntoIter<ListEntry>,
    /// The slot with which the next page begins.
    next: Option<usize>,
}

impl Iterator for Pages {
    type Item = Result<ListEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            let slot = self.next?;
            let (page, next) = self.shared.locked(|store| store.page(self.object_type, slot));
            self.page = page.into_iter();
            self.next = next;
        }
    }
}

#[cfg(test)]
impl RamCache {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}
