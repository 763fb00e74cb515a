//! The kinds of stores by name. Other crates register theirs without editing this one.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::cold::{ColdError, ColdStore};

/// What a store is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreSettings {
    /// `CVMFS_CACHE_PLUGIN_STORE`: the scheme names the kind, host and path say where objects are.
    pub url: Url,
    /// `CVMFS_CACHE_PLUGIN_STORE_ENDPOINT`: another server than the one that the kind implies.
    pub endpoint: Option<Url>,
    /// `CVMFS_CACHE_PLUGIN_STORE_REGION`.
    pub region: Option<String>,
    /// `CVMFS_CACHE_PLUGIN_STORE_CREDENTIALS`: a file; without it, the usual environment.
    pub credentials: Option<PathBuf>,
    /// `CVMFS_CACHE_PLUGIN_STORE_TIMEOUT`: how long a connection may take, and a request without progress.
    pub timeout: Duration,
}

impl StoreSettings {
    /// Settings for this URL, with defaults for the rest.
    pub fn new(url: Url) -> Self {
        Self { url, endpoint: None, region: None, credentials: None, timeout: Self::TIMEOUT }
    }

    /// The default timeout.
    pub const TIMEOUT: Duration = Duration::from_secs(10);
}

/// A kind of store.
#[derive(Clone, Copy)]
pub struct StoreKind {
    /// Its name, such as `s3`.
    pub name: &'static str,
    /// What it is, in a line.
    pub description: &'static str,
    /// The schemes of URLs that are for it.
    pub schemes: &'static [&'static str],
    /// Opens a store. It judges the settings, and asks no server.
    pub open: fn(&StoreSettings) -> Result<Arc<dyn ColdStore>, ColdError>,
}

impl fmt::Debug for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreKind").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The kinds of stores that there are.
#[derive(Debug, Clone)]
pub struct Registry {
    kinds: Vec<StoreKind>,
}
