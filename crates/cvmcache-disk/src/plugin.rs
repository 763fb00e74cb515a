//! The callbacks of the cache plugin, in terms of the store, and its start and end.

use std::error::Error;
use std::io;
use std::iter;
use std::mem;
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use cvmcache::admin::Administration;
use cvmcache::config_keys::LOCATOR;
use cvmcache::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, Listing, NewObject, ObjectId, ObjectInfo,
    ObjectType, PluginResult,
};
use cvmcache::{
    CachePlugin, Findings, ListenError, Locator, PluginContext, ServerError, ServerHandle, Session,
    Transaction, threads,
};
use rustix::fs::{Access, access, statvfs};
use thiserror::Error;

use crate::breadcrumbs::Breadcrumbs;
use crate::cache_lock::{CacheLock, CacheLockError};
use crate::config::{Config, Quota};
use crate::database::{Database, Found};
use crate::files::{FileSystem, System};
use crate::index::Index;
use crate::layout::Layout;
use crate::scrub;
use crate::status::DiskStatus;
use crate::store::{Store, now};
use crate::sync;
use crate::upload::Upload;

/// A cache on disk.
///
/// Dropping it gives all objects their names, writes the database, and leaves the directory to a client.
#[derive(Debug)]
pub struct DiskCache {
    pub(crate) store: Arc<Store>,
    breadcrumbs: Breadcrumbs,
    capabilities: Capabilities,
    /// Disconnected to stop the threads.
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    /// Held to the end of all that is done to the files.
    lock: Option<CacheLock>,
}

/// Why a disk cache cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The directory cannot be used.
    #[error("the cache directory cannot be used: {0}; name one that the plugin's user can write")]
    Directory(io::Error),
    /// Another program manages the cache, or the lock cannot be taken.
    #[error("{0}")]
    Lock(String),
    /// The system has no thread to spare.
    #[error(transparent)]
    Thread(io::Error),
}

