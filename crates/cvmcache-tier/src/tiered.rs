//! The callbacks of the cache plugin: those of the hot cache, and the store where that has a miss.

use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use cvmcache::admin::Administration;
use cvmcache::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, Listing, NewObject, ObjectId, ObjectInfo,
    ObjectType, PluginResult, Status,
};
use cvmcache::{CachePlugin, Session, Transaction, threads};
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

use crate::archiver;
use crate::cold::{ColdError, ColdStore};
use crate::config::{ErrorPolicy, TierConfig, WritePolicy};
use crate::hot::HotTier;
use crate::jobs::Jobs;
use crate::maintenance::Maintenance;
use crate::markers::{Markers, MarkersError};
use crate::ranges::Ranges;
use crate::recalls::{Outcome, Recalls};
use crate::statistics::Statistics;
use crate::tier::{Tier, UPLOAD_UNITS, UploadError};
use crate::write_back::WriteBack;

/// A cache in two tiers: `hot`, a plugin of this node, above a store.
///
/// Objects that leave the hot cache for the store come back when they are opened. Dropping it ends what it does in
/// the background, and then the store and the hot cache.
pub struct Tiered<H: HotTier> {
    pub(crate) tier: Arc<Tier<H>>,
    pub(crate) maintenance: Maintenance<H>,
    pub(crate) write_back: Arc<WriteBack>,
    /// Disconnected to stop the threads.
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

/// Why a tier cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TierError {
    /// The markers cannot be opened.
    #[error(
        "{0}; they are in the workspace of the cache: is it writable, and is another program using it?"
    )]
    Markers(String),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] ColdError),
    /// The system has no thread to spare.
    #[error(transparent)]
    Thread(#[from] io::Error),
}

/// Callbacks at once. Most wait for nothing that takes long, but for recalls.
const WORKERS: usize = 32;
/// Workers that are never taken by recalls.
const FREE_WORKERS: usize = 4;
/// Threads for the store's connections. TLS takes processor time, hardly anything else does.
const STORE_THREADS: usize = 2;
/// The file of the markers, in the workspace.
pub(crate) const MARKERS: &str = "cvmcache-tier.redb";

impl<H: HotTier> Tiered<H> {
    /// A cache of `hot` above `cold`, with its markers in this directory.
    ///
    /// # Errors
    ///
    /// If the markers cannot be opened, or threads not started.
    pub fn new(
        hot: H,
        cold: Arc<dyn ColdStore>,
        workspace: &Path,
        config: TierConfig,
    ) -> Result<Self, TierError> {
        let (markers, damaged) = Markers::open(&workspace.join(MARKERS))?;
        if let Some(aside) = damaged {
            let aside = aside.display();
            tracing::error!(
                "the markers were damaged and moved to {aside}: run `cvmcache tier rebuild`"
            );
        }
        // Tokio panics if there are none.
        threads::check(STORE_THREADS + 2)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(STORE_THREADS)
            .max_blocking_threads(16)
            .thread_name("store")
            .enable_all()
            .build()?;
        let tier = Tier {
            hot,
            cold,
            markers,
            recalls: Recalls::new(WORKERS - FREE_WORKERS),
            ranges: Ranges::new(),
            statistics: Statistics::new(),
            config,
            upload_memory: Semaphore::new(UPLOAD_UNITS),
            runtime: runtime.handle().clone(),
            is_ending: watch::Sender::new(false),
        };
        let repaired = tier.repair()?;
        if repaired > 0 {
            tracing::info!(
                "finished archiving {repaired} objects that a former run had begun with"
            );
        }
        let write_back = Arc::new(WriteBack::load(&tier.markers)?);
        let (stop, stopped) = bounded(0);
        let tier = Arc::new(tier);
        let maintenance = Maintenance {
            tier: Arc::clone(&tier),
            workspace: workspace.to_owned(),
            jobs: Jobs::default(),
        };
        let mut cache = Self {
            tier,
            maintenance,
            write_back,
            stop: Some(stop),
            threads: Vec::new(),
            runtime: Some(runtime),
        };
        let (tier, write_back) = (Arc::clone(&cache.tier), Arc::clone(&cache.write_back));
        cache.spawn("write-back", &stopped, move |stop| write_back.run(&tier, stop))?;
        let tier = Arc::clone(&cache.tier);
        let workspace = workspace.to_owned();
        cache.spawn("archive", &stopped, move |stop| archiver::run(&tier, &workspace, stop))?;
        Ok(cache)
    }

