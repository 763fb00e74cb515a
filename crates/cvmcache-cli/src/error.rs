//! Why a command could not do its work.

use std::fmt;
use std::io;
use std::path::PathBuf;

use cvmcache::client::ClientError;
use cvmcache::plugin::{Capabilities, ObjectId, ParseObjectIdError, Status};
use cvmcache::{Locator, LocatorError};
use cvmcache_testkit::{StartError, SuiteError};
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
    Locator(#[from] LocatorError),
    /// A word of the command line, by the name that it has in the usage.
    #[error("{0} is missing; see --help for what to write")]
    MissingWord(&'static str),
    #[error(transparent)]
    Id(#[from] ParseObjectIdError),
    #[error(transparent)]
    Amount(#[from] crate::shrink::ParseAmountError),
    #[error(
        "what is in an object may upset a terminal: name a file with -o FILE, redirect the output, \
         or insist with -o -"
    )]
    BytesToTerminal,
    #[error("top draws on a terminal, and the output is none; for scripts, there is cvmcache info")]
    NoTerminal,
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
        "{count} objects of {} are too many for {plugin}, which has room for {}: take fewer \
         --objects, a smaller --object-size, or a larger cache",
        output::bytes(*object_size),
        output::bytes(*size)
    )]
    Objects { plugin: String, count: u64, object_size: u64, size: u64 },
    #[error(
        "{wanted} descriptors are needed for that many connections, and the system allows \
         {allowed}: raise the limit (ulimit -Hn), or take fewer --connections and --idle"
    )]
    Descriptors { wanted: u64, allowed: u64 },
    #[error("{workload} on {plugin}: {source}{}{}", Remedy(source), Log(log))]
    Bench { workload: &'static str, plugin: String, source: ClientError, log: String },
    #[error("{0} would lose its objects: add --evict if nobody needs them")]
    WouldEvict(Locator),
    #[error("the system does not cooperate: {0}")]
    System(#[source] io::Error),
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
            Error::Amount(_)
            | Error::BytesToTerminal
            | Error::Id(_)
            | Error::Locator(_)
            | Error::MissingWord(_)
            | Error::NoLocator
            | Error::NoSuchCase(_)
            | Error::NoTarget
            | Error::NoTerminal
            | Error::NoUser(_)
            | Error::NothingToStart
            | Error::ObjectSize { .. }
            | Error::Objects { .. }
            | Error::OnlyHostile(_)
            | Error::Usage(_)
            | Error::WouldEvict(_) => 2,
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