impl DiskCache {
    /// A cache as the configuration states.
    ///
    /// # Errors
    ///
    /// An [`OptionsError`](cvmcache::OptionsError) if the configuration makes no sense, a [`StartError`], and
    /// a [`ServerError`] if another plugin serves this cache at the configured locator.
    pub fn from_context(context: &PluginContext) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let config = Config::from_options(context.options())?;
        let locator =
            context.options().get(LOCATOR).and_then(|text| Locator::from_os_str(text).ok());
        let lock = match lock(&config, locator.as_ref())? {
            Ok(lock) => lock,
            // As if it had found the locator in use itself: a client is to connect to that plugin.
            Err(CacheLockError::Served(locator)) => {
                return Err(ServerError::Listen(ListenError::InUse { locator }).into());
            }
            Err(error) => return Err(StartError::Lock(error.to_string()).into()),
        };
        Ok(Self::start(&config, Arc::new(System), lock, context.handle())?)
    }

    /// A cache of this configuration, which asks clients to detach through `handle` when more than 70 % of it
    /// is pinned.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used, or another program manages it.
    pub fn new(config: &Config, handle: ServerHandle) -> Result<Self, StartError> {
        Self::with_files(config, Arc::new(System), handle)
    }

    pub(crate) fn with_files(
        config: &Config,
        files: Arc<dyn FileSystem>,
        handle: ServerHandle,
    ) -> Result<Self, StartError> {
        let lock = lock(config, None)?.map_err(|error| StartError::Lock(error.to_string()))?;
        Self::start(config, files, lock, handle)
    }

    fn start(
        config: &Config,
        files: Arc<dyn FileSystem>,
        lock: Option<CacheLock>,
        handle: ServerHandle,
    ) -> Result<Self, StartError> {
        let layout = Layout::new(&config.location);
        let is_writable = access(layout.directory(), Access::WRITE_OK).is_ok();
        let capabilities = capabilities(config, is_writable);
        if !layout.is_alien() {
            layout.remove_client_database();
        }
        let mut index = Index::new(config.location.quota().to_bytes(), now());
        let mut database = Database::at(&layout.database());
        load(&mut database, &mut index);
        if let Some(warning) = room_warning(config, index.info().used_bytes) {
            tracing::warn!("{warning}");
        }
        let breadcrumbs = Breadcrumbs::new(&layout);
        let store = Arc::new(Store::new(layout, files, config.fsync, index, database, handle));
        if !store.layout.is_alien() {
            store.clear_uploads();
        }
        let (stop, stopped) = bounded(0);
        let mut cache =
            Self { store, breadcrumbs, capabilities, stop: Some(stop), threads: Vec::new(), lock };
        let (store, rate) = (Arc::clone(&cache.store), config.scrub_rate);
        cache.spawn("sync", &stopped, move |stop| sync::run(&store, stop))?;
        let store = Arc::clone(&cache.store);
        cache.spawn("scrub", &stopped, move |stop| scrub::run(&store, rate, stop))?;
        Ok(cache)
    }

    fn spawn(
        &mut self,
        name: &str,
        stop: &Receiver<()>,
        body: impl FnOnce(&Receiver<()>) + Send + 'static,
    ) -> Result<(), StartError> {
        let stop = stop.clone();
        let thread = threads::spawn(name, move || body(&stop)).map_err(StartError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Judges the configuration, for [`Program::check`](cvmcache::Program::check).
    pub fn check(context: &PluginContext, findings: &mut Findings) {
        let config = match Config::from_options(context.options()) {
            Ok(config) => config,
            Err(error) => return findings.error(error),
        };
        let layout = Layout::new(&config.location);
        for directory in [config.location.directory(), config.location.workspace()] {
            let existing = directory.ancestors().find(|path| path.exists());
            if let Some(existing) = existing
                && access(existing, Access::WRITE_OK | Access::EXEC_OK).is_err()
            {
                let (directory, existing) = (directory.display(), existing.display());
                findings.error(format!(
                    "{directory}: {existing} cannot be written: give it to the plugin's user"
                ));
            }
        }
        if let Some(holder) = CacheLock::holder(&layout.lock()) {
            findings.note(format!("the cache is in use by {holder}"));
        }
        room_warning(&config, u64::MAX).into_iter().for_each(|warning| findings.warning(warning));
    }

    /// What the cache holds, and what was found of it.
    pub fn status(&self) -> DiskStatus {
        self.store.status()
    }
}

/// Makes the directories, and takes the lock on a managed cache.
fn lock(
    config: &Config,
    locator: Option<&Locator>,
) -> Result<Result<Option<CacheLock>, CacheLockError>, StartError> {
    let layout = Layout::new(&config.location);
    layout.prepare().map_err(StartError::Directory)?;
    if layout.is_alien() {
        return Ok(Ok(None));
    }
    Ok(CacheLock::take(&layout.lock(), locator).map(Some))
}

/// Reads what a former run has left in the database.
fn load(database: &mut Database, index: &mut Index) {
    let loaded = match database.open() {
        Ok(Found::New) => Ok(()),
        Ok(Found::Kept) => {
            let mut loaded = Ok(());
            index.restore(|each| loaded = database.load(each));
            loaded.or_else(|error| database.replace(&error))
        }
        Err(error) => Err(error),
    };
    if let Err(error) = loaded {
        tracing::warn!(%error, "types and order of use of objects are not known: there is no database");
    }
}

/// What a cache can do. Objects of an alien cache are not this node's to evict.
fn capabilities(config: &Config, is_writable: bool) -> Capabilities {
    let mut capabilities = Capabilities::ALL;
    if config.location.is_alien() {
        capabilities = capabilities.difference(Capabilities::SHRINK | Capabilities::SHRINK_RATE);
    }
    if !is_writable {
        capabilities = capabilities.difference(Capabilities::WRITE);
    }
    capabilities
}

/// A warning if the disk has less room than the quota, with both figures. `used` is what objects take on it.
fn room_warning(config: &Config, used: u64) -> Option<String> {
    let Quota::Bytes(quota) = config.location.quota() else { return None };
    let directory = config.location.directory();
    let existing = directory.ancestors().find(|path| path.exists())?;
    let disk = statvfs(existing).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    let room = bytes(disk.f_bavail).saturating_add(used).min(bytes(disk.f_blocks));
    (room < quota).then(|| {
        format!(
            "CVMFS_CACHE_QUOTA_LIMIT: {quota} bytes are more than the {room} bytes that the disk of {} has for \
             objects: they are evicted when it is full; use a smaller quota",
            directory.display()
        )
    })
}

impl CachePlugin for DiskCache {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn change_refcount(&self, _session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        self.store.change_references(id, by)
    }

    fn object_info(&self, _session: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        self.store.info(id)
    }

    fn read(&self, _session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        self.store.read(id, offset, len)
    }

    fn try_change_refcount(
        &self,
        _session: &Session,
        id: &ObjectId,
        by: i32,
    ) -> Option<PluginResult<()>> {
        self.store.try_change_references(id, by)
    }

    fn try_object_info(
        &self,
        _session: &Session,
        id: &ObjectId,
    ) -> Option<PluginResult<ObjectInfo>> {
        self.store.try_find(id, |index| index.info_of(id)).ok()
    }

    fn try_read(
        &self,
        _session: &Session,
        id: &ObjectId,
        offset: u64,
        len: u32,
    ) -> Option<PluginResult<Data>> {
        self.store.try_read(id, offset, len)
    }

    fn begin(&self, _session: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        Ok(Box::new(Upload::begin(&self.store, object)?))
    }

    fn info(&self, _session: Option<&Session>) -> PluginResult<CacheInfo> {
        Ok(self.store.locked(|state| state.index.info()))
    }

    fn shrink(&self, _session: &Session, target: u64) -> PluginResult<u64> {
        Ok(self.store.shrink(target))
    }

    fn list(&self, _session: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        let store = Arc::clone(&self.store);
        let mut slot = Some(0);
        // A snapshot of a million objects would lock the store for too long.
        let pages = iter::from_fn(move || {
            let from = slot?;
            let (page, next) = store.locked(|state| state.index.page(object_type, from));
            slot = next;
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

    /// A read may wait for the disk.
    fn workers(&self) -> usize {
        8
    }
}

impl Drop for DiskCache {
    fn drop(&mut self) {
        drop(self.stop.take());
        for thread in mem::take(&mut self.threads) {
            if thread.join().is_err() {
                tracing::error!("a thread of the cache has panicked");
            }
        }
        self.store.name_unsynced();
        if !self.store.write_database() {
            tracing::warn!("types and order of use of some objects are lost");
        }
        if self.lock.is_some() {
            self.store.layout.remove_client_database();
        }
    }
}

#[cfg(test)]
impl DiskCache {
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Ends as if the process was killed: nothing more is written.
    pub(crate) fn kill(mut self) {
        drop(self.stop.take());
        for thread in mem::take(&mut self.threads) {
            thread.join().expect("it does not panic");
        }
        *self.store.database.lock() = Database::at("/nonexistent/database".as_ref());
    }

    /// Waits until the tree has been checked.
    pub(crate) fn wait_until_checked(&self) {
        while !self.store.checked.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }
}
