//! A CernVM-FS cache plugin that keeps its objects in Redis, for several nodes at once.
//!
//! [`RedisCache`] is the plugin, and [`Config`] how it is set up. A program around it reads its
//! configuration from the file that it is given:
//!
//! ```no_run
//! use cvmcache_redis::RedisCache;
//!
//! fn main() -> std::process::ExitCode {
//!     cvmcache::run("redis", RedisCache::from_context)
//! }
//! ```
//!
//! # The source
//!
//! From the bottom up: `keys.rs`, `metadata.rs`, `integrity.rs` and `scripts/` are what is on the server;
//! `client.rs` is the connection to it, and `backend.rs` the objects there. `leases.rs` has what sessions
//! of this instance have open, `capacity.rs` and `eviction.rs` what fits and what goes. `store.rs` ties
//! them together, with `reading.rs`, `uploads.rs` and `listing.rs`, for the callbacks in `plugin.rs`, and for
//! administrators in `administration.rs`.

mod administration;
mod backend;
mod capacity;
mod check;
mod client;
mod clock;
mod config;
mod cost;
mod eviction;
mod integrity;
mod io_threads;
mod keys;
mod leases;
mod listing;
mod metadata;
mod plugin;
mod reading;
mod scripts;
mod server_memory;
mod shared_size;
mod store;
mod uploads;

pub use config::{
    Config, ConfigError, Prefix, PrefixError, Secret, SecretError, Server, ServerError, Tls,
    TlsError,
};
pub use plugin::RedisCache;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
