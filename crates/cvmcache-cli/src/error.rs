//! Why a command could not do its work.

use std::io;
use std::path::PathBuf;

use cvmcache::Locator;
use cvmcache::client::ClientError;
use cvmcache_testkit::{StartError, SuiteError};
use thiserror::Error;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a command could not do its work.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error(
        "which plugin? Name its locator, as in unix=/path/to/socket or tcp=host:port, or set \
         CVMCACHE_LOCATOR"
    )]
    NoLocator,
    #[error(
        "which plugin? Name the locator of one that runs, as in unix=/path/to/socket or \
         tcp=host:port, or have one started with --spawn 'CMD {{conf}}'"
    )]
    NoTarget,
    #[error("--set and --tcp are for a plugin that is started: add --spawn CMD, or leave them out")]
    NothingToStart,
    #[error("there is no user {0:?}: name the one that the client runs as, as in --user cvmfs")]
    NoUser(String),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}; cvmcache check --list has them all")]
    NoSuchCase(SuiteError),
    #[error("{0}: add --hostile")]
    OnlyHostile(SuiteError),
    #[error(transparent)]
    Suite(SuiteError),
    #[error("cannot write {path:?}: {source}; name a file in a directory that you can write to")]
    File { path: PathBuf, source: io::Error },
    /// The error names the locator.
    #[error(transparent)]
    Connect(ClientError),
    #[error("{locator}: {source}")]
    Client { locator: Locator, source: ClientError },
    #[error("{0} would lose its objects: add --evict if nobody needs them")]
    WouldEvict(Locator),
    #[error("the system does not cooperate: {0}")]
    System(#[source] io::Error),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write the output: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// 2 for what was not understood, 1 for the rest.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Error::NoLocator
            | Error::NoTarget
            | Error::NothingToStart
            | Error::NoUser(_)
            | Error::WouldEvict(_)
            | Error::NoSuchCase(_)
            | Error::OnlyHostile(_) => 2,
            _ => 1,
        }
    }
}

impl From<SuiteError> for Error {
    fn from(error: SuiteError) -> Self {
        match error {
            SuiteError::NoSuchCase(_) => Error::NoSuchCase(error),
            SuiteError::OnlyHostile(_) => Error::OnlyHostile(error),
            error => Error::Suite(error),
        }
    }
}
