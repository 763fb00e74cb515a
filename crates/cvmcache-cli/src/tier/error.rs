//! Why a tier was not asked, or did not do what it was asked.

use std::error::Error as StdError;
use std::path::PathBuf;

use cvmcache::admin::CommandError;
use cvmcache::config_keys;
use cvmcache::{LocatorError, OptionsError, ServerError};
use cvmcache_disk::StartError;
use cvmcache_tier::{ColdError, TierError};
use thiserror::Error;

use crate::admin;
use crate::error;

#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("{key} in {file}: {source}", key = config_keys::LOCATOR.name(), file = .file.display())]
    Locator { file: PathBuf, source: LocatorError },
    /// The configuration leads to a plugin of another kind.
    #[error("{name} at {path} is no tiered cache: it has no command {command}", path = .path.display())]
    NoTier { name: String, path: PathBuf, command: &'static str },
    #[error(transparent)]
    Admin(#[from] admin::Error),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("{text}: {source}; correct it in {file}", file = .file.display())]
    Store { text: &'static str, file: PathBuf, source: ColdError },
    /// Another process has the cache, and does not answer.
    #[error(
        "{source}; no plugin answers at {place}, so it cannot be asked either: stop it and run this again, or let \
         it have an administration socket ({key} in its configuration)",
        key = config_keys::ADMIN.name()
    )]
    InUse { source: Box<dyn StdError>, place: String },
    #[error("the cache cannot be opened: {0}")]
    Start(Box<dyn StdError>),
    #[error(
        "no plugin runs, and the cache is user {owner}'s: files of root's would be in its way; run this as \
         {owner}, as in: sudo -u {owner} cvmcache tier ..."
    )]
    Owner { owner: String },
    #[error(
        "{command}: the answer is not understood ({source}): this command and the plugin are of versions that do not go together"
    )]
    Answer { command: String, source: serde_json::Error },
    #[error("{source}; the job goes on if the plugin does: cvmcache tier status shows it")]
    Lost { source: Box<Error> },
    #[error("{0}; it can be stopped by cvmcache admin with the command {job} and '{{\"stop\": true}}'", job = cvmcache_tier::command::JOB)]
    Busy(Box<Error>),
    #[error(
        "the plugin has forgotten the {0}: it was started again meanwhile; start the job again"
    )]
    Forgotten(String),
    #[error(
        "the {0} has ended, and another job has begun: what came of it is in the plugin's log alone"
    )]
    Replaced(String),
}

impl Error {
    /// Why a stopped plugin's cache could not be opened. `place` is where a plugin would have answered.
    pub(super) fn from_start(
        source: Box<dyn StdError + Send + Sync>,
        file: PathBuf,
        place: String,
    ) -> Self {
        let source = match source.downcast::<OptionsError>() {
            Ok(error) => return (*error).into(),
            Err(other) => other,
        };
        if let Some(error @ ColdError::Settings(_)) = source.downcast_ref::<ColdError>() {
            return Self::Store { text: "the store cannot be used", file, source: error.clone() };
        }
        let is_in_use = source.is::<ServerError>()
            || matches!(source.downcast_ref(), Some(StartError::Lock(_)))
            || matches!(source.downcast_ref(), Some(TierError::Markers(_)));
        if is_in_use { Self::InUse { source, place } } else { Self::Start(source) }
    }
}

impl From<Error> for error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Options(_)
            | Error::Locator { .. }
            | Error::NoTier { .. }
            | Error::Store { .. }
            | Error::Command(CommandError::Arguments(_)) => Self::usage(error),
            Error::Admin(error) => error.into(),
            error => Self::failed(error),
        }
    }
}
