//! The cache plugin: what clients ask, in terms of the store.

use std::sync::Arc;

use cvmcache::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, Listing, NewObject, ObjectId, ObjectInfo,
    ObjectType, Result,
};
use cvmcache::{CachePlugin, Options, ServerHandle, Session, Transaction};
use tokio::runtime::Runtime;

use crate::background;
use crate::client::RedisClient;
use crate::config::{Config, ConfigError};
use crate::eviction::Shrunk;
use crate::listing::Pages;
use crate::membership::Guarded;
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
/// use cvmcache::Server;
/// use cvmcache_redis::{Config, RedisCache};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = RedisCache::new(Config::new("redis://localhost:6379")?)?;
/// let locator = "unix=/run/cvmfs/redis.socket".parse()?;
/// Server::builder(cache).listen(&locator)?.spawn()?.wait()?;
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
    /// A cache as the options of a plugin describe it. docs/redis.md has the keys.
    ///
    /// # Errors
    ///
    /// Those of [`Config::from_options`] and of [`new`](Self::new).
    pub fn from_options(options: &Options) -> Result<Self, ConfigError> {
        Self::new(Config::from_options(options)?)
    }

    /// A cache as the configuration describes it. It waits for the server, for [`Config::timeout`] at
    /// most. A server that is down is no error: it is looked for until it is there.
    ///
    /// # Errors
    ///
    /// [`ConfigError::AccessDenied`] if the server refuses the plugin, [`ConfigError::Tls`] if TLS
    /// cannot be set up, [`ConfigError::Io`] if the system refuses a thread.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .thread_name("redis")
            .enable_all()
            .build()?;
        let client = RedisClient::new(&config, runtime.handle().clone())?;
        let store = Arc::new(Store::new(&config, client, runtime.handle().clone()));
        background::start(&store, runtime.handle());
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
    pub fn revoke(&self, repository: &[u8]) -> Result<()> {
        Ok(self.store.client.wait(self.store.revoke(repository))?)
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

    fn change_refcount(&self, session: &Session, id: &ObjectId, by: i32) -> Result<()> {
        let store = &self.store;
        if by < 0 {
            return store.wait(store.close(id, by.unsigned_abs()));
        }
        let repository = store.guarded(session);
        store.wait(async {
            if by == 0 {
                return store
                    .guard(repository.as_ref(), id, store.metadata(id))
                    .await
                    .into_result();
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

    fn object_info(&self, session: &Session, id: &ObjectId) -> Result<ObjectInfo> {
        let store = &self.store;
        let repository = store.guarded(session);
        let metadata = store.wait(async {
            store.guard(repository.as_ref(), id, store.metadata(id)).await.into_result()
        });
        Ok(metadata?.info())
    }

    fn read(&self, session: &Session, id: &ObjectId, offset: u64, len: u32) -> Result<Data> {
        let store = &self.store;
        let repository = store.guarded(session);
        let read = store.read(id, offset, len);
        store.wait(async { store.guard(repository.as_ref(), id, read).await.into_result() })
    }

    fn begin(&self, session: &Session, object: NewObject) -> Result<Box<dyn Transaction>> {
        let repository = self.store.guarded(session);
        let upload = self.store.wait(Upload::begin(&self.store, object, repository))?;
        Ok(Box::new(upload))
    }

    fn info(&self, _session: &Session) -> Result<CacheInfo> {
        let sum = self.store.client.wait(async {
            self.store.settle().await?;
            self.store.sum().await
        })?;
        Ok(self.store.capacity().info(sum))
    }

    /// What others store between two steps could keep this going for ever, so it ends after as many
    /// steps as a cache of this size can need.
    fn shrink(&self, _session: &Session, target: u64) -> Result<u64> {
        let mut evicted = false;
        for _ in 0..self.store.shrink_steps() {
            match self.store.client.wait(self.store.shrink_step(target))? {
                Shrunk::Done { used } => return Ok(used),
                Shrunk::More => {
                    if !evicted {
                        self.store.capacity().count_clean_up();
                    }
                    evicted = true;
                }
            }
        }
        Ok(self.store.client.wait(self.store.sum())?.used)
    }

    fn list(&self, _session: &Session, object_type: ObjectType) -> Result<Listing> {
        self.store.client.wait(self.store.flush())?;
        Ok(Box::new(Pages::new(Arc::clone(&self.store), object_type)))
    }

    fn store_breadcrumb(
        &self,
        _session: &Session,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> Result<()> {
        self.store.wait(self.store.store_breadcrumb(repository, breadcrumb))
    }

    fn load_breadcrumb(&self, _session: &Session, repository: &[u8]) -> Result<Breadcrumb> {
        self.store.wait(self.store.load_breadcrumb(repository))
    }

    fn started(&self, control: ServerHandle) {
        // The server starts once; were it to start again, the first handle would do as well.
        let _ = self.store.control.set(control);
    }
}

impl Drop for RedisCache {
    /// Whatever is still held is let go of, unless the server is away: then its lease ends.
    fn drop(&mut self) {
        if let Err(error) = self.store.client.wait(self.store.leave()) {
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
