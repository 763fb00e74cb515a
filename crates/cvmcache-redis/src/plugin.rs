//! The cache plugin: what clients ask, in terms of the store.

use std::sync::Arc;

use cvmcache::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, Listing, NewObject, ObjectId, ObjectInfo,
    ObjectType, PluginResult,
};
use cvmcache::{CachePlugin, PluginContext, ServerHandle, Session, Transaction};
use tokio::runtime::Runtime;

use crate::config::{Config, ConfigError};
use crate::eviction::Shrunk;
use crate::guard::Guarded;
use crate::keeper;
use crate::link::Link;
use crate::listing::Pages;
use crate::store::Store;
use crate::uploads::Upload;

/// A cache in a Redis server or cluster, which other instances may use at the same time.
///
/// Its callbacks wait for the server, so that it asks for 32 workers. One that waits for longer than
/// [`Config::timeout`] fails with [`Status::Timeout`](cvmcache::plugin::Status::Timeout), and with
/// [`Status::IoErr`](cvmcache::plugin::Status::IoErr) if the server is known to be away. Shrinking and
/// listing take several steps, which may each wait as long. One thread speaks with the server.
///
/// Dropping it lets go of what is still open, for which it waits as long.
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
/// Whatever waits for the server panics within an asynchronous runtime, dropping it included: that
/// is no place to wait.
pub struct RedisCache {
    store: Arc<Store>,
    /// Runs the connections and what goes on in the background. `None` only while it is dropped.
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
    /// most. A server that is down is no error: the cache reconnects until it is there. Through `handle`, it
    /// asks clients to detach when more than 70 % of it is pinned.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Denied`] if the server refuses the plugin, [`ConfigError::Tls`] if TLS
    /// cannot be set up, [`ConfigError::Io`] if the system refuses a thread.
    pub fn new(config: Config, handle: ServerHandle) -> Result<Self, ConfigError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .thread_name("redis")
            .enable_all()
            .build()?;
        let link = Link::new(&config, runtime.handle().clone())?;
        let store = Arc::new(Store::new(&config, link, runtime.handle().clone(), handle));
        keeper::start(&store, runtime.handle());
        Ok(Self { store, runtime: Some(runtime) })
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
        Ok(self.store.link.wait(self.store.revoke(repository))?)
    }
}

/// Threads that speak with the server.
const IO_THREADS: usize = 1;

/// How many requests wait for the server at once.
const WORKERS: usize = 32;

impl CachePlugin for RedisCache {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    fn change_refcount(&self, session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        let store = &self.store;
        if by < 0 {
            return store.wait(store.close(id, by.unsigned_abs()));
        }
        let repository = store.guarded(session);
        store.wait(async {
            if by == 0 {
                return store.guard(repository.as_ref(), id, store.facts(id)).await.into_result();
            }
            match store.guard(repository.as_ref(), id, store.open(id, by)).await {
                Guarded::Allowed(opened) => opened,
                Guarded::Refused(opened, status) => {
                    if opened.is_ok() {
                        store.close(id, by.unsigned_abs()).await?;
                    }
                    Err(status)
                }
            }
        })?;
        Ok(())
    }

    fn object_info(&self, session: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        let store = &self.store;
        let repository = store.guarded(session);
        let facts = store.wait(async {
            store.guard(repository.as_ref(), id, store.facts(id)).await.into_result()
        });
        Ok(facts?.info())
    }

    fn read(&self, session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let store = &self.store;
        let repository = store.guarded(session);
        let read = store.read(id, offset, len);
        store.wait(async { store.guard(repository.as_ref(), id, read).await.into_result() })
    }

    fn begin(&self, session: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        let repository = self.store.guarded(session);
        let upload = self.store.wait(Upload::begin(&self.store, object, repository))?;
        Ok(Box::new(upload))
    }

    fn info(&self, _session: Option<&Session>) -> PluginResult<CacheInfo> {
        let sum = self.store.link.wait(async {
            self.store.settle().await?;
            self.store.sum().await
        })?;
        Ok(self.store.budget().info(sum))
    }

    /// What others store between two steps could keep this going for ever, so it ends after as many
    /// steps as a cache of this size can need.
    fn shrink(&self, _session: &Session, target: u64) -> PluginResult<u64> {
        let mut evicted = false;
        for _ in 0..self.store.shrink_steps() {
            match self.store.link.wait(self.store.shrink_step(target))? {
                Shrunk::Done { used } => return Ok(used),
                Shrunk::More => {
                    if !evicted {
                        self.store.budget().count_clean_up();
                    }
                    evicted = true;
                }
            }
        }
        Ok(self.store.link.wait(self.store.sum())?.used)
    }

    fn list(&self, _session: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        self.store.link.wait(self.store.flush())?;
        Ok(Box::new(Pages::new(Arc::clone(&self.store), object_type)))
    }

    fn store_breadcrumb(
        &self,
        _session: &Session,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        self.store.wait(self.store.store_breadcrumb(repository, breadcrumb))
    }

    fn load_breadcrumb(&self, _session: &Session, repository: &[u8]) -> PluginResult<Breadcrumb> {
        self.store.wait(self.store.load_breadcrumb(repository))
    }
}

impl Drop for RedisCache {
    /// Whatever is still held is let go of, unless the server is away: then its lease ends.
    fn drop(&mut self) {
        if let Err(error) = self.store.link.wait(self.store.leave()) {
            tracing::info!(%error, "cannot say goodbye to the server, it will notice");
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
