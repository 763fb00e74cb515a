//! A CernVM-FS cache plugin that keeps objects on disk, in the layout of the client's own cache: an existing
//! cache or a preloaded alien cache is served as it is.
//!
//! The program `cvmcache-disk` is what sites run. [`DiskCache`] is the plugin in it, for programs of your
//! own:
//!
//! ```no_run
//! use cvmcache_disk::DiskCache;
//!
//! fn main() -> std::process::ExitCode {
//!     cvmcache::run("disk", DiskCache::from_context)
//! }
//! ```
//!
//! # The source
//!
//! Read it in this order: `layout.rs` (names on disk), `entry.rs` and `index.rs` (which objects there are, their order of use
//! and accounting; no lock, no I/O), `store.rs` (the index behind its lock, and which object's files are being
//! changed), `publish.rs` and `sync.rs` (how a file becomes an object), `tree.rs` and `database.rs` (what a
//! restart finds), `upload.rs` and `plugin.rs` (the SDK's traits on top), `maintenance.rs` (what a tier above the
//! cache needs). All changes to files go through
//! `files.rs`, where tests inject faults.

mod administration;
mod breadcrumbs;
mod cache_lock;
mod config;
mod database;
mod descriptors;
mod digest;
mod entry;
mod files;
mod index;
mod layout;
mod maintenance;
mod plugin;
mod publish;
mod reading;
mod scrub;
mod status;
mod store;
mod sync;
mod tree;
mod upload;

#[cfg(test)]
mod tests;

pub use config::{Config, Fsync, Location, ParseFsyncError, ParseQuotaError, Quota};
pub use maintenance::IdleObject;
pub use plugin::{DiskCache, StartError};
pub use scrub::ScrubCounts;
pub use status::DiskStatus;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