    fn spawn(
        &mut self,
        name: &str,
        stop: &Receiver<()>,
        body: impl FnOnce(&Receiver<()>) + Send + 'static,
    ) -> io::Result<()> {
        let stop = stop.clone();
        self.threads.push(threads::spawn(name, move || body(&stop))?);
        Ok(())
    }

    /// Runs `on_hot`, which has had a miss, once more if the object comes back from the store.
    fn after_recall<T>(
        &self,
        session: &Session,
        id: &ObjectId,
        on_hot: impl FnOnce() -> PluginResult<T>,
    ) -> PluginResult<T> {
        let Outcome::Recalled { is_leader } = self.tier.recall(session, id, Instant::now()) else {
            return Err(Status::NoEntry);
        };
        let result = on_hot();
        if is_leader {
            // The reference of the recall: until now, nothing could evict the object.
            let _ = self.tier.hot.change_refcount(session, id, -1);
        }
        result
    }
}

impl<H: HotTier> CachePlugin for Tiered<H> {
    fn capabilities(&self) -> Capabilities {
        self.tier.hot.capabilities()
    }

    fn takes_references(&self) -> bool {
        self.tier.hot.takes_references()
    }

    fn change_refcount(&self, session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        let hot = |by| self.tier.hot.change_refcount(session, id, by);
        let Ok(opened) = u64::try_from(by) else {
            let left = self.tier.ranges.close(id, u64::from(by.unsigned_abs()));
            let left = i32::try_from(left).map_or(by, |left| -left);
            return if left == 0 { Ok(()) } else { hot(left) };
        };
        match hot(by) {
            Err(Status::NoEntry) => {}
            result => return result,
        }
        match self.tier.open_remote(id, opened, Instant::now()) {
            Some(result) => result,
            None => self.after_recall(session, id, || hot(by)),
        }
    }

    fn try_change_refcount(
        &self,
        session: &Session,
        id: &ObjectId,
        by: i32,
    ) -> Option<PluginResult<()>> {
        // A worker knows whether the object is one that stays in the store.
        let may_be_remote = by < 0 && self.tier.ranges.len() > 0;
        if may_be_remote { None } else { hit(self.tier.hot.try_change_refcount(session, id, by)) }
    }

    fn object_info(&self, session: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        match self.tier.hot.object_info(session, id) {
            Err(Status::NoEntry) => {
                let marker = self.tier.remote(id, Instant::now()).ok_or(Status::NoEntry)?;
                Ok(ObjectInfo::new(marker.len, marker.object_type))
            }
            result => result,
        }
    }

    fn try_object_info(
        &self,
        session: &Session,
        id: &ObjectId,
    ) -> Option<PluginResult<ObjectInfo>> {
        hit(self.tier.hot.try_object_info(session, id))
    }

    fn read(&self, session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let on_hot = || self.tier.hot.read(session, id, offset, len);
        match on_hot() {
            Err(Status::NoEntry) => {}
            result => return result,
        }
        match self.tier.read_remote(id, offset, len) {
            Some(result) => result,
            None => self.after_recall(session, id, on_hot),
        }
    }

    fn try_read(
        &self,
        session: &Session,
        id: &ObjectId,
        offset: u64,
        len: u32,
    ) -> Option<PluginResult<Data>> {
        hit(self.tier.hot.try_read(session, id, offset, len))
    }

