//! The administration socket of a context: only if the plugin or the environment asks for one.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cvmcache::Locator;
use cvmcache::admin::{AdminSocket, LogLevel, Setting, SettingSource};
use cvmcache::config_keys::ADMIN;
use tracing::Level;

use crate::ffi::report_error;
use crate::process;

/// Where the socket is to be.
#[derive(Debug, Default)]
pub(crate) enum Place {
    /// There is to be none.
    #[default]
    Nowhere,
    /// Beside the plugin's own.
    Beside,
    At(PathBuf),
}

impl Place {
    /// What the plugin has called `cvmcache_admin` with.
    pub(crate) fn asked(path: Option<&OsStr>) -> Self {
        path.map_or(Self::Beside, |path| Self::At(path.into()))
    }

    /// The socket for a plugin that listens at this locator.
    pub(crate) fn socket(&self, locator: &Locator) -> Option<AdminSocket> {
        let path = self.path(locator, env::var_os(ADMIN.name()).as_deref())?;
        Some(AdminSocket::at(path).settings(settings()).log_level(Arc::new(LogOfProcess)))
    }

    /// The path; `None` if there is to be no socket, or no place for it. The environment has the last word.
    fn path(&self, locator: &Locator, environment: Option<&OsStr>) -> Option<PathBuf> {
        match environment {
            Some(value) if value == "no" => return None,
            Some(value) if Path::new(value).is_absolute() => return Some(value.into()),
            Some(value) => report_error(format_args!(
                "{}={} is not used: write no, or an absolute path",
                ADMIN.name(),
                value.display()
            )),
            None => {}
        }
        match (self, locator) {
            (Self::Nowhere, _) => None,
            (Self::At(path), _) => Some(path.clone()),
            (Self::Beside, Locator::Unix(_)) => Some(AdminSocket::path_of(locator, Path::new(""))),
            (Self::Beside, _) => {
                report_error(
                    "cvmcache_admin: name a path, since the plugin listens on a TCP socket",
                );
                None
            }
        }
    }
}

/// What the library has read of the environment. The configuration file is the plugin's.
fn settings() -> Vec<Setting> {
    let setting = |(name, fixed, default, meaning): (&str, Option<&str>, Option<&str>, &str)| {
        let value = env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let source = match value {
            Some(_) => SettingSource::Environment,
            None => SettingSource::Default,
        };
        let setting = Setting::new(name, value.or(fixed.map(str::to_owned)), source, meaning);
        match default {
            Some(default) => setting.default_text(default),
            None => setting,
        }
    };
    let keys = process::SETTINGS
        .iter()
        .map(|key| (key.name(), key.fixed_default(), key.default_text(), key.meaning()));
    let no = Some("no");
    let own = [
        (ADMIN.name(), None, no, ADMIN.meaning()),
        (process::CONCURRENT, no, no, "yes: callbacks may run on several threads at once"),
    ];
    keys.chain(own).map(setting).collect()
}

/// The log, which starts after the socket has been described.
#[derive(Debug)]
struct LogOfProcess;

impl LogLevel for LogOfProcess {
    fn get(&self) -> Level {
        process::log_level().map_or(Level::INFO, |level| level.get())
    }

    fn set(&self, level: Level) {
        if let Some(log) = process::log_level() {
            log.set(level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(place: &Place, locator: &str, environment: Option<&str>) -> Option<PathBuf> {
        place.path(&locator.parse().unwrap(), environment.map(OsStr::new))
    }

    #[test]
    fn there_is_a_socket_only_if_the_plugin_or_the_environment_asks_for_one() {
        let (unix, own) = ("unix=/run/c.socket", Place::asked(Some("/run/own".as_ref())));
        assert_eq!(path(&Place::Nowhere, unix, None), None);
        assert_eq!(path(&Place::asked(None), unix, None), Some("/run/c.socket.admin".into()));
        assert_eq!(path(&own, unix, None), Some("/run/own".into()));
        for place in [Place::Nowhere, Place::Beside, own] {
            assert_eq!(path(&place, unix, Some("no")), None);
            assert_eq!(path(&place, unix, Some("/run/x")), Some("/run/x".into()));
        }
    }

    #[test]
    fn what_makes_no_sense_in_the_environment_changes_nothing() {
        assert_eq!(path(&Place::Nowhere, "unix=/run/c", Some("yes")), None);
        assert_eq!(path(&Place::Beside, "unix=/run/c", Some("")), Some("/run/c.admin".into()));
    }

    #[test]
    fn a_plugin_on_a_tcp_socket_has_to_name_a_path() {
        assert_eq!(path(&Place::Beside, "tcp=127.0.0.1:4242", None), None);
        let named = Place::asked(Some("/run/own".as_ref()));
        assert_eq!(path(&named, "tcp=127.0.0.1:4242", None), Some("/run/own".into()));
    }
}
