//! The configuration keys of the Redis cache.

use cvmcache::ConfigKey;

use super::Config;

impl Config {
    /// The configuration keys, for [`Program::keys`](cvmcache::Program::keys).
    pub const KEYS: &'static [ConfigKey] = &[
        URL,
        SERVER_ADDRESS,
        SERVER_PORT,
        PASSWORD_FILE,
        CA,
        CERT,
        CERT_KEY,
        SIZE,
        KEYFILE,
        PER_REPOSITORY,
        PREFIX,
        TIMEOUT,
        LEASE,
    ];
}

pub(crate) const URL: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_REDIS_URL",
    "redis://HOST:PORT",
    "the server; rediss:// for TLS; must be there, unless there is an address",
);

pub(crate) const SERVER_ADDRESS: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_REDIS_SERVER_ADDRESS",
    "HOST",
    "instead of the URL: a server without TLS and password",
);

pub(crate) const SERVER_PORT: ConfigKey =
    ConfigKey::new("CVMFS_CACHE_PLUGIN_REDIS_SERVER_PORT", "PORT", "the port at that address")
        .bounds(0, 65_535)
        .default_value("6379");

pub(crate) const PASSWORD_FILE: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_REDIS_PASSWORD_FILE",
    "FILE",
    "has the server's password in its first line, and is read for every connection; the URL has \
     none then",
)
.default_in_words("the URL's password");

pub(crate) const CA: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_REDIS_CA",
    "FILE",
    "TLS: the authority that the server's certificate comes from, as PEM",
)
.default_in_words("those that the system trusts");

pub(crate) const CERT: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_REDIS_CERT",
    "FILE",
    "TLS: the certificate that the plugin shows, as PEM",
)
.default_in_words("none");

pub(crate) const CERT_KEY: ConfigKey =
    ConfigKey::new("CVMFS_CACHE_PLUGIN_REDIS_CERT_KEY", "FILE", "TLS: its key, as PEM")
        .default_in_words("none");

pub(crate) const SIZE: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_SIZE",
    "MB",
    "the server's memory for objects of all plugins together, in megabytes of 1024 KiB; at least 100",
)
.default_value("1000");

pub(crate) const KEYFILE: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_REDIS_KEYFILE",
    "FILE",
    "32 bytes to 64 KiB of secret that seals objects",
)
.default_in_words("none: checksums against accidents only");

pub(crate) const PER_REPOSITORY: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_REDIS_PER_REPOSITORY",
    "on|off",
    "whether sessions see only what their own repository has added",
)
.default_value("off");

pub(crate) const PREFIX: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_REDIS_PREFIX",
    "TEXT",
    "what the names of all keys on the server begin with: 1 to 64 letters, digits or any of . _ - / :",
)
.default_value("cvmfs");

pub(crate) const TIMEOUT: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_REDIS_TIMEOUT",
    "N",
    "milliseconds that a request waits for the server",
)
.bounds(100, 60_000)
.default_value("5000");

pub(crate) const LEASE: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_REDIS_LEASE",
    "N",
    "seconds that objects stay pinned, and uploads on the server, after their plugin has died",
)
.bounds(3, 3600)
.default_value("60");
