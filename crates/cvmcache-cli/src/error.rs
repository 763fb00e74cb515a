//! Why a command could not do its work.

use std::fmt;
use std::io;
use std::path::PathBuf;

use cvmcache::Locator;
use cvmcache::client::ClientError;
use cvmcache::plugin::{Capabilities, Status};
use cvmcache_testkit::StartError;
use thiserror::Error;

use crate::output;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

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
    #[error("{0}")]
    Usage(String),
    #[error(
        "{workload} needs what {plugin} cannot do ({lacking}): leave it out; ping works with every \
         plugin"
    )]
    Incapable { workload: &'static str, plugin: String, lacking: Capabilities },
    #[error(
        "objects of {} are too large for {plugin}, which has room for {}: a cache has to have room \
         for two of them; take a smaller --object-size, or a larger cache",
        output::bytes(*object_size),
        output::bytes(*size)
    )]
    ObjectSize { plugin: String, object_size: u64, size: u64 },
    #[error(
        "{wanted} descriptors are needed for that many connections, and the system allows \
         {allowed}: raise the limit (ulimit -Hn), or take fewer --connections and --idle"
    )]
    Descriptors { wanted: u64, allowed: u64 },
    #[error("{workload} on {plugin}: {source}{}{}", Remedy(source), Log(log))]
    Bench { workload: &'static str, plugin: String, source: ClientError, log: String },
    #[error("cannot measure a bare socket: {0}")]
    Limit(io::Error),
    #[error("cannot write {}: {reason}", path.display())]
    Plot { path: PathBuf, reason: String },
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
            | Error::NothingToStart
            | Error::Usage(_)
            | Error::ObjectSize { .. } => 2,
            _ => 1,
        }
    }
}

/// What can be done about the plugin's answer.
struct Remedy<'a>(&'a ClientError);

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.status() {
            Some(Status::NoSpace) => {
                "; what is open or being stored does not fit: take a larger cache, a smaller \
                 --object-size, or fewer --connections and --in-flight"
            }
            Some(Status::NoSupport) => "; leave the workload out, ping works with every plugin",
            _ => "",
        })
    }
}

/// What the plugin has printed, if anything.
struct Log<'a>(&'a str);

impl fmt::Display for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; it has printed:\n{}", self.0) }
    }
}
