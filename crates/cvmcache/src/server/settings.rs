//! What a configuration says to the server, as opposed to the plugin.

use std::str::FromStr;
use std::time::Duration;

use super::accept::{Networks, Users};
use super::builder::ServerBuilder;
use crate::{Options, OptionsError};

const WORKERS: &str = "CVMFS_CACHE_PLUGIN_WORKERS";
const POLL: &str = "CVMFS_CACHE_PLUGIN_POLL";
const ALLOW: &str = "CVMFS_CACHE_PLUGIN_ALLOW";
const ALLOW_USERS: &str = "CVMFS_CACHE_PLUGIN_ALLOW_USERS";

impl ServerBuilder {
    /// Takes what a configuration says to the server, and keeps the rest as it is:
    ///
    /// | key | as with |
    /// |---|---|
    /// | `CVMFS_CACHE_PLUGIN_WORKERS` | [`workers`](Self::workers), at most 1024 |
    /// | `CVMFS_CACHE_PLUGIN_POLL` | [`poll_for`](Self::poll_for), in microseconds, at most 1000 |
    /// | `CVMFS_CACHE_PLUGIN_ALLOW` | [`allow_networks`](Self::allow_networks) |
    /// | `CVMFS_CACHE_PLUGIN_ALLOW_USERS` | [`allow_users`](Self::allow_users) |
    ///
    /// # Errors
    ///
    /// [`OptionsError::Value`] if a value makes no sense, or is out of its bounds.
    pub fn configure(self, options: &Options) -> Result<Self, OptionsError> {
        Ok(Settings::from_options(options)?.apply(self))
    }
}

/// What is set, and makes sense.
#[derive(Debug)]
pub(crate) struct Settings {
    workers: Option<WorkerCount>,
    poll_for: Option<PollTime>,
    networks: Option<Networks>,
    users: Option<Users>,
}

impl Settings {
    pub(crate) fn from_options(options: &Options) -> Result<Self, OptionsError> {
        Ok(Self {
            workers: options.parse_value(WORKERS)?,
            poll_for: options.parse_value(POLL)?,
            networks: options.parse_value(ALLOW)?,
            users: options.parse_value(ALLOW_USERS)?,
        })
    }

    pub(crate) fn apply(self, mut builder: ServerBuilder) -> ServerBuilder {
        if let Some(WorkerCount(count)) = self.workers {
            builder = builder.workers(count);
        }
        if let Some(PollTime(time)) = self.poll_for {
            builder = builder.poll_for(time);
        }
        if let Some(networks) = self.networks {
            builder = builder.allow_networks(networks);
        }
        if let Some(users) = self.users {
            builder = builder.allow_users(users);
        }
        builder
    }
}

/// A number of workers that a system can be expected to start.
#[derive(Debug)]
struct WorkerCount(usize);

impl FromStr for WorkerCount {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let count = text.parse().ok().filter(|&count| count <= 1024);
        count.map(Self).ok_or("not a number of threads: use 0 for none besides I/O, at most 1024")
    }
}

/// A time that is short enough to be spent without doing anything else.
#[derive(Debug)]
struct PollTime(Duration);

impl FromStr for PollTime {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let micros = text.parse().ok().filter(|&micros| micros <= 1000);
        let time = micros.map(|micros| Self(Duration::from_micros(micros)));
        time.ok_or("not a number of microseconds: use 0 to sleep at once, at most 1000")
    }
}
