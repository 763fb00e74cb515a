//! The errors of a benchmark.

use std::fmt;

use cvmcache::client::ClientError;
use cvmcache::plugin::{Capabilities, Status};
use cvmcache_testkit::StartError;
use thiserror::Error;

use crate::error;
use crate::output;

#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("one plugin is measured: name the second with --vs LOCATOR")]
    TwoLocators,
    #[error(
        "the plugin to measure either runs already or is started: leave out the locator or --spawn, \
         or compare with --vs LOCATOR"
    )]
    LocatorAndSpawn,
    #[error(
        "{0} fills the cache, and so evicts what other clients have stored: add --evict to allow \
         that, or measure a plugin of your own with --spawn CMD"
    )]
    WouldEvict(&'static str),
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
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{workload} on {plugin}: {source}{}{}", Remedy(source), Log(log))]
    Workload { workload: &'static str, plugin: String, source: ClientError, log: String },
}

impl From<Error> for error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::TwoLocators
            | Error::LocatorAndSpawn
            | Error::WouldEvict(_)
            | Error::ObjectSize { .. }
            | Error::Objects { .. } => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

/// The remedy for the status of a reply.
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

/// The output of the plugin, if there is any.
struct Log<'a>(&'a str);

impl fmt::Display for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; it has printed:\n{}", self.0) }
    }
}
