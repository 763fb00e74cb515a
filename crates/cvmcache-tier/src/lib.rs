//! A CernVM-FS cache plugin in two tiers: hot objects are in a cache on this node, cold ones in an object store,
//! and all of them are verified.
//!
//! The program `cvmcache-tiered` is what sites run: a [`HotCache`] above a store. [`Tiered`]
//! is the plugin in it, above any [`HotTier`] and any [`ColdStore`]. Stores of other crates are known by a
//! [`Registry`]:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use cvmcache_tier::{Registry, StoreKind};
//! # use cvmcache_tier::{ColdError, ColdStore, StoreSettings};
//! # fn open_tape(_: &StoreSettings) -> Result<std::sync::Arc<dyn ColdStore>, ColdError> {
//! #     Err(ColdError::ReadOnly)
//! # }
//!
//! const TAPE: StoreKind = StoreKind {
//!     name: "tape",
//!     description: "the robot in the basement",
//!     schemes: &["tape"],
//!     open: open_tape,
//! };
//!
//! fn main() -> ExitCode {
//!     let mut registry = Registry::builtin();
//!     registry.register(TAPE).expect("there is no other of this name");
//!     cvmcache::Program::new("tiered")
//!         .keys(cvmcache_tier::KEYS)
//!         .run(|context| cvmcache_tier::from_context_with(&registry, context))
//! }
//! ```
//!
//! # The source
//!
//! Read it in this order: `cold.rs` (what a store does) and `hot.rs` (what a cache does), `header.rs` and `key.rs` (an
//! object in the store), `markers.rs` (states), `tier.rs` (how an object moves), `recalls.rs` (once, however many
//! ask), `ranges.rs` (without coming back), `tiered.rs` (the callbacks). `archive.rs`, `archiver.rs`, `write_back.rs`,
//! `marker_list.rs` and `gc.rs` write to the store; `jobs.rs`, `maintenance.rs` and `administration.rs` are for
//! administrators.

mod administration;
mod archive;
mod archiver;
mod cold;
pub mod command;
mod config;
mod gc;
mod header;
mod hot;
mod jobs;
mod key;
mod maintenance;
mod marker_list;
mod markers;
mod program;
mod ranges;
mod recalls;
mod statistics;
mod tier;
mod tiered;
mod write_back;

#[cfg(test)]
extern crate self as cvmcache_tier;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod servers;
#[cfg(test)]
mod tests;

pub use cold::{
    ColdError, ColdStore, Download, Listed, Registry, StoreKind, StoreSettings, Uploaded,
};
pub use config::{ErrorPolicy, ParsePolicyError, ReadPolicy, TierConfig, WritePolicy};
pub use hot::{HotCache, HotObject, HotTier, Scrubbed};
pub use key::StoreKey;
pub use program::{KEYS, check, from_context, from_context_with};
pub use tiered::{TierError, Tiered};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
