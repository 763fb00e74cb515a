//! A plugin to be tried out: one that runs already, or one to be started for the purpose.

use clap::Args;
use cvmcache::Locator;
use cvmcache_testkit::PluginCommand;

use crate::error::{Error, Result};

/// The arguments by which commands name such a plugin.
#[derive(Debug, Default, Args)]
pub(crate) struct Target {
    /// Where a plugin listens that runs already: unix=/path/to/socket or tcp=host:port
    #[arg(conflicts_with = "spawn")]
    locator: Option<Locator>,
    /// Start the plugin with this command, in which {conf} stands for its configuration file
    #[arg(long, value_name = "CMD")]
    spawn: Option<PluginCommand>,
    /// A line of that configuration file; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = option)]
    set: Vec<(String, String)>,
    /// Have it listen on a loopback TCP port instead of a unix socket
    #[arg(long)]
    tcp: bool,
}

/// Which of the two it is.
#[derive(Debug)]
pub(crate) enum Plugin {
    Running(Locator),
    ToStart(PluginCommand),
}

impl Target {
    /// The plugin, started with the options in `defaults` unless the command line sets them.
    pub(crate) fn plugin(self, defaults: &[(&str, &str)]) -> Result<Plugin> {
        let Some(mut command) = self.spawn else {
            if self.tcp || !self.set.is_empty() {
                return Err(Error::NothingToStart);
            }
            return self.locator.map(Plugin::Running).ok_or(Error::NoTarget);
        };
        for (key, value) in defaults {
            command = command.option(*key, *value);
        }
        for (key, value) in self.set {
            command = command.option(key, value);
        }
        Ok(Plugin::ToStart(if self.tcp { command.tcp() } else { command }))
    }
}

fn option(text: &str) -> std::result::Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("not a line of a configuration file: write KEY=VALUE"),
    }
}
