//! The RAM cache: what a site runs in production. It keeps objects in the memory of one process
//! per node, up to `CVMFS_CACHE_PLUGIN_SIZE`, and evicts what has not been used for longest.
//!
//! Read it in this order: `object.rs` (the bytes, never copied), `store.rs` (index, order of use,
//! accounting, eviction; no lock, no thread), `shared.rs` (the store behind its lock), `upload.rs`
//! and `plugin.rs` (the SDK's traits on top). `size.rs` and `breadcrumbs.rs` stand by themselves.

#[path = "ram/breadcrumbs.rs"]
mod breadcrumbs;
#[path = "ram/object.rs"]
mod object;
#[path = "ram/plugin.rs"]
mod plugin;
#[path = "ram/shared.rs"]
mod shared;
#[path = "ram/size.rs"]
mod size;
#[path = "ram/store.rs"]
mod store;
#[path = "ram/upload.rs"]
mod upload;

#[cfg(test)]
#[path = "ram/tests.rs"]
mod tests;

use std::process::ExitCode;

use crate::plugin::RamCache;
use crate::size::CacheSize;

fn main() -> ExitCode {
    cvmcache::Program::new("ram")
        .keys(&[CacheSize::KEY])
        .check(|context, findings| {
            if let Err(error) = CacheSize::from_options(context.options()) {
                findings.error(error);
            }
        })
        .run(RamCache::from_options)
}
