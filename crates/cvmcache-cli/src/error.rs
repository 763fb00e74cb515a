//! Why a command could not do its work.

use std::io;
use std::path::PathBuf;

use cvmcache::client::ClientError;
use cvmcache::plugin::{Capabilities, ObjectId, ParseObjectIdError};
use cvmcache::{Locator, LocatorError};
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
    #[error(transparent)]
    Locator(#[from] LocatorError),
    /// A word of the command line, by the name that it has in the usage.
    #[error("{0} is missing; see --help for what to write")]
    MissingWord(&'static str),
    #[error(transparent)]
    Id(#[from] ParseObjectIdError),
    #[error(transparent)]
    Amount(#[from] crate::shrink::ParseAmountError),
    #[error("--set and --tcp are for a plugin that is started: add --spawn CMD, or leave them out")]
    NothingToStart,
    #[error(
        "what is in an object may upset a terminal: name a file with -o FILE, redirect the output, \
         or insist with -o -"
    )]
    BytesToTerminal,
    #[error("top draws on a terminal, and the output is none; for scripts, there is cvmcache info")]
    NoTerminal,
    #[error(transparent)]
    Start(#[from] StartError),
    /// The error names the locator.
    #[error(transparent)]
    Connect(ClientError),
    #[error("{locator}: {source}")]
    Client { locator: Locator, source: ClientError },
    #[error("{locator}: {doing}: {source}")]
    While { locator: Locator, doing: String, source: ClientError },
    #[error("{locator}: the plugin lacks the capability \"{needed}\": {}", meaning(*needed))]
    Lacks { locator: Locator, needed: Capabilities },
    #[error("{locator}: {id} is not in the cache")]
    NoObject { locator: Locator, id: ObjectId },
    #[error(
        "{id} is damaged, or not named by its content: it hashes to {found}. CernVM-FS names files \
         by what they are when compressed, so this says nothing about most of its objects"
    )]
    OtherContent { id: ObjectId, found: ObjectId },
    #[error("{path}: it changed while it was read; nothing was stored, try again")]
    Changed { path: String },
    #[error("the cache has no limit to take a part of: write how many bytes, as in 500MiB")]
    NoLimit,
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("cannot write {path:?}: {source}")]
    Write { path: PathBuf, source: io::Error },
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
            | Error::Locator(_)
            | Error::MissingWord(_)
            | Error::Id(_)
            | Error::Amount(_)
            | Error::NothingToStart
            | Error::BytesToTerminal
            | Error::NoTerminal => 2,
            _ => 1,
        }
    }
}

/// What it means to whoever administers a plugin that it lacks a capability.
fn meaning(needed: Capabilities) -> &'static str {
    match needed {
        Capabilities::WRITE => "it takes no objects from clients",
        Capabilities::SHRINK => "it does not evict objects on request",
        Capabilities::INFO => "it does not tell how large and how full it is",
        Capabilities::LIST => "it does not tell which objects it holds",
        _ => "it does not do this",
    }
}
