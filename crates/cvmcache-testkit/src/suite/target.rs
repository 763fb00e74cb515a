//! The plugin under test: how it is reached, and whether it still runs.

use std::time::Duration;

use cvmcache::client::{Client, ClientError};
use cvmcache::{
    CachePlugin, Locator, RunningServer, Server, ServerBuilder, ServerError, ServerHandle,
};
use tempfile::TempDir;
use thiserror::Error;

use crate::process::Ended;
use crate::{PluginCommand, PluginProcess, StartError};

/// How many lines of a plugin's output a failure has.
const PRINTED: usize = 5;

/// What a [`Suite`](super::Suite) is run against: a plugin in this process, a [`PluginCommand`], or
/// the [`Locator`] of a plugin that runs already.
///
/// ```
/// use cvmcache_testkit::{PluginCommand, Target};
///
/// let command: PluginCommand = "/usr/libexec/cvmfs/cache/cvmfs_cache_ram".parse()?;
/// let started = Target::from(command);
/// let running = Target::from("unix=/run/cvmfs/cache.socket".parse::<cvmcache::Locator>()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Target(Source);

#[derive(Debug)]
enum Source {
    Running(Locator),
    Command(PluginCommand),
    Server(Box<ServerBuilder>),
}

/// Why a suite cannot be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// The plugin cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The plugin cannot be served.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The plugin does not let a client in.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No case has such a name.
    #[error("no case has {0:?} in its name")]
    NoSuchCase(String),
    /// Only cases that are not selected have such a name.
    #[error("only hostile cases have {0:?} in their name, and they have to be asked for")]
    OnlyHostile(String),
}

impl Target {
    /// A plugin in this process, served on a unix socket, with as many workers as it
    /// [requests](CachePlugin::workers).
    pub fn plugin(plugin: impl CachePlugin) -> Self {
        Self::server(Server::builder(plugin))
    }

    /// A plugin in this process, served by the builder on a unix socket in a temporary
    /// directory. It ends with the suite.
    pub fn server(builder: ServerBuilder) -> Self {
        Self(Source::Server(Box::new(builder)))
    }
}

/// A plugin that runs already, and may have other clients.
impl From<Locator> for Target {
    fn from(locator: Locator) -> Self {
        Self(Source::Running(locator))
    }
}

/// A plugin that is started, and started anew after a case that failed.
impl From<PluginCommand> for Target {
    fn from(command: PluginCommand) -> Self {
        Self(Source::Command(command))
    }
}

/// A target that serves.
#[derive(Debug)]
pub(super) struct Started {
    locator: Locator,
    served: Served,
}

#[derive(Debug)]
enum Served {
    Elsewhere,
    Process { command: PluginCommand, process: PluginProcess },
    Here { running: Option<RunningServer>, _directory: TempDir },
}

impl Started {
    pub(super) fn start(target: Target) -> Result<Self, SuiteError> {
        match target.0 {
            Source::Running(locator) => Ok(Self { locator, served: Served::Elsewhere }),
            Source::Command(command) => {
                let process = command.start()?;
                let locator = process.locator().clone();
                Ok(Self { locator, served: Served::Process { command, process } })
            }
            Source::Server(builder) => {
                let directory = tempfile::tempdir().map_err(ServerError::Io)?;
                let locator = Locator::Unix(directory.path().join("socket"));
                let running = builder.listen(&locator)?.spawn()?;
                let served = Served::Here { running: Some(running), _directory: directory };
                Ok(Self { locator, served })
            }
        }
    }

    pub(super) fn locator(&self) -> &Locator {
        &self.locator
    }

    /// True if no other client has objects in the cache.
    pub(super) fn is_ours(&self) -> bool {
        !matches!(self.served, Served::Elsewhere)
    }

    /// A handle to steer the server by, if it runs in this process.
    pub(super) fn handle(&self) -> Option<&ServerHandle> {
        match &self.served {
            Served::Here { running, .. } => running.as_ref().map(RunningServer::handle),
            _ => None,
        }
    }

    /// Whether clients can connect; if not, the reason.
    pub(super) fn check_alive(&mut self, timeout: Duration) -> Result<(), String> {
        let builder = Client::builder().name("test.cern.ch:alive").timeout(timeout);
        let error = match builder.connect(&self.locator).and_then(Client::quit) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if let Served::Process { process, .. } = &mut self.served
            && let Ok(Some(status)) = process.wait_for(Duration::from_secs(1))
        {
            let log = process.log();
            return Err(format!("the plugin {}; it has printed:\n{log}", Ended(status)));
        }
        Err(error.to_string())
    }

    /// The last lines that it has printed, if it was started.
    pub(super) fn printed(&self) -> Vec<String> {
        let Served::Process { process, .. } = &self.served else { return Vec::new() };
        let log = process.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(PRINTED)..].iter().map(ToString::to_string).collect()
    }

    /// Starts it anew, if it was started; true if it serves as a new one does.
    pub(super) fn restart(&mut self) -> Result<bool, StartError> {
        let Served::Process { command, process } = &mut self.served else { return Ok(false) };
        *process = command.start()?;
        self.locator = process.locator().clone();
        Ok(true)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Served::Here { running, .. } = &mut self.served
            && let Some(running) = running.take()
        {
            running.handle().terminate();
            // How it ends is not what the suite is about.
            let _ = running.wait();
        }
    }
}
