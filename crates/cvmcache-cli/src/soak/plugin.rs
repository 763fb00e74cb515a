//! The plugin's process: started here or found, and what the system knows about it.

use std::fs;
use std::path::PathBuf;

use cvmcache::Locator;
use cvmcache::client::Client;
use cvmcache_testkit::PluginProcess;

use super::broken::{Broken, Kept, ensure};
use super::client::TIMEOUT;
use crate::error::{Error, Result};
use crate::target;
use crate::usage::{self, Memory};

/// A plugin under test.
#[derive(Debug)]
pub(super) struct Plugin {
    pub(super) locator: Locator,
    /// The size of the cache in bytes, if it has a limit.
    pub(super) size: Option<u64>,
    /// `None` if it runs on another machine, for all we know.
    pid: Option<u32>,
    process: Option<PluginProcess>,
}

impl Plugin {
    /// Starts the plugin, or finds it.
    pub(super) fn new(plugin: target::Plugin) -> Result<Self> {
        let (locator, process) = match plugin {
            target::Plugin::Running(locator) => (locator, None),
            target::Plugin::ToStart(command) => {
                let process = command.start()?;
                (process.locator().clone(), Some(process))
            }
        };
        let about = |source| Error::Client { locator: locator.clone(), source };
        let builder = Client::builder().name("soak.cern.ch:first").timeout(TIMEOUT);
        let mut client = builder.connect(&locator).map_err(about)?;
        let size = client.info().map_err(|source| Error::While {
            locator: locator.clone(),
            doing: "asking how large the cache is".to_owned(),
            source,
        })?;
        let size = size.size_bytes;
        let pid = client.plugin_pid();
        client.quit().map_err(about)?;
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

    /// That the process is still there, and no other in its place.
    pub(super) fn check_alive(&mut self) -> Kept {
        let expected = "the plugin to stay alive";
        if let Some(process) = &mut self.process {
            return match process.try_wait() {
                Ok(None) => Ok(()),
                Ok(Some(status)) => Err(Broken::new(expected, format_args!("it ended: {status}"))),
                Err(error) => Err(Broken::new(expected, error)),
            };
        }
        let gone = self.pid.is_some_and(|pid| !proc(pid).exists());
        ensure(!gone, expected, "its process is gone")
    }

    /// How much memory it took at most, and takes now.
    pub(super) fn memory(&self) -> Option<Memory> {
        usage::memory(self.pid?)
    }

    /// How many descriptors it has open.
    pub(super) fn descriptors(&self) -> Option<usize> {
        fs::read_dir(proc(self.pid?).join("fd")).ok().map(Iterator::count)
    }

    /// The end of its log.
    pub(super) fn log(&self) -> String {
        self.process.as_ref().map(PluginProcess::log).unwrap_or_default()
    }

    /// Asks the plugin to end, if it was started here.
    pub(super) fn end(self) -> Kept {
        let Some(process) = self.process else { return Ok(()) };
        let expected = "the plugin to end with status 0 on SIGTERM";
        match process.end() {
            Ok(Some(status)) => {
                ensure(status.success(), expected, format_args!("it ended: {status}"))
            }
            Ok(None) => Err(Broken::new(expected, "it did not")),
            Err(error) => Err(Broken::new(expected, error)),
        }
    }
}

/// Where the system tells about a process.
fn proc(pid: u32) -> PathBuf {
    format!("/proc/{pid}").into()
}