    fn begin(&self, session: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        let NewObject { id, object_type, .. } = object;
        let upload = self.tier.hot.begin(session, object)?;
        Ok(Box::new(Stored {
            tier: Arc::clone(&self.tier),
            write_back: Arc::clone(&self.write_back),
            session: session.clone(),
            id,
            object_type,
            upload,
        }))
    }

    fn info(&self, session: Option<&Session>) -> PluginResult<CacheInfo> {
        self.tier.hot.info(session)
    }

    fn shrink(&self, session: &Session, target: u64) -> PluginResult<u64> {
        self.tier.hot.shrink(session, target)
    }

    fn list(&self, session: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        self.tier.hot.list(session, object_type)
    }

    fn store_breadcrumb(
        &self,
        session: &Session,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        self.tier.hot.store_breadcrumb(session, repository, breadcrumb)
    }

    fn load_breadcrumb(&self, session: &Session, repository: &[u8]) -> PluginResult<Breadcrumb> {
        self.tier.hot.load_breadcrumb(session, repository)
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    fn administration(&self) -> Option<&dyn Administration> {
        Some(self)
    }
}

/// A miss of the hot cache may be a hit of the store, which a worker asks.
fn hit<T>(tried: Option<PluginResult<T>>) -> Option<PluginResult<T>> {
    tried.filter(|result| !matches!(result, Err(Status::NoEntry)))
}

/// An upload to the hot cache that may go to the store, too.
struct Stored<H> {
    tier: Arc<Tier<H>>,
    write_back: Arc<WriteBack>,
    session: Session,
    id: ObjectId,
    object_type: ObjectType,
    upload: Box<dyn Transaction>,
}

impl<H: HotTier> Transaction for Stored<H> {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        self.upload.write(data)
    }

    fn commit(self: Box<Self>) -> PluginResult<()> {
        let Self { tier, write_back, session, id, object_type, upload } = *self;
        upload.commit()?;
        tier.stored(&id);
        if object_type == ObjectType::Catalog {
            return Ok(());
        }
        match tier.config.write {
            WritePolicy::Archive => Ok(()),
            WritePolicy::Back => {
                write_back.add(id);
                Ok(())
            }
            // The store is away, or was: another commit does not wait for it.
            WritePolicy::Through
                if tier.config.errors == ErrorPolicy::Log && write_back.is_behind() =>
            {
                write_back.add(id);
                Ok(())
            }
            WritePolicy::Through => {
                let Err(error) = tier.runtime.block_on(tier.write(id)) else { return Ok(()) };
                if matches!(error, UploadError::Catalog | UploadError::TooLarge) {
                    return Ok(());
                }
                tier.statistics
                    .warn(&format_args!("cannot write object {id} to the store: {error}"));
                match tier.config.errors {
                    ErrorPolicy::Log => {
                        write_back.add(id);
                        Ok(())
                    }
                    ErrorPolicy::Fail => {
                        let _ = tier.hot.change_refcount(&session, &id, -1);
                        tier.hot.evict(&id);
                        Err(Status::IoErr)
                    }
                }
            }
        }
    }
}

impl<H: HotTier> Drop for Tiered<H> {
    fn drop(&mut self) {
        self.tier.is_ending.send_replace(true);
        self.maintenance.jobs.end();
        drop(self.stop.take());
        for thread in mem::take(&mut self.threads) {
            if thread.join().is_err() {
                tracing::error!("a thread of the tier has panicked");
            }
        }
        if let Err(error) = self.tier.markers.sync() {
            tracing::warn!("the last changes of markers are lost: {error}");
        }
        // Uploads that have not ended are dropped: the store has none of them.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl<H: HotTier> std::fmt::Debug for Tiered<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tiered").field("tier", &self.tier).finish_non_exhaustive()
    }
}

impl From<MarkersError> for TierError {
    fn from(error: MarkersError) -> Self {
        Self::Markers(error.to_string())
    }
}
