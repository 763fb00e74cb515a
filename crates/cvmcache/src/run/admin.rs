//! The administration socket of a program: where it is, and the settings that it tells.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tracing::warn;

use super::default_locator;
use crate::admin::{AdminSocket, LogLevel, Setting, SettingSource};
use crate::config_keys::{ADMIN, ConfigKey, KEYS};
use crate::{Locator, Log, Options, OptionsError};

/// The value of the key makes no sense.
#[derive(Debug, Error)]
#[error("write no, or an absolute path")]
struct BadPath;

/// What the configuration says about the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// There is to be none.
    No,
    /// It is to be beside the plugin's own.
    Beside,
    At(PathBuf),
}

impl Choice {
    pub(super) fn of(options: &Options) -> Result<Self, OptionsError> {
        match options.get(ADMIN) {
            None => Ok(Self::Beside),
            Some(value) if value == "no" => Ok(Self::No),
            Some(value) if Path::new(value).is_absolute() => Ok(Self::At(value.into())),
            Some(_) => Err(options.bad_value(ADMIN, BadPath)),
        }
    }

    /// The path; `None` if there is to be no socket. A plugin that has no place for it goes on without.
    fn path(self, locator: &Locator) -> Option<PathBuf> {
        match (self, locator) {
            (Self::No, _) => None,
            (Self::At(path), _) => Some(path),
            (Self::Beside, Locator::Unix(_)) => Some(AdminSocket::path_of(locator, Path::new(""))),
            (Self::Beside, Locator::Tcp { .. }) => match default_locator::directory() {
                Ok(directory) => Some(AdminSocket::path_of(locator, &directory)),
                Err(error) => {
                    let key = ADMIN.name();
                    warn!("there is no administration socket: {error}, or set {key}");
                    None
                }
            },
        }
    }
}

/// The socket for a plugin that listens at this locator.
pub(super) fn socket(
    choice: Choice,
    locator: &Locator,
    version: &str,
    settings: Vec<Setting>,
    log: Option<&Log>,
) -> Option<AdminSocket> {
    let socket = AdminSocket::at(choice.path(locator)?).version(version).settings(settings);
    Some(match log.and_then(Log::level) {
        Some(level) => socket.log_level(level as Arc<dyn LogLevel>),
        None => socket,
    })
}

/// The configuration in force: the keys of the SDK and of the plugin.
pub(super) fn settings(options: &Options, keys: &[ConfigKey]) -> Vec<Setting> {
    KEYS.iter().chain(keys).map(|key| setting(options, key)).collect()
}

fn setting(options: &Options, key: &ConfigKey) -> Setting {
    let (value, source) = match options.get(key) {
        Some(_) if key.is_secret() => (Some("(secret)".to_owned()), SettingSource::File),
        Some(value) => (Some(without_password(&value.to_string_lossy())), SettingSource::File),
        None => (key.default_text().map(str::to_owned), SettingSource::Default),
    };
    Setting::new(options.written(key), value, source, key.meaning())
}

/// A value without the user and the password of a URL in it.
fn without_password(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.to_owned() };
    // A password that was not encoded may have any of `/@?#` in it.
    match rest.rsplit_once('@') {
        Some((_, rest)) => format!("{scheme}://(secret)@{rest}"),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(value: &str) -> Options {
        let mut options = Options::new();
        options.set(ADMIN, value);
        options
    }

    #[test]
    fn the_socket_is_beside_the_plugins_own_unless_it_is_told_otherwise() {
        let locator = "unix=/run/ram.socket".parse().unwrap();
        let path = |options: &Options| Choice::of(options).unwrap().path(&locator);
        assert_eq!(path(&Options::new()), Some("/run/ram.socket.admin".into()));
        assert_eq!(path(&options("/run/admin")), Some("/run/admin".into()));
        assert_eq!(path(&options("no")), None);
        let error = Choice::of(&options("yes")).unwrap_err().to_string();
        assert!(error.ends_with("write no, or an absolute path"), "{error}");
    }

    #[test]
    fn passwords_are_not_told() {
        let secret = ConfigKey::new("CVMFS_CACHE_PLUGIN_TOKEN", "TEXT", "a token").secret();
        let url = ConfigKey::new("CVMFS_CACHE_PLUGIN_SERVER", "URL", "a server");
        let mut options = Options::new();
        options.set(secret, "swordfish");
        options.set(url, "redis://user:sword@fi/sh@host:1/0");
        let told = serde_json::to_string(&settings(&options, &[secret, url])).unwrap();
        assert!(told.contains("redis://(secret)@host:1/0"), "{told}");
        assert!(!told.contains("sword"), "{told}");
    }

    #[test]
    fn a_setting_has_its_value_or_its_default() {
        let settings = settings(&options("no"), &[]);
        let told = serde_json::to_value(&settings).unwrap();
        let of = |name: &str| {
            let all = told.as_array().unwrap();
            all.iter().find(|it| it["key"] == name).unwrap().clone()
        };
        let admin = of("CVMFS_CACHE_PLUGIN_ADMIN");
        assert_eq!((&admin["value"], &admin["source"]), (&"no".into(), &"file".into()));
        let poll = of("CVMFS_CACHE_PLUGIN_POLL");
        assert_eq!((&poll["value"], &poll["source"]), (&"200".into(), &"default".into()));
    }
}
