//! The plugin under test: started here or found, and the figures of its process in /proc.

use std::io;
use std::time::Duration;

use cvmcache::Locator;
use cvmcache::client::{Client, ClientError};
use thiserror::Error;

use super::violation::{CheckResult, Violation, ensure};
use crate::{Memory, PluginCommand, PluginProcess, StartError, usage};

/// How long any reply may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// A cache without a limit is used like one of this size, in bytes.
const UNLIMITED: u64 = 200 << 20;

/// The plugin that a [`Soak`](super::Soak) is run against.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SoakTarget {
    /// One that runs already, and loses its objects.
    Running(Locator),
    /// One that is started for the test.
    Command(PluginCommand),
}

/// Why a soak test cannot be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SoakError {
    /// The plugin cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The plugin cannot be reached, or does not report the size of its cache.
    #[error("{locator}: {doing}: {source}")]
    Client {
        /// Where it listens.
        locator: Locator,
        /// What was being done.
        doing: &'static str,
        /// What the client saw.
        source: ClientError,
    },
    /// A client process cannot be started or waited for.
    #[error("system error: {0}")]
    System(#[source] io::Error),
}

impl From<Locator> for SoakTarget {
    fn from(locator: Locator) -> Self {
        Self::Running(locator)
    }
}

impl From<PluginCommand> for SoakTarget {
    fn from(command: PluginCommand) -> Self {
        Self::Command(command)
    }
}

/// A plugin under test.
#[derive(Debug)]
pub(super) struct Plugin {
    pub(super) locator: Locator,
    /// The size of the cache in bytes, if it has a limit.
    pub(super) size: Option<u64>,
    /// `None` if it is not known to run on this machine.
    pid: Option<u32>,
    process: Option<PluginProcess>,
}

/// Opens a session.
pub(super) fn connect(
    locator: &Locator,
    name: impl Into<bytes::Bytes>,
) -> Result<Client, ClientError> {
    Client::builder().name(name).timeout(TIMEOUT).connect(locator)
}

impl Plugin {
    /// Starts the plugin, or connects to it.
    pub(super) fn new(target: SoakTarget) -> Result<Self, SoakError> {
        let (locator, process) = match target {
            SoakTarget::Running(locator) => (locator, None),
            SoakTarget::Command(command) => {
                let process = command.start()?;
                (process.locator().clone(), Some(process))
            }
        };
        let while_doing = |doing| {
            let locator = locator.clone();
            move |source| SoakError::Client { locator, doing, source }
        };
        let session = connect(&locator, "soak.cern.ch:first");
        let mut client = session.map_err(while_doing("opening a session"))?;
        let info = client.info().map_err(while_doing("asking for the size of the cache"))?;
        let size = info.size_bytes;
        let pid = client.plugin_pid();
        client.quit().map_err(while_doing("closing the session"))?;
        Ok(Self {
            size: (size != u64::MAX).then_some(size),
            pid: match &process {
                Some(process) => Some(process.pid()),
                None => pid.and_then(|pid| pid.try_into().ok()),
            },
            locator,
            process,
        })
    }

    /// How much of the cache is used, in bytes.
    pub(super) fn usable_size(&self) -> u64 {
        self.size.unwrap_or(UNLIMITED)
    }

    /// Checks that the process still runs.
    pub(super) fn check_alive(&mut self) -> CheckResult {
        let expected = "the plugin to stay alive";
        if let Some(process) = &mut self.process {
            return match process.try_wait() {
                Ok(None) => Ok(()),
                Ok(Some(status)) => {
                    Err(Violation::new(expected, format_args!("it ended: {status}")))
                }
                Err(error) => Err(Violation::new(expected, error)),
            };
        }
        let gone = self.pid.is_some_and(|pid| !usage::exists(pid));
        ensure(!gone, expected, "its process is gone")
    }

    pub(super) fn memory(&self) -> Option<Memory> {
        Memory::of(self.pid?)
    }

    /// How many descriptors it has open.
    pub(super) fn descriptors(&self) -> Option<usize> {
        usage::descriptors(self.pid?)
    }

    /// The end of its output.
    pub(super) fn log(&self) -> String {
        self.process.as_ref().map(PluginProcess::log).unwrap_or_default()
    }

    /// Terminates the plugin, if it was started here.
    pub(super) fn end(self) -> CheckResult {
        let Some(process) = self.process else { return Ok(()) };
        let expected = "the plugin to end with status 0 on SIGTERM";
        match process.end() {
            Ok(Some(status)) => {
                ensure(status.success(), expected, format_args!("it ended: {status}"))
            }
            Ok(None) => Err(Violation::new(expected, "it did not")),
            Err(error) => Err(Violation::new(expected, error)),
        }
    }
}
