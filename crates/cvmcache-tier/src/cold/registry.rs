//! The kinds of stores by name. Other crates register theirs without editing this one.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::cold::{ColdError, ColdStore, failure, kinds};

/// What a store is opened with.
#[derive(Clone, PartialEq, Eq)]
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

impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, endpoint, region, credentials, timeout } = self;
        f.debug_struct("StoreSettings")
            .field("url", &failure::without_secrets(url.as_str()))
            .field("endpoint", &endpoint.as_ref().map(|url| failure::without_secrets(url.as_str())))
            .field("region", region)
            .field("credentials", credentials)
            .field("timeout", timeout)
            .finish()
    }
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

impl Registry {
    /// The kinds of this crate.
    pub fn builtin() -> Self {
        Self { kinds: kinds::BUILTIN.to_vec() }
    }

    /// Adds a kind.
    ///
    /// # Errors
    ///
    /// If there is one of this name, or one for one of its schemes.
    pub fn register(&mut self, kind: StoreKind) -> Result<(), ColdError> {
        if self.kinds.iter().any(|known| known.name == kind.name) {
            return Err(ColdError::Settings(format!("there are two stores named {}", kind.name)));
        }
        for (at, scheme) in kind.schemes.iter().enumerate() {
            if self.of_scheme(scheme).is_some() || kind.schemes[..at].contains(scheme) {
                return Err(ColdError::Settings(format!("there are two stores for {scheme}://")));
            }
        }
        self.kinds.push(kind);
        Ok(())
    }

    /// All kinds, those of this crate first.
    pub fn kinds(&self) -> &[StoreKind] {
        &self.kinds
    }

    /// Opens the store that the scheme of the URL names.
    ///
    /// # Errors
    ///
    /// [`ColdError::Settings`] if there is no such kind, which lists those that there are; what
    /// [`StoreKind::open`] finds wrong.
    pub fn open(&self, settings: &StoreSettings) -> Result<Arc<dyn ColdStore>, ColdError> {
        let scheme = settings.url.scheme();
        match self.of_scheme(scheme) {
            Some(kind) => (kind.open)(settings),
            None => Err(ColdError::Settings(self.unknown(scheme))),
        }
    }

    fn of_scheme(&self, scheme: &str) -> Option<&StoreKind> {
        self.kinds.iter().find(|kind| kind.schemes.contains(&scheme))
    }

    fn unknown(&self, scheme: &str) -> String {
        let mut text = format!("there is no store for {scheme}://; known are");
        for kind in &self.kinds {
            let schemes: Vec<String> =
                kind.schemes.iter().map(|scheme| format!("{scheme}://")).collect();
            text += &format!("\n  {}: {} ({})", kind.name, kind.description, schemes.join(", "));
        }
        text
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &'static str, schemes: &'static [&'static str]) -> StoreKind {
        StoreKind { name, description: "of a test", schemes, open: kinds::BUILTIN[5].open }
    }

    fn settings(url: &str) -> StoreSettings {
        StoreSettings::new(url.parse().unwrap())
    }

    #[test]
    fn an_unknown_scheme_is_an_error_that_lists_all_kinds() {
        let mut registry = Registry::builtin();
        registry.register(kind("tape", &["tape"])).unwrap();
        let text = registry.open(&settings("cloudsyncs3://bucket")).unwrap_err().to_string();
        for kind in registry.kinds() {
            assert!(text.contains(kind.name) && text.contains(kind.description), "{text}");
            assert!(kind.schemes.iter().all(|scheme| text.contains(&format!("{scheme}://"))));
        }
    }

    #[test]
    fn a_kind_of_another_crate_is_opened_by_its_scheme() {
        let mut registry = Registry::builtin();
        registry.register(kind("tape", &["tape", "tapes"])).unwrap();
        registry.open(&settings("tapes:///")).unwrap();
    }

    #[test]
    fn a_name_or_a_scheme_is_registered_once() {
        let mut registry = Registry::builtin();
        for twice in [kind("s3", &["new"]), kind("new", &["s3a"]), kind("new", &["a", "a"])] {
            assert!(matches!(registry.register(twice), Err(ColdError::Settings(_))), "{twice:?}");
        }
        assert_eq!(registry.kinds().len(), Registry::builtin().kinds().len());
    }

    #[test]
    fn settings_are_printed_without_secrets() {
        let mut settings = settings("https://user:hunter2@host/path?sig=hunter2");
        settings.endpoint = Some("http://:hunter2@host/?hunter2".parse().unwrap());
        let text = format!("{settings:?}");
        assert!(!text.contains("hunter2") && text.contains("host/path"), "{text}");
    }
}
