//! The tier that a configuration describes: in a plugin that runs, or opened here.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cvmcache::admin::{Administration, Arguments, CommandError};
use cvmcache::{CachePlugin, Locator, Options, PluginContext, ServerHandle, config_keys};
use cvmcache_disk::Config;
use cvmcache_tier::{TierConfig, command};
use nix::unistd::geteuid;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Common;
use super::error::Error;
use super::progress;
use crate::admin::Admin;
use crate::admin::schema::Index;
use crate::user::User;

pub(super) enum Target {
    /// A plugin that runs.
    Running(Admin),
    /// The plugin of a cache that no other process has open, without a server.
    Stopped(Box<dyn CachePlugin>),
}

/// The plugin's name, which may be in its configuration keys.
const NAME: &str = "tiered";
/// Where the plugin's own commands are.
const PLUGIN: &str = "/v1/plugin/";
/// Objects are archived for their age by the plugin, not by what an administrator runs.
const ARCHIVE_AFTER: &str = "CVMFS_CACHE_PLUGIN_STORE_ARCHIVE_AFTER";

impl Target {
    /// The plugin whose administration socket answers, or else the cache.
    pub(super) fn find(common: &Common) -> Result<Self, Error> {
        let file = &common.config;
        let options = Options::from_file(file)?.for_plugin(NAME);
        // Its absence is said alike, whether a plugin runs or not.
        TierConfig::from_options(&options)?;
        let locator = options.get(config_keys::LOCATOR).map(Locator::from_os_str).transpose();
        let locator = locator.map_err(|source| Error::Locator { file: file.clone(), source })?;
        let admin = socket(&options, locator.as_ref(), common.timeout());
        if let Some(admin) = admin.filter(|admin| is_live(admin.path())) {
            return Self::running(admin);
        }
        let place = locator.map_or_else(|| file.display().to_string(), |it| it.to_string());
        Self::stopped(options, file, place)
    }

    fn running(admin: Admin) -> Result<Self, Error> {
        let index = admin.get::<Index>("/v1")?.value;
        let status = format!("{PLUGIN}{}", command::STATUS);
        if index.resources.iter().any(|resource| resource.path == status) {
            return Ok(Self::Running(admin));
        }
        let path = admin.path().to_owned();
        Err(Error::NoTier { name: index.name, path, command: command::STATUS })
    }

    fn stopped(mut options: Options, file: &Path, place: String) -> Result<Self, Error> {
        // What is wrong with the rest, the start says.
        if let Ok(config) = Config::from_options(&options) {
            check_owner(config.location.directory())?;
            check_owner(config.location.workspace())?;
        }
        progress::log_to_stderr();
        options.set(ARCHIVE_AFTER, "0");
        let context = PluginContext::new(options, ServerHandle::new());
        let started = cvmcache_tier::from_context(&context);
        let plugin = started.map_err(|source| Error::from_start(source, file.to_owned(), place))?;
        Ok(Self::Stopped(Box::new(plugin)))
    }

    /// Executes a command of the plugin, and returns its answer.
    pub(super) fn execute(&self, command: &str, arguments: Arguments) -> Result<Value, Error> {
        match self {
            Self::Running(admin) => {
                let answer = admin
                    .post::<Value>(&format!("{PLUGIN}{command}"), Some(&Value::Object(arguments)));
                Ok(answer?.value)
            }
            Self::Stopped(plugin) => {
                Ok(administration(plugin.as_ref())?.execute(command, &arguments)?)
            }
        }
    }

    /// The same, for an answer that is understood.
    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        command: &str,
        arguments: Arguments,
    ) -> Result<T, Error> {
        let answer = self.execute(command, arguments)?;
        T::deserialize(answer)
            .map_err(|source| Error::Answer { command: command.to_owned(), source })
    }
}

fn administration(plugin: &dyn CachePlugin) -> Result<&dyn Administration, CommandError> {
    let none = || CommandError::Failed("the cache has no commands".to_owned());
    plugin.administration().ok_or_else(none)
}

/// Where the administration socket of the plugin is, if it may have one.
fn socket(options: &Options, locator: Option<&Locator>, timeout: Duration) -> Option<Admin> {
    match options.get(config_keys::ADMIN) {
        Some(value) if value == "no" => None,
        Some(path) => Some(Admin::new(PathBuf::from(path), timeout)),
        None => Admin::of(locator?, None, timeout),
    }
}

/// False if no process listens there, as after a crash.
fn is_live(path: &Path) -> bool {
    let is_gone = |error: std::io::Error| {
        matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound)
    };
    !UnixStream::connect(path).is_err_and(is_gone)
}

/// Refuses root if the directory is another user's.
fn check_owner(directory: &Path) -> Result<(), Error> {
    let Ok(metadata) = fs::metadata(directory) else { return Ok(()) };
    if !geteuid().is_root() || metadata.uid() == 0 {
        return Ok(());
    }
    let owner = metadata.uid().to_string();
    let owner = User::named(&owner).map_or(owner, |user| user.to_string());
    Err(Error::Owner { owner })
}
