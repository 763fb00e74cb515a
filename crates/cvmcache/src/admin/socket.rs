//! The administration socket to be: its path, and what only the program knows.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Setting;
use crate::{ConfigKey, Locator};

/// What is appended to the path of a plugin's socket.
const SUFFIX: &str = ".admin";

/// An administration socket to be, see [`ServerBuilder::admin`](crate::ServerBuilder::admin).
#[derive(Debug, Clone)]
#[must_use = "it is served by a server only"]
pub struct AdminSocket {
    pub(crate) path: PathBuf,
    pub(crate) version: Option<String>,
    pub(crate) configuration_file: Option<PathBuf>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) log_level: Option<Arc<dyn LogLevel>>,
}

/// The least level that a program logs, which can be changed while it runs.
pub trait LogLevel: fmt::Debug + Send + Sync {
    /// The level: `error`, `warn`, `info`, `debug` or `trace`.
    fn get(&self) -> tracing::Level;

    /// Changes it.
    fn set(&self, level: tracing::Level);
}

impl AdminSocket {
    /// A socket at this path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            version: None,
            configuration_file: None,
            settings: Vec::new(),
            log_level: None,
        }
    }

    /// Where the administration socket of a plugin with this locator is, unless it was told
    /// otherwise: beside its socket, as `PATH.admin`. `directory` is where those of plugins that listen on
    /// TCP sockets are.
    ///
    /// ```
    /// use cvmcache::admin::AdminSocket;
    ///
    /// let path = |locator: &str| AdminSocket::path_of(&locator.parse().unwrap(), "/run/cvmcache".as_ref());
    /// assert_eq!(path("unix=/run/cvmcache/ram.socket"), "/run/cvmcache/ram.socket.admin".as_ref() as &std::path::Path);
    /// assert_eq!(path("tcp=10.0.0.1:4242"), "/run/cvmcache/tcp-10.0.0.1-4242.admin".as_ref() as &std::path::Path);
    /// ```
    pub fn path_of(locator: &Locator, directory: &Path) -> PathBuf {
        match locator {
            Locator::Unix(path) => {
                let mut path: OsString = path.clone().into();
                path.push(SUFFIX);
                path.into()
            }
            Locator::Tcp { host, port } => {
                let host: String =
                    host.replace(|it: char| !it.is_ascii_alphanumeric() && it != '.', "-");
                directory.join(format!("tcp-{host}-{port}{SUFFIX}"))
            }
        }
    }

    /// The version of the plugin.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The file that the configuration was read from.
    pub fn configuration_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.configuration_file = Some(path.into());
        self
    }

    /// The configuration that is in force.
    pub fn settings(mut self, settings: Vec<Setting>) -> Self {
        self.settings = settings;
        self
    }

    /// Tells the value of a setting that only the server knows.
    pub(crate) fn set_in_force(&mut self, key: &ConfigKey, value: impl fmt::Display) {
        let value = value.to_string();
        self.settings.iter_mut().for_each(|setting| setting.set_in_force(key, &value));
    }

    /// How the level of the log is changed. Without it, it cannot be.
    pub fn log_level(mut self, level: Arc<dyn LogLevel>) -> Self {
        self.log_level = Some(level);
        self
    }
}
