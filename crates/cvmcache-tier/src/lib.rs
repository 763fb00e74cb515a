//! A CernVM-FS cache plugin in two tiers: hot objects are in a cache on this node, cold ones in an object store,
//! and all of them are verified.
//!
//! The program `cvmcache-tiered` is what sites run.

mod cold;
mod header;
mod key;
mod markers;

pub use cold::{
    ColdError, ColdStore, Download, Listed, Registry, StoreKind, StoreSettings, Uploaded,
};
pub use key::StoreKey;
