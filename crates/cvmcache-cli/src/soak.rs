//! `cvmcache soak`: many clients, good and bad, against one plugin, which has to keep what it has
//! promised them.
//!
//! `run.rs` is the parent: it starts the plugin (`plugin.rs`), keeps clients running and kills
//! them, and looks at what is left in the end (`ending.rs`). Each client is a process of its own
//! (`client.rs`), since a client that is killed is a process that is killed. What it does is in
//! `behaviour.rs` and, as far as no client should, in `misbehaviour.rs`.

mod behaviour;
mod broken;
mod bystander;
mod client;
mod ending;
mod misbehaviour;
mod object;
mod plugin;
mod run;
mod summary;
mod tally;

use std::io::Write;
use std::time::Duration;

use clap::Args;
use cvmcache::Locator;

use crate::Verdict;
use crate::error::Result;
use crate::target::Target;

/// The name of the command by which the program starts itself as a client.
const CLIENT: &str = "soak-client";

const EXAMPLES: &str = "\
Examples:
  cvmcache soak --spawn './my-plugin {conf}'
  cvmcache soak --spawn ./my-plugin --set CVMFS_CACHE_PLUGIN_WORKERS=4 --seconds 300
  cvmcache soak unix=/run/cache.socket --evict --clients 10

Exit status:
  0  the plugin has kept all promises
  1  it has broken one, and the summary says what was expected and seen; or it
     cannot be started or reached
  2  wrong usage

A plugin that is started gets a size of 200 MB unless told otherwise. One that runs
already should have no other clients, and loses its objects.";

/// Let many client processes loose on a plugin, behaving well and badly, for a minute
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Soak {
    #[command(flatten)]
    target: Target,
    /// Run against a plugin that runs already, which loses its objects
    #[arg(long)]
    evict: bool,
    /// Client processes at a time
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// How long clients run
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    seconds: u64,
    /// How much memory the plugin may take beyond the size of the cache, in MiB
    #[arg(long, value_name = "N", default_value_t = 128)]
    slack_mb: u32,
    /// What chance begins with; the same seed has clients behave alike [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// What the program starts itself as
#[derive(Debug, Args)]
#[command(hide = true, after_help = "Examples: none, this is for the program itself")]
pub(crate) struct SoakClient {
    #[arg(long)]
    locator: Locator,
    /// The client's number; none is used again.
    #[arg(long)]
    number: u64,
    #[arg(long)]
    seed: u64,
    /// How many objects there are to ask for.
    #[arg(long)]
    objects: u64,
    /// The size of the cache, in bytes.
    #[arg(long)]
    size: u64,
    #[arg(long)]
    milliseconds: u64,
    /// Nobody kills this client, so that it can reload.
    #[arg(long)]
    spared: bool,
}

impl Soak {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let summary = run::run(self)?;
        write!(out, "{summary}")?;
        Ok(if summary.is_good() { Verdict::Good } else { Verdict::Bad })
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl SoakClient {
    pub(crate) fn run(self, _: &mut dyn Write) -> Result<Verdict> {
        Ok(if client::live_and_tell(&self) { Verdict::Good } else { Verdict::Bad })
    }
}
