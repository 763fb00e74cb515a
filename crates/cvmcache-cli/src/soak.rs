//! `cvmcache soak`: many clients, well-behaved and hostile, against one plugin.
//!
//! The test is the testkit's; the client processes that it needs are this program, started with
//! another command.

use std::env;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use cvmcache::Locator;
use cvmcache::client::ClientError;
use cvmcache_testkit::soak::{Soak as Test, SoakClient as Client, SoakError, SoakTarget, Summary};
use thiserror::Error;

use crate::Verdict;
use crate::error::{self, Result};
use crate::output::{BAD, GOOD, count};
use crate::target::{Plugin, Target};
use crate::unreachable::Unreachable;

/// The command by which the program starts itself as a client.
const CLIENT: &str = "soak-client";

/// More violations than these are not printed.
const SHOWN: usize = 10;

const EXAMPLES: &str = "\
Examples:
  cvmcache soak --spawn './my-plugin {conf}'
  cvmcache soak --spawn ./my-plugin --set CVMFS_CACHE_PLUGIN_WORKERS=4 --seconds 300
  cvmcache soak unix=/run/cache.socket --evict --clients 10

Exit status:
  0  there is no violation of the protocol
  1  there is one, and the summary has what was expected and seen; or the plugin
     cannot be started or reached
  2  wrong usage

With --spawn, the plugin gets a size of 200 MB unless --set changes it. A running
plugin should have no other clients, and loses its objects.";

/// Run many client processes against a plugin, well-behaved and hostile, and kill some of them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Soak {
    #[command(flatten)]
    target: Target,
    /// Run against a running plugin, which loses its objects
    #[arg(long)]
    evict: bool,
    /// Client processes at a time
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// How long clients run, in seconds
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    seconds: u64,
    /// How much memory the plugin may take beyond the size of the cache, in MiB
    #[arg(long, value_name = "N", default_value_t = 128)]
    slack_mb: u32,
    /// The seed of the random numbers; the same seed repeats what clients do [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// A client process
#[derive(Debug, Args)]
#[command(hide = true, after_help = "Examples: none, this is for the program itself")]
pub(crate) struct SoakClient {
    client: Client,
}

/// Why there is no soak test.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("{0} would lose its objects: add --evict if no client needs them")]
    WouldEvict(Locator),
    #[error(transparent)]
    Unreachable(Unreachable),
    #[error(transparent)]
    Soak(SoakError),
}

impl From<SoakError> for Error {
    fn from(error: SoakError) -> Self {
        match error {
            SoakError::Client { locator, source: source @ ClientError::Connect { .. }, .. } => {
                Self::Unreachable(Unreachable::new(locator, source))
            }
            error => Self::Soak(error),
        }
    }
}

impl From<Error> for error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::WouldEvict(_) => Self::usage(error),
            Error::Unreachable(_) | Error::Soak(_) => Self::failed(error),
        }
    }
}

impl Soak {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let target = match self.target.plugin(&[("CVMFS_CACHE_PLUGIN_SIZE", "200")])? {
            Plugin::Running(locator) if !self.evict => {
                return Err(Error::WouldEvict(locator).into());
            }
            Plugin::Running(locator) => SoakTarget::Running(locator),
            Plugin::ToStart(command) => SoakTarget::Command(command),
        };
        let mut test = Test::new()
            .clients(self.clients.into())
            .time(Duration::from_secs(self.seconds))
            .slack(u64::from(self.slack_mb) << 20);
        if let Some(seed) = self.seed {
            test = test.seed(seed);
        }
        let program = env::current_exe().map_err(error::Error::System)?;
        let client = |client: &Client| {
            let mut command = Command::new(&program);
            command.arg(CLIENT).arg(client.to_string());
            command
        };
        let summary = test.run(target, client).map_err(Error::from)?;
        print(out, &summary)?;
        Ok(if summary.violations.is_empty() { Verdict::Good } else { Verdict::Bad })
    }
}

impl SoakClient {
    pub(crate) fn run(self) -> Verdict {
        if self.client.run() { Verdict::Good } else { Verdict::Bad }
    }
}

fn print(out: &mut dyn Write, summary: &Summary) -> Result<()> {
    let Summary { seed, clients, killed, latencies, violations, log, .. } = summary;
    let seconds = summary.time.as_secs_f64();
    writeln!(out, "clients      {clients} in {seconds:.0} s, {killed} of them killed")?;
    let operations = summary.operations();
    let per_second = operations as f64 / seconds;
    writeln!(out, "operations   {}, {per_second:.0}/s", count(operations))?;
    for (what, number) in &summary.counts {
        writeln!(out, "  {what:<18} {:>15}", count(*number))?;
    }
    let [p50, p99, max] =
        [50, 99, 100].map(|percent| latencies.percentile(percent).as_secs_f64() * 1000.0);
    let pings = count(latencies.count() as u64);
    writeln!(out, "latency      {pings} pings: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")?;
    if let Some(memory) = summary.memory {
        let (peak, last) = (memory.peak_bytes >> 20, memory.resident_bytes >> 20);
        writeln!(out, "memory       {peak} MiB at most, {last} MiB in the end")?;
    }
    if let Some((first, last)) = summary.descriptors {
        writeln!(out, "descriptors  {first} in the beginning, {last} in the end")?;
    }
    for violation in violations.iter().take(SHOWN) {
        writeln!(out, "{BAD}VIOLATION{BAD:#}    {violation}")?;
    }
    if violations.len() > SHOWN {
        writeln!(out, "{BAD}VIOLATION{BAD:#}    and {} more", violations.len() - SHOWN)?;
    }
    if violations.is_empty() {
        writeln!(out, "{GOOD}no violations{GOOD:#} (seed {seed})")?;
        return Ok(());
    }
    if !log.is_empty() {
        writeln!(out, "the plugin's log ends with:\n{log}")?;
    }
    let plural = if violations.len() == 1 { "" } else { "s" };
    writeln!(out, "{} violation{plural}; repeat with --seed {seed}", violations.len())?;
    Ok(())
}
