//! The cache plugin: what clients ask, in terms of the server.

use cvmcache::plugin::{Capabilities, Data, ObjectId, ObjectInfo, Result, Status};
use cvmcache::{CachePlugin, Options, Session};
use tokio::runtime::Runtime;

use crate::config::{Config, ConfigError};
use crate::link::Link;

/// A cache in Redis.
pub struct RedisCache {
    link: Link,
    _runtime: Runtime,
}

impl RedisCache {
    /// A cache as the options of a plugin describe it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], if they make no sense.
    pub fn from_options(options: &Options) -> Result<Self, ConfigError> {
        Self::new(Config::from_options(options)?)
    }

    /// A cache as the configuration describes it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], if it makes no sense.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("redis")
            .build()?;
        let link = Link::new(&config, runtime.handle().clone())?;
        Ok(Self { link, _runtime: runtime })
    }
}

impl CachePlugin for RedisCache {
    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn object_info(&self, _session: &Session, _id: &ObjectId) -> Result<ObjectInfo> {
        self.link.wait(self.link.command::<()>(&redis::cmd("PING")))?;
        Err(Status::NoEntry)
    }

    fn read(&self, _session: &Session, _id: &ObjectId, _offset: u64, _len: u32) -> Result<Data> {
        Err(Status::NoEntry)
    }
}

impl std::fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisCache").finish_non_exhaustive()
    }
}
