//! The configuration keys of plugins that doctor knows, and their bounds: copies of what the SDK and
//! the Redis cache define.

pub(super) const LOCATOR: &str = "CVMFS_CACHE_PLUGIN_LOCATOR";
pub(super) const SIZE: &str = "CVMFS_CACHE_PLUGIN_SIZE";
pub(super) const WORKERS: &str = "CVMFS_CACHE_PLUGIN_WORKERS";
pub(super) const POLL: &str = "CVMFS_CACHE_PLUGIN_POLL";
pub(super) const ALLOW: &str = "CVMFS_CACHE_PLUGIN_ALLOW";
pub(super) const ALLOW_USERS: &str = "CVMFS_CACHE_PLUGIN_ALLOW_USERS";
pub(super) const DEBUG_LOG: &str = "CVMFS_CACHE_PLUGIN_DEBUGLOG";
pub(super) const TEST: &str = "CVMFS_CACHE_PLUGIN_TEST";
pub(super) const CRASH_DUMP: &str = "CVMFS_CACHE_PLUGIN_CRASH_DUMP";
pub(super) const METRICS: &str = "CVMFS_CACHE_PLUGIN_METRICS";

pub(super) const KEYS: [&str; 10] =
    [LOCATOR, SIZE, WORKERS, POLL, ALLOW, ALLOW_USERS, DEBUG_LOG, TEST, CRASH_DUMP, METRICS];

/// The prefix of the keys of the Redis cache, and the rest of each.
pub(super) const REDIS: &str = "CVMFS_CACHE_PLUGIN_REDIS_";
pub(super) const REDIS_KEYS: [&str; 12] = [
    "CA",
    "CERT",
    "CERT_KEY",
    "KEYFILE",
    "LEASE",
    "PASSWORD_FILE",
    "PER_REPOSITORY",
    "PREFIX",
    "SERVER_ADDRESS",
    "SERVER_PORT",
    "TIMEOUT",
    "URL",
];

pub(super) const MEGABYTE: u64 = 1024 * 1024;

/// The least size: plugins raise a smaller one, or refuse it.
pub(super) const MIN_SIZE: u64 = 100 * MEGABYTE;

/// The most workers (`CVMFS_CACHE_PLUGIN_WORKERS`).
pub(super) const MAX_WORKERS: u64 = 1024;

/// The longest busy poll in microseconds (`CVMFS_CACHE_PLUGIN_POLL`).
pub(super) const MAX_POLL: u64 = 1000;
