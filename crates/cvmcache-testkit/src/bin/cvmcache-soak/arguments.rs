//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use cvmcache::Locator;

const EXAMPLES: &str = "\
Examples:
  cvmcache-soak --plugin target/release/examples/ram
  cvmcache-soak --plugin ./my-plugin --workers 4 --size-mb 1000 --seconds 300
  cvmcache-soak --locator unix=/run/cache.socket --clients 10

Exit status:
  0  the plugin has kept all promises
  1  it has broken one; the summary says what was expected and seen
  2  wrong usage, or the plugin cannot be started or reached

The plugin is started with one argument, a configuration file that sets
CVMFS_CACHE_PLUGIN_LOCATOR, _SIZE and _WORKERS. A plugin that is running
already (--locator) should have no other clients, and loses its objects.";

/// Runs many client processes against a cache plugin, behaving well and badly, and checks what
/// the plugin has promised them.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) soak: Soak,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What the program starts itself as.
    #[command(hide = true)]
    Client(ClientArguments),
}

#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// The plugin to start: an executable that takes a configuration file
    #[arg(long, value_name = "PATH", required_unless_present = "locator")]
    pub(crate) plugin: Option<PathBuf>,
    /// Where a plugin listens already, as unix=/path or tcp=host:port
    #[arg(long, conflicts_with_all = ["plugin", "workers"])]
    pub(crate) locator: Option<Locator>,
    /// Size of the cache in MiB
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(100..=1 << 20))]
    pub(crate) size_mb: u64,
    /// Threads for callbacks
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1024))]
    pub(crate) workers: u16,
    /// Client processes at a time
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) clients: u16,
    /// How long clients run
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// How much memory the plugin may take beyond the size of the cache, in MiB
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) slack_mb: u64,
    /// What chance begins with; the same seed has clients behave alike [default: random]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct ClientArguments {
    #[arg(long)]
    pub(crate) locator: Locator,
    /// The client's number; none is used again.
    #[arg(long)]
    pub(crate) number: u64,
    #[arg(long)]
    pub(crate) seed: u64,
    /// How many objects there are to ask for.
    #[arg(long)]
    pub(crate) objects: u64,
    #[arg(long)]
    pub(crate) size_mb: u64,
    #[arg(long)]
    pub(crate) milliseconds: u64,
    /// Nobody kills this client, so that it can reload.
    #[arg(long)]
    pub(crate) spared: bool,
}

impl Soak {
    pub(crate) fn size(&self) -> u64 {
        self.size_mb << 20
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_plugin_or_a_locator_must_be_given_and_not_both() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("soak").is_err());
        assert!(parse("soak --plugin a --locator unix=/b").is_err());
        assert!(parse("soak --locator nowhere").is_err());
        assert_eq!(parse("soak --plugin a").unwrap().soak.size(), 200 * 1024 * 1024);
        assert!(parse("soak --locator unix=/b").is_ok());
    }
}
