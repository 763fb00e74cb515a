//! What the configuration says to the SDK, as opposed to the plugin.

use std::str::FromStr;
use std::time::Duration;

use crate::{Locator, Networks, Options, OptionsError, Users};

pub(super) const LOCATOR: &str = "CVMFS_CACHE_PLUGIN_LOCATOR";
const WORKERS: &str = "CVMFS_CACHE_PLUGIN_WORKERS";
const POLL: &str = "CVMFS_CACHE_PLUGIN_POLL";
const ALLOW: &str = "CVMFS_CACHE_PLUGIN_ALLOW";
const ALLOW_USERS: &str = "CVMFS_CACHE_PLUGIN_ALLOW_USERS";

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) locator: Locator,
    /// `None`: as the plugin has it.
    pub(super) workers: Option<usize>,
    /// `None`: as the builder has it.
    pub(super) poll_for: Option<Duration>,
    pub(super) networks: Option<Networks>,
    pub(super) users: Users,
}

impl Settings {
    pub(super) fn from_options(options: &Options) -> Result<Self, OptionsError> {
        Ok(Self {
            locator: locator(options)?,
            workers: options.parse_value(WORKERS)?.map(|count: WorkerCount| count.0),
            poll_for: options.parse_value(POLL)?.map(|time: PollTime| time.0),
            networks: options.parse_value(ALLOW)?,
            users: options.parse_value(ALLOW_USERS)?.unwrap_or_default(),
        })
    }
}

fn locator(options: &Options) -> Result<Locator, OptionsError> {
    let text = options.get(LOCATOR).ok_or_else(|| {
        options.missing(LOCATOR, format!("add a line like {LOCATOR}=unix=/path/to/socket"))
    })?;
    Locator::from_os_str(text).map_err(|error| options.bad_value(LOCATOR, error))
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
