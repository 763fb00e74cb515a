//! A CernVM-FS cache plugin in two tiers: hot objects are in a cache on this node, cold ones in an object store,
//! and all of them are verified.
//!
//! The program `cvmcache-tiered` is what sites run.

mod administration;
mod archive;
mod archiver;
mod cold;
mod config;
mod header;
mod hot;
mod key;
mod markers;
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
pub use hot::{HotObject, HotTier};
pub use key::StoreKey;
pub use tiered::{TierError, Tiered};
