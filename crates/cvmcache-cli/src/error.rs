//! Why a command could not do its work.

use std::io;

use cvmcache::Locator;
use cvmcache::client::ClientError;
use cvmcache_testkit::StartError;
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
    #[error("--set and --tcp are for a plugin that is started: add --spawn CMD, or leave them out")]
    NothingToStart,
    #[error(transparent)]
    Start(#[from] StartError),
    /// The error names the locator.
    #[error(transparent)]
    Connect(ClientError),
    #[error("{locator}: {source}")]
    Client { locator: Locator, source: ClientError },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write the output: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// 2 for what was not understood, 1 for the rest.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Error::NoLocator | Error::NothingToStart => 2,
            _ => 1,
        }
    }
}
