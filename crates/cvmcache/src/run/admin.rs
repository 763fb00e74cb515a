//! The administration socket of a program: where it is, and the settings that it tells.

use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::warn;

use super::default_locator::{self, NoDirectory};
use super::serve::About;
use crate::admin::{AdminSocket, Setting, SettingSource};
use crate::config_keys::{ADMIN, ConfigKey, KEYS};
use crate::{Locator, Log, Options, OptionsError};

/// The value of the key makes no sense.
#[derive(Debug, Error)]
#[error("write no, or an absolute path")]
struct BadPath;

/// The directory of the sockets of plugins that listen on TCP has a problem.
#[derive(Debug, Error)]
#[error("there is no administration socket: {0}, or set {key}", key = ADMIN.name())]
pub(super) struct NoPlace(#[from] NoDirectory);

/// What is done about the directory of the sockets of plugins that listen on TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Directory {
    /// It is made.
    Make,
    /// Nothing is left behind.
    Find,
}

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

    /// The path; `None` if there is to be no socket.
    pub(super) fn path(
        self,
        locator: &Locator,
        directory: Directory,
    ) -> Result<Option<PathBuf>, NoPlace> {
        Ok(match (self, locator) {
            (Self::No, _) => None,
            (Self::At(path), _) => Some(path),
            (Self::Beside, Locator::Unix(_)) => Some(AdminSocket::path_of(locator, Path::new(""))),
            (Self::Beside, Locator::Tcp { .. }) => {
                let directory = match directory {
                    Directory::Make => default_locator::directory(),
                    Directory::Find => default_locator::find_directory(),
                };
                Some(AdminSocket::path_of(locator, &directory?))
            }
        })
    }
}

/// The socket for a plugin that listens at this locator. A plugin that has no place for it goes on without.
pub(super) fn socket(
    choice: Choice,
    locator: &Locator,
    about: About<'_>,
    config: Option<&Path>,
    options: &Options,
    log: Option<&Log>,
) -> Option<AdminSocket> {
    let path = choice.path(locator, Directory::Make).unwrap_or_else(|error| {
        warn!("{error}");
        None
    });
    let path = path?;
    let source = if config.is_some() { SettingSource::File } else { SettingSource::Default };
    let settings = settings(options, about.keys, source);
    let socket = AdminSocket::at(path).version(about.version).settings(settings);
    let socket = match config {
        Some(config) => socket.configuration_file(config),
        None => socket,
    };
    Some(match log.and_then(Log::level) {
        Some(level) => socket.log_level(level),
        None => socket,
    })
}

/// The configuration in force: the keys of the SDK and of the plugin. `source` is where options come from.
fn settings(options: &Options, keys: &[ConfigKey], source: SettingSource) -> Vec<Setting> {
    KEYS.iter().chain(keys).map(|key| setting(options, key, source)).collect()
}

fn setting(options: &Options, key: &ConfigKey, source: SettingSource) -> Setting {
    let (value, source) = match options.get(key) {
        Some(_) if key.is_secret() => (Some("(secret)".to_owned()), source),
        Some(value) => (Some(without_password(&value.to_string_lossy())), source),
        None => (key.fixed_default().map(str::to_owned), SettingSource::Default),
    };
    let setting = Setting::new(options.written(key), value, source, key.meaning());
    match key.default_text() {
        Some(text) => setting.default_text(text),
        None => setting,
    }
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
        let path = |options: &Options| {
            let choice = Choice::of(options).unwrap();
            choice.path(&locator, Directory::Find).unwrap()
        };
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
        let told = serde_json::to_string(&settings(&options, &[secret, url], SettingSource::File))
            .unwrap();
        assert!(told.contains("redis://(secret)@host:1/0"), "{told}");
        assert!(!told.contains("sword"), "{told}");
    }

    #[test]
    fn a_setting_has_its_value_or_its_default() {
        let settings = settings(&options("no"), &[], SettingSource::File);
        let told = serde_json::to_value(&settings).unwrap();
        let of = |name: &str| {
            let all = told.as_array().unwrap();
            all.iter().find(|it| it["key"] == name).unwrap().clone()
        };
        let admin = of("CVMFS_CACHE_PLUGIN_ADMIN");
        assert_eq!((&admin["value"], &admin["source"]), (&"no".into(), &"file".into()));
        let poll = of("CVMFS_CACHE_PLUGIN_POLL");
        assert_eq!((&poll["value"], &poll["source"]), (&"200".into(), &"default".into()));
        let workers = of("CVMFS_CACHE_PLUGIN_WORKERS");
        assert!(workers["value"].is_null(), "only the server knows it: {workers}");
        assert_eq!(workers["default"], "what the plugin asks for, mostly 0");
    }
}
