//! A CernVM-FS cache plugin that keeps objects in the memory of one process per node, up to
//! `CVMFS_CACHE_PLUGIN_SIZE`, and evicts the least recently used first.
//!
//! The program `cvmcache-ram` is what sites run. [`RamCache`] is the plugin in it, for programs of your
//! own:
//!
//! ```no_run
//! use cvmcache_ram::RamCache;
//!
//! fn main() -> std::process::ExitCode {
//!     cvmcache::run("ram", RamCache::from_context)
//! }
//! ```
//!
//! # The source
//!
//! Read it in this order: `arena.rs` (the memory), `object.rs` (the bytes in it), `store.rs` (index, order
//! of use, accounting, eviction; no lock, no thread), `shared.rs` (the store behind its lock), `upload.rs`
//! and `plugin.rs` (the SDK's traits on top), `administration.rs` (gauges and commands),
//! `maintenance.rs` (what a tier above the cache needs). `size.rs` and `breadcrumbs.rs` stand by themselves.

mod administration;
mod arena;
mod breadcrumbs;
mod maintenance;
mod object;
mod plugin;
mod shared;
mod size;
mod store;
mod upload;

#[cfg(test)]
mod tests;

pub use maintenance::IdleObject;
pub use plugin::RamCache;
pub use size::{CacheSize, ParseCacheSizeError};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
