//! The cache plugin: its callbacks, in terms of the store.

use std::sync::Arc;

use cvmcache::admin::Administration;
use cvmcache::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, Listing, NewObject, ObjectId, ObjectInfo,
    ObjectType, PluginResult,
};
use cvmcache::{CachePlugin, PluginContext, ServerHandle, Session, Transaction};
use tokio::runtime::Runtime;

use crate::backend::membership;
use crate::client::RedisClient;
use crate::config::{Config, ConfigError};
use crate::eviction;
use crate::io_threads;
use crate::leases::{self, TentativeReferences};
use crate::listing::Pages;
use crate::server_memory;
use crate::shared_size::SharedSize;
use crate::store::Store;
use crate::uploads::Upload;

/// A cache in a Redis server or cluster, which other instances may use at the same time.
///
/// Its callbacks wait for the server, so that it requests 32 workers. One that waits for longer than
/// [`Config::timeout`] fails with [`Status::Timeout`](cvmcache::plugin::Status::Timeout), and with
/// [`Status::IoErr`](cvmcache::plugin::Status::IoErr) if the server is known to be away. Shrinking and
/// listing take several steps, which may each wait as long. One thread does the I/O.
///
/// Dropping it releases what is still open, for which it waits as long.
///
/// ```no_run
/// use cvmcache::{Server, ServerHandle};
/// use cvmcache_redis::{Config, RedisCache};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let handle = ServerHandle::new();
/// let cache = RedisCache::new(Config::new("redis://localhost:6379")?, handle.clone())?;
/// let locator = "unix=/run/cvmfs/redis.socket".parse()?;
/// Server::builder(cache).handle(handle).listen(&locator)?.spawn()?.wait()?;
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// What blocks on the server panics within an asynchronous runtime, dropping it included.
pub struct RedisCache {
    pub(crate) store: Arc<Store>,
    pub(crate) client: RedisClient,
    pub(crate) size: SharedSize,
    /// Runs the connections and the background tasks. `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl RedisCache {
    /// A cache as the configuration of a plugin describes it. docs/redis.md has the keys.
    ///
    /// # Errors
    ///
    /// Those of [`Config::from_options`] and of [`new`](Self::new).
    pub fn from_context(context: &PluginContext) -> Result<Self, ConfigError> {
        Self::new(Config::from_options(context.options())?, context.handle())
    }

    /// A cache as the configuration describes it. It waits for the server, for [`Config::timeout`] at
    /// most. A server that is down is no error: the cache connects when it is up. Through `handle`, it
    /// asks clients to detach when more than 70 % of it is pinned.
    ///
    /// # Errors
    ///
    /// [`ConfigError::AccessDenied`] if the server denies access, [`ConfigError::Tls`] if TLS
    /// cannot be set up, [`ConfigError::Io`] if the system refuses a thread.
    pub fn new(config: Config, handle: ServerHandle) -> Result<Self, ConfigError> {
        let runtime = io_threads::start(IO_THREADS)?;
        let client = RedisClient::new(&config, runtime.handle().clone())?;
        let store = Arc::new(Store::new(&config, client.clone(), handle));
        // They end with the runtime.
        runtime.spawn(leases::release_pins(Arc::clone(&store.leases)));
        runtime.spawn(leases::renew_leases(Arc::clone(&store.leases)));
        runtime.spawn(eviction::clean_up(Arc::clone(&store.evictor)));
        if config.per_repository {
            runtime.spawn(membership::bound_sets(Arc::clone(&store.backend)));
        }
        let size = SharedSize::new(&config, client.clone());
        let watch = server_memory::watch(client.clone(), Arc::clone(&store.evictor), size);
        runtime.spawn(watch);
        let size = SharedSize::new(&config, client.clone());
        Ok(Self { store, client, size, runtime: Some(runtime) })
    }

    /// Lets a repository see none of the objects that it has stored so far, in any instance, from the
    /// next request on. `repository` is its fully qualified name, without an instance. It makes a
    /// difference only with [`per_repository`](Config::per_repository).
    ///
    /// # Errors
    ///
    /// [`Status::Timeout`](cvmcache::plugin::Status::Timeout) if the server does not answer in time,
    /// another if it refuses or is away. Then the repository may see them or not.
    pub fn revoke(&self, repository: &[u8]) -> PluginResult<()> {
        Ok(self.store.backend.wait(self.store.backend.revoke(repository))?)
    }
}

/// Threads that do the I/O.
const IO_THREADS: usize = 1;

/// How many callbacks may block on the server at once.
const WORKERS: usize = 32;

impl CachePlugin for RedisCache {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    fn change_refcount(&self, session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        let (store, leases) = (&self.store, &self.store.leases);
        if by < 0 {
            return store.wait(leases.close(id, by.unsigned_abs()));
        }
        let repository = store.repository(session);
        store.wait(async {
            if by == 0 {
                let exists = leases.metadata(id);
                return store.authorize(repository.as_ref(), id, exists).await.map(|_| ());
            }
            let opened = leases.open_tentatively(id, by);
            store.authorize(repository.as_ref(), id, opened).await.map(TentativeReferences::keep)
        })
    }

    fn object_info(&self, session: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        let store = &self.store;
        let repository = store.repository(session);
        let metadata = store.wait(async {
            let metadata = store.leases.metadata(id);
            store.authorize(repository.as_ref(), id, metadata).await
        });
        Ok(metadata?.info())
    }

    fn read(&self, session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let store = &self.store;
        let repository = store.repository(session);
        let read = store.read(id, offset, len);
        store.wait(async { store.authorize(repository.as_ref(), id, read).await })
    }

    fn begin(&self, session: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        let repository = self.store.repository(session);
        let upload = self.store.wait(Upload::begin(&self.store, object, repository))?;
        Ok(Box::new(upload))
    }

    fn info(&self, _session: Option<&Session>) -> PluginResult<CacheInfo> {
        Ok(self.store.backend.wait(self.store.evictor.info())?)
    }

    fn shrink(&self, _session: &Session, target: u64) -> PluginResult<u64> {
        Ok(self.store.evictor.shrink(target)?)
    }

    fn list(&self, _session: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        self.store.backend.wait(self.store.leases.flush())?;
        Ok(Box::new(Pages::new(Arc::clone(&self.store.backend), object_type)))
    }

    fn store_breadcrumb(
        &self,
        _session: &Session,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        let backend = &self.store.backend;
        Ok(backend.wait(backend.store_breadcrumb(repository, breadcrumb))?)
    }

    fn load_breadcrumb(&self, _session: &Session, repository: &[u8]) -> PluginResult<Breadcrumb> {
        self.store.wait(self.store.backend.load_breadcrumb(repository))
    }

    fn administration(&self) -> Option<&dyn Administration> {
        Some(self)
    }
}

impl Drop for RedisCache {
    /// Releases what is still open; while the server is away, the lease expires instead.
    fn drop(&mut self) {
        if let Err(error) = self.store.backend.wait(self.store.leases.end()) {
            tracing::info!(%error, "cannot release leases on shutdown, they will expire");
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisCache").finish_non_exhaustive()
    }
}
