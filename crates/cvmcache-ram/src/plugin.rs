//! The callbacks of the cache plugin, in terms of the store.

use std::error::Error;
use std::sync::Arc;
use std::{io, iter};

use cvmcache::admin::Administration;
use cvmcache::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, Listing, NewObject, ObjectId, ObjectInfo,
    ObjectType, PluginResult,
};
use cvmcache::{CachePlugin, Findings, PluginContext, ServerHandle, Session, Transaction};

use crate::breadcrumbs::Breadcrumbs;
use crate::shared::Shared;
use crate::size::{self, CacheSize};
use crate::upload::Upload;

/// A cache in memory.
#[derive(Debug)]
pub struct RamCache {
    pub(crate) shared: Arc<Shared>,
    pub(crate) breadcrumbs: Breadcrumbs,
}

impl RamCache {
    /// A cache of the size that the configuration states, or of 1000 MB, which forgets its breadcrumbs
    /// on SIGUSR2.
    ///
    /// # Errors
    ///
    /// An [`OptionsError`](cvmcache::OptionsError) if the value of `CVMFS_CACHE_PLUGIN_SIZE` is no size,
    /// and an [`io::Error`] if there is no memory for the cache or the signal cannot be handled.
    pub fn from_context(context: &PluginContext) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let (size, warnings) = CacheSize::from_options(context.options())?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let cache = Self::new(size, context.handle())?;
        cache.breadcrumbs.forget_on_signal()?;
        Ok(cache)
    }

    /// Judges the size, for [`Program::check`](cvmcache::Program::check).
    pub fn check(context: &PluginContext, findings: &mut Findings) {
        match CacheSize::from_options(context.options()) {
            Ok((_, warnings)) => warnings.into_iter().for_each(|warning| findings.warning(warning)),
            Err(error) => findings.error(error),
        }
    }

    /// A cache of `size` bytes, which asks clients to detach through `handle` when more than 70 % of
    /// it is pinned.
    ///
    /// If address space or the like is limited, so that less than `size` can be allocated beside all else
    /// that the process needs, the cache is smaller.
    ///
    /// # Errors
    ///
    /// If there is no memory for a cache at all.
    pub fn new(size: u64, handle: ServerHandle) -> io::Result<Self> {
        let size = size::fitting(size)?;
        let shared = Shared::new(size, handle).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot map {size} bytes for the cache: {error}"))
        })?;
        tracing::info!("keeping up to {size} bytes in memory");
        Ok(Self { shared: Arc::new(shared), breadcrumbs: Breadcrumbs::default() })
    }
}

impl CachePlugin for RamCache {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn change_refcount(&self, _session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        self.shared.locked(|store| store.change_references(id, by))
    }

    fn object_info(&self, _session: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        self.shared.locked(|store| store.get(id).map(|object| object.info()))
    }

    fn read(&self, _session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let object = self.shared.locked(|store| store.get(id).cloned())?;
        object.read(offset, len)
    }

    /// Nothing here waits: in a program with workers, none of these takes one.
    fn try_change_refcount(
        &self,
        session: &Session,
        id: &ObjectId,
        by: i32,
    ) -> Option<PluginResult<()>> {
        Some(self.change_refcount(session, id, by))
    }

    fn try_object_info(
        &self,
        session: &Session,
        id: &ObjectId,
    ) -> Option<PluginResult<ObjectInfo>> {
        Some(self.object_info(session, id))
    }

    fn try_read(
        &self,
        session: &Session,
        id: &ObjectId,
        offset: u64,
        len: u32,
    ) -> Option<PluginResult<Data>> {
        Some(self.read(session, id, offset, len))
    }

    fn begin(&self, _session: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        Ok(Box::new(Upload::begin(&self.shared, object)?))
    }

    fn info(&self, _session: Option<&Session>) -> PluginResult<CacheInfo> {
        Ok(self.shared.locked(|store| store.info()))
    }

    /// Others get at the store between two batches. What they close meanwhile could keep this
    /// going for ever, so it ends after as many objects as could be evicted when it began.
    fn shrink(&self, _session: &Session, target: u64) -> PluginResult<u64> {
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
                    self.shared.trim();
                    tracing::info!("evicted {evicted} objects on request, {used} bytes are used");
                }
                return Ok(used);
            }
        }
    }

    fn list(&self, _session: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        let shared = Arc::clone(&self.shared);
        let mut next = Some(0);
        // In pages, since a snapshot of a million objects would lock the store for too long. An object that is there
        // from beginning to end is listed exactly once.
        let pages = iter::from_fn(move || {
            let slot = next?;
            let (page, following) = shared.locked(|store| store.page(object_type, slot));
            next = following;
            Some(page)
        });
        Ok(Box::new(pages.flatten().map(Ok)))
    }

    fn store_breadcrumb(
        &self,
        _session: &Session,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        self.breadcrumbs.store(repository, breadcrumb)
    }

    fn load_breadcrumb(&self, _session: &Session, repository: &[u8]) -> PluginResult<Breadcrumb> {
        self.breadcrumbs.load(repository)
    }

    fn administration(&self) -> Option<&dyn Administration> {
        Some(self)
    }
}

impl RamCache {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}
