//! `cvmcache check`: runs the conformance suite against a plugin.

mod document;
mod junit;
mod print;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use cvmcache_testkit::{Suite, SuiteError, Target as SuiteTarget};
use thiserror::Error;

use crate::Verdict;
use crate::error::{self, Result};
use crate::output::{self, ResultFile};
use crate::target::{Plugin, Target};
use crate::unreachable::Unreachable;

const EXAMPLES: &str = "\
Examples:
  cvmcache check --spawn './my-plugin {conf}'
  cvmcache check --spawn ./my-plugin --set CVMFS_CACHE_PLUGIN_SIZE=200 --hostile
  cvmcache check unix=/var/lib/cvmfs/cvmcache-ram.socket --filter read
  cvmcache check --list

With --spawn, the plugin gets a directory and a configuration file of its own, with a
size of 100 MB unless --set changes it, and is restarted after each case that fails. A
running plugin keeps objects of random names; cases that evict the objects of other
clients are skipped without --evict. With --hostile, a plugin with a mistake may crash,
and its mounts with it: rather start a second one with --spawn.

Exit status:
  0  the plugin passed all cases that apply
  1  it failed some, or cannot be reached
  2  wrong usage";

/// Check whether a plugin does what clients rely on
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Check {
    #[command(flatten)]
    target: Target,
    /// Also run the hostile cases: what no client should do must harm neither plugin nor clients
    #[arg(long)]
    hostile: bool,
    /// Only cases with this text in their name; may be repeated
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// List the cases instead of running them
    #[arg(long)]
    list: bool,
    /// Also run cases that need a running plugin's cache for themselves, and evict what is in it
    #[arg(long)]
    evict: bool,
    /// How long the plugin may be silent, in seconds
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// The seed of the random numbers, to repeat a run [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Also write the results to this file, as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why the suite is not run.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("{0}; cvmcache check --list has them all")]
    NoSuchCase(SuiteError),
    #[error("{0}: add --hostile")]
    OnlyHostile(SuiteError),
    #[error(transparent)]
    Suite(SuiteError),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

impl From<SuiteError> for Error {
    fn from(error: SuiteError) -> Self {
        match error {
            SuiteError::NoSuchCase(_) => Self::NoSuchCase(error),
            SuiteError::OnlyHostile(_) => Self::OnlyHostile(error),
            error => Self::Suite(error),
        }
    }
}

impl From<Error> for error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Suite(_) | Error::Unreachable(_) => Self::failed(error),
            _ => Self::usage(error),
        }
    }
}

impl Check {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let mut suite = Suite::new()
            .hostile(self.hostile)
            .may_evict(self.evict)
            .timeout(Duration::from_secs(self.timeout));
        for text in &self.filter {
            suite = suite.filter(text);
        }
        if let Some(seed) = self.seed {
            suite = suite.seed(seed);
        }
        if self.list {
            return self.list(out, &suite.hostile(true));
        }
        suite.check_filters().map_err(Error::from)?;
        let junit = self.junit.as_deref().map(ResultFile::create).transpose()?;
        let mut running = None;
        let (name, target) = match self.target.plugin(&[("CVMFS_CACHE_PLUGIN_SIZE", "100")])? {
            Plugin::Running(locator) => {
                running = Some(locator.clone());
                (locator.to_string(), SuiteTarget::from(locator))
            }
            Plugin::ToStart(command) => {
                (command.program().to_string_lossy().into_owned(), command.into())
            }
        };
        let begun = Instant::now();
        let mut printed = Ok(());
        let report = suite.run_with(target, |result| {
            if !self.json && printed.is_ok() {
                printed = print::result(out, result);
            }
        });
        let report = report.map_err(|error| -> Error {
            match (error, running) {
                (SuiteError::Client(error), Some(locator)) => {
                    Unreachable::new(locator, error).into()
                }
                (error, _) => Error::from(error),
            }
        })?;
        if let Some(file) = junit {
            junit::write(file, &name, &report)?;
        }
        printed?;
        if self.json {
            output::json(out, &document::Document::of(&name, &report))?;
        } else {
            print::summary(out, &report, begun.elapsed())?;
        }
        Ok(if report.is_good() { Verdict::Good } else { Verdict::Bad })
    }

    fn list(&self, out: &mut dyn Write, suite: &Suite) -> Result<Verdict> {
        suite.check_filters().map_err(Error::from)?;
        if self.json {
            let cases: Vec<_> = suite.cases().map(document::Description::of).collect();
            output::json(out, &cases)?;
        } else {
            print::list(out, suite)?;
        }
        Ok(Verdict::Good)
    }
}
