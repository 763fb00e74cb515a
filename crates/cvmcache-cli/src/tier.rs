//! `cvmcache tier`: what is in which tier of a tiered cache, and the jobs that move and verify it.
//!
//! `target` finds the plugin, running or stopped; `job` starts a job there, shows its `progress` and waits for its
//! end. Each subcommand has a file of its own; `period` are durations, `error` what all can fail with.

mod archive;
mod error;
mod gc;
mod job;
mod period;
mod progress;
mod rebuild;
mod recall;
mod scrub;
mod status;
mod target;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::Verdict;
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  cvmcache tier status --config /etc/cvmfs/cvmcache-tiered.conf
  cvmcache tier archive --older-than 30d --dry-run --config CONF
  cvmcache tier recall --all --config CONF

A plugin that runs is asked over its administration socket, as its user or
root. If none runs, this command opens its cache, as the plugin's user; clients
cannot start the plugin until it has ended.

Exit status:
  0  all is well
  1  objects failed or are lost, the job was stopped, or it could not be done
  2  the command line or the configuration was not understood";

/// Show and move what is in the tiers of a tiered cache: on this node, and in the object store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tier {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Status),
    Archive(archive::Archive),
    Recall(recall::Recall),
    Scrub(scrub::Scrub),
    Gc(gc::Gc),
    Rebuild(rebuild::Rebuild),
}

/// What all subcommands take.
#[derive(Debug, Args)]
struct Common {
    /// The configuration file of the plugin
    #[arg(long, value_name = "CONF")]
    config: PathBuf,
    /// How long to wait for an answer of a running plugin, in seconds
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Tier {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        match self.command {
            Command::Status(command) => command.run(out),
            Command::Archive(command) => command.run(out),
            Command::Recall(command) => command.run(out),
            Command::Scrub(command) => command.run(out),
            Command::Gc(command) => command.run(out),
            Command::Rebuild(command) => command.run(out),
        }
    }
}

impl Common {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}
