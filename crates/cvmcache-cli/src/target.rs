//! The plugin under test: a running one, or one that the command starts.

use clap::Args;
use cvmcache::Locator;
use cvmcache_testkit::PluginCommand;
use thiserror::Error;

use crate::error;

/// The arguments name no plugin, or too many.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error(
        "which plugin? Name the locator of one that runs, as in unix=/path/to/socket or \
         tcp=host:port, or have one started with --spawn 'CMD {{conf}}'"
    )]
    NoTarget,
    #[error("--set and --tcp are for a plugin that is started: add --spawn CMD, or leave them out")]
    NothingToStart,
}

impl From<Error> for error::Error {
    fn from(error: Error) -> Self {
        Self::usage(error)
    }
}

/// The arguments that name a plugin under test.
#[derive(Debug, Default, Args)]
pub(crate) struct Target {
    /// Where a running plugin listens: unix=/path/to/socket or tcp=host:port
    #[arg(conflicts_with = "spawn")]
    locator: Option<Locator>,
    #[command(flatten)]
    start: Start,
}

/// The arguments for a plugin that the command starts.
#[derive(Debug, Default, Args)]
pub(crate) struct Start {
    /// Start the plugin with this command, in which {conf} stands for its configuration file
    #[arg(long, value_name = "CMD")]
    pub(crate) spawn: Option<PluginCommand>,
    /// A line of that configuration file; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = option)]
    set: Vec<(String, String)>,
    /// Have it listen on a loopback TCP port instead of a unix socket
    #[arg(long)]
    tcp: bool,
}

/// A plugin under test.
#[derive(Debug)]
pub(crate) enum Plugin {
    Running(Locator),
    ToStart(PluginCommand),
}

impl Target {
    /// The plugin, started with the options in `defaults` unless the command line sets them.
    pub(crate) fn plugin(self, defaults: &[(&str, &str)]) -> Result<Plugin, Error> {
        let Some(command) = &self.start.spawn else {
            self.start.check_unused()?;
            return self.locator.map(Plugin::Running).ok_or(Error::NoTarget);
        };
        Ok(Plugin::ToStart(self.start.configured(command, defaults)))
    }
}

impl Start {
    /// The command with the options in `defaults`, and those of the command line.
    pub(crate) fn configured(
        &self,
        command: &PluginCommand,
        defaults: &[(&str, &str)],
    ) -> PluginCommand {
        let mut command = command.clone();
        for (key, value) in defaults {
            command = command.option(*key, *value);
        }
        for (key, value) in &self.set {
            command = command.option(key, value);
        }
        if self.tcp { command.tcp() } else { command }
    }

    /// Refuses arguments that are for a plugin to be started.
    pub(crate) fn check_unused(&self) -> Result<(), Error> {
        if self.tcp || !self.set.is_empty() { Err(Error::NothingToStart) } else { Ok(()) }
    }
}

fn option(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        _ if text.contains('\n') => Err("more than one line: repeat --set for each"),
        Some(("CVMFS_CACHE_PLUGIN_LOCATOR", _)) => {
            Err("the plugin gets a place of its own to listen: leave it out, or take --tcp")
        }
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("not a line of a configuration file: write KEY=VALUE"),
    }
}
