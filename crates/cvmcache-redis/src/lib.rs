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
//! Read it in this order: `keys.rs` and `scripts/` (what is on the
//! server), `facts.rs` and `seal.rs` (what an object is there, and how it is trusted), `holds.rs` (who
//! has what open), `space.rs` (what has to go), none of which does any I/O but the scripts; then
//! `store.rs` with `reading.rs`, `uploads.rs`, `eviction.rs`, `listing.rs`, `breadcrumbs.rs`,
//! `guard.rs` and `keeper.rs`, which do it, over `link.rs`.

mod breadcrumbs;
mod clock;
mod config;
mod eviction;
mod facts;
mod guard;
mod holds;
mod keeper;
mod keys;
mod link;
mod listing;
mod plugin;
mod reading;
mod scripts;
mod seal;
mod space;
mod store;
mod uploads;

pub use config::{
    Config, ConfigError, Prefix, PrefixError, Secret, SecretError, Server, ServerError, Tls,
    TlsError,
};
pub use plugin::RedisCache;

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod servers;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
