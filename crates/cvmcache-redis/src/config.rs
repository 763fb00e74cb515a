//! What the cache is told: where its server is, how large it may grow, whom it trusts.

use std::time::Duration;

use cvmcache::{Options, OptionsError};
use thiserror::Error;

/// How a [`RedisCache`](crate::RedisCache) is set up.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where the server is, as a URL.
    pub url: String,
    /// What the objects may take of the server's memory, in bytes.
    pub size: u64,
    /// What the names of all keys begin with; default `cvmfs`. Braces are not allowed.
    pub prefix: String,
    /// The secret of the key file, at least 32 bytes; `None` checks data against accidents only.
    pub secret: Option<Vec<u8>>,
    /// Lets a session see only what its own repository has added; default false.
    pub per_repository: bool,
    /// How long a request waits for the server; default 5 s.
    pub timeout: Duration,
    /// How long objects stay pinned after their plugin has died; default 60 s. It is renewed three
    /// times in this time.
    pub lease: Duration,
    /// How long an upload without a new part is kept on the server; default 1 hour.
    pub upload_expiry: Duration,
}

/// Why there is no cache with this configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A key is missing or makes no sense.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The URL is none of a Redis server.
    #[error("cannot use the URL of the Redis server: {0}")]
    Url(redis::RedisError),
    /// The system refuses something.
    #[error("cannot start the Redis cache: {0}")]
    Io(#[from] std::io::Error),
}

impl Config {
    /// The defaults, for a server at this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            size: 1000 * 1024 * 1024,
            prefix: "cvmfs".to_owned(),
            secret: None,
            per_repository: false,
            timeout: Duration::from_secs(5),
            lease: Duration::from_secs(60),
            upload_expiry: Duration::from_secs(3600),
        }
    }

    /// Reads the options of a plugin.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Options`].
    pub fn from_options(options: &Options) -> Result<Self, ConfigError> {
        const URL: &str = "CVMFS_CACHE_PLUGIN_REDIS_URL";
        let url = options.parse_value::<String>(URL)?;
        let url = url.ok_or_else(|| options.missing(URL, "name the server".to_owned()))?;
        let mut config = Self::new(url);
        if let Some(megabytes) = options.parse_value::<u64>("CVMFS_CACHE_PLUGIN_SIZE")? {
            config.size = megabytes * 1024 * 1024;
        }
        Ok(config)
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("size", &self.size).finish_non_exhaustive()
    }
}
