//! `cvmcache bench`: measures and compares the throughput, latency and cost of plugins.
//!
//! `workload` has the operations to measure, `shape` the number of connections and objects. `tasks`
//! are the state machines of clients, `driver` is the closed loop that runs them, `mount` plays a
//! client with its threads and its work instead. `candidate` is a plugin with what a workload needs,
//! `limit` the baseline of a raw socket. `compare` interleaves rounds of all of them, `measure` has
//! their samples, `cost` what plugins spend, and `results` are what `report` prints and `plot` draws.

mod candidate;
mod compare;
mod cost;
mod driver;
mod error;
mod filling;
mod limit;
mod measure;
mod mount;
mod objects;
mod plot;
mod progress;
mod report;
mod results;
mod session;
mod shape;
mod size;
mod size_distribution;
mod tasks;
mod workload;

use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cvmcache::Locator;
use cvmcache_testkit::PluginCommand;

use crate::error::Result;
use crate::output::ResultFile;
use crate::target::{self, Plugin, Start};
use crate::{Verdict, output};
use candidate::Candidate;
use error::Error;
use progress::Progress;
use results::Report;
use shape::Shape;
use workload::Workload;

const USAGE: &str = "cvmcache bench [OPTIONS] <LOCATOR|--spawn <CMD>> [WORKLOAD]...";

const EXAMPLES: &str = "\
Examples:
  cvmcache bench unix=/var/lib/cvmfs/cvmcache-ram.socket
  cvmcache bench --spawn '/usr/libexec/cvmfs/cache/cvmcache-ram {conf}' --limit ping read
  cvmcache bench --spawn './mine {conf}' --vs-spawn './other {conf}' --plot compared.svg
  cvmcache bench --spawn './mine {conf}' --set CVMFS_CACHE_PLUGIN_SIZE=4000 \\
      --connections 3 --duration 30 churn
  cvmcache bench --spawn './mine {conf}' --vs-spawn './other {conf}' mount mount-4
  cvmcache bench --spawn './mine {conf}' --idle 900 --vs-no-idle ping
  cvmcache bench --spawn './mine {conf}' --objects 1000000 --object-size 64 stat
  cvmcache bench --list

A running plugin may serve other clients meanwhile. stat, read, mixed and mount store objects of their
own, up to an eighth of the cache, which are evicted in time; store and churn fill the cache, and
are refused without --evict. A plugin that is started has a cache of 1000 MB, unless
--set CVMFS_CACHE_PLUGIN_SIZE=MB changes it.";

/// The configuration of a plugin that is started.
const DEFAULTS: [(&str, &str); 1] = [("CVMFS_CACHE_PLUGIN_SIZE", "1000")];

/// Measure throughput, latency, CPU time and memory of plugins, and compare them
#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = EXAMPLES)]
pub(crate) struct Bench {
    /// Where the plugin listens, unless it is to be started, and the workloads
    ///
    /// As workloads, ping, stat, read, store and mixed are measured if none is named; store only
    /// where evicting is allowed.
    #[arg(value_name = "LOCATOR|WORKLOAD")]
    what: Vec<Positional>,
    #[command(flatten)]
    start: Start,
    /// Compare with the plugin that listens there
    #[arg(long, value_name = "LOCATOR", conflicts_with = "vs_spawn")]
    vs: Option<Locator>,
    /// Compare with a plugin that is started with this command, and configured alike
    #[arg(long, value_name = "CMD")]
    vs_spawn: Option<PluginCommand>,
    /// Compare with the plugin started once more, without the idle sessions
    #[arg(long, requires = "spawn", requires = "idle", conflicts_with_all = ["vs", "vs_spawn"])]
    vs_no_idle: bool,
    /// Compare with a raw socket that carries the same bytes
    #[arg(long)]
    limit: bool,
    /// Sessions that work at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    connections: usize,
    /// Requests in flight on each of them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    in_flight: usize,
    /// Idle sessions besides
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: u64,
    /// How many objects stat and read use: they are stored first, and closed; by default 16 that
    /// are kept open
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    objects: Option<u64>,
    /// How large objects are, as in 128K or 4MiB; for stat, read, store and churn
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    object_size: Option<u64>,
    /// How many times as large as the cache the working set of churn is
    #[arg(long, value_name = "FACTOR", default_value_t = 2.0, value_parser = factor)]
    working_set: f64,
    /// How long to measure each workload on each plugin, in all rounds
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    duration: Duration,
    /// Rounds, in which the plugins take turns
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Let store and churn evict the objects of other clients from a running plugin
    #[arg(long)]
    evict: bool,
    /// Draw latencies and throughput
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// List the workloads
    #[arg(long)]
    list: bool,
}

/// A plugin or a workload; names of workloads have no `=`.
#[derive(Debug, Clone)]
enum Positional {
    Locator(Locator),
    Workload(Workload),
}

impl Bench {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        if self.list {
            report::list(out, self.json)?;
            return Ok(Verdict::Good);
        }
        let shape = self.shape();
        let (locator, named) = self.positionals()?;
        let plugins = self.plugins(locator)?;
        let all_ours = plugins.iter().all(|plugin| matches!(plugin, Plugin::ToStart(_)));
        if let Some(workload) = named.iter().find(|w| w.evicts() && !all_ours && !self.evict) {
            return Err(Error::WouldEvict(workload.name()).into());
        }
        let connections = shape.connections as u64 * if self.limit { 3 } else { 1 };
        let descriptors =
            connections.saturating_add(shape.idle).saturating_mul(plugins.len() as u64);
        session::allow_descriptors(descriptors)?;
        let plot_file = self.plot.as_deref().map(ResultFile::create).transpose()?;
        let idle = [self.idle, if self.vs_no_idle { 0 } else { self.idle }];
        let start = |(plugin, idle)| Candidate::start(plugin, idle);
        let candidates: Result<Vec<Candidate>> = plugins.into_iter().zip(idle).map(start).collect();
        let mut candidates = candidates?;
        make_names_distinct(
            &mut candidates,
            if self.vs_no_idle { " without idle" } else { " (2)" },
        );
        let (workloads, mut notes) = choose(named, self.evict, &candidates);
        let without_limit = workloads.iter().filter(|w| self.limit && w.mount_threads().is_some());
        notes.extend(without_limit.map(|w| format!("{w} is measured without a raw socket")));
        for workload in &workloads {
            candidates.iter().try_for_each(|candidate| candidate.check(*workload, &shape))?;
        }
        let series = candidates.len() + usize::from(self.limit);
        let progress =
            Progress::new(workloads.len() as u64 * series as u64 * u64::from(shape.rounds));
        let measure = |workload: &Workload| {
            compare::measure(*workload, &candidates, self.limit, &shape, &progress)
        };
        let measured: Result<Vec<_>> = workloads.iter().map(measure).collect();
        drop(progress);
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            settings: shape.settings(),
            plugins: candidates.iter().map(|candidate| candidate.summary.clone()).collect(),
            workloads: measured?,
        };
        if let Some(plot_file) = plot_file {
            plot::draw(plot_file, &report)?;
        }
        if self.json {
            output::json(out, &report)?;
        } else {
            report::print(out, &report, &notes)?;
        }
        Ok(Verdict::Good)
    }

    fn shape(&self) -> Shape {
        Shape {
            connections: self.connections,
            in_flight: self.in_flight,
            idle: self.idle,
            objects: self.objects,
            object_size: self.object_size,
            working_set: self.working_set,
            rounds: self.rounds,
            round: self.duration / self.rounds,
        }
    }

    fn positionals(&self) -> Result<(Option<Locator>, Vec<Workload>)> {
        let (mut locator, mut workloads) = (None, Vec::new());
        for word in &self.what {
            match word {
                Positional::Locator(new) if locator.is_none() => locator = Some(new.clone()),
                Positional::Locator(_) => {
                    return Err(Error::TwoLocators.into());
                }
                Positional::Workload(workload) if workloads.contains(workload) => {}
                Positional::Workload(workload) => workloads.push(*workload),
            }
        }
        Ok((locator, workloads))
    }

    /// The plugin, and the one to compare with.
    fn plugins(&self, locator: Option<Locator>) -> Result<Vec<Plugin>> {
        let start = |command| Plugin::ToStart(self.start.configured(command, &DEFAULTS));
        let first = match (&self.start.spawn, locator) {
            (Some(_), Some(_)) => return Err(Error::LocatorAndSpawn.into()),
            (Some(command), None) => start(command),
            (None, Some(locator)) => Plugin::Running(locator),
            (None, None) => return Err(target::Error::NoTarget.into()),
        };
        if self.start.spawn.is_none() && self.vs_spawn.is_none() {
            self.start.check_unused()?;
        }
        let again = self.start.spawn.as_ref().filter(|_| self.vs_no_idle);
        let command = self.vs_spawn.as_ref().or(again);
        let second = self.vs.clone().map(Plugin::Running).or(command.map(start));
        Ok([Some(first), second].into_iter().flatten().collect())
    }
}

/// The workloads to measure: those that were named, or the default ones for which all plugins have
/// the capabilities; and notes about those that are left out.
fn choose(
    named: Vec<Workload>,
    evict: bool,
    candidates: &[Candidate],
) -> (Vec<Workload>, Vec<String>) {
    if !named.is_empty() {
        return (named, Vec::new());
    }
    let may_evict = evict || candidates.iter().all(Candidate::is_ours);
    let (mut workloads, mut skipped) = (Vec::new(), Vec::new());
    for workload in Workload::usual(may_evict) {
        let lacking = |c: &Candidate| Some((c.summary.name.clone(), c.lacks(workload)?));
        match candidates.iter().find_map(lacking) {
            Some((plugin, lacking)) => {
                skipped.push(format!("{workload} was left out: {plugin} cannot do {lacking}"));
            }
            None => workloads.push(workload),
        }
    }
    (workloads, skipped)
}

/// Adds a suffix to the second of two equal names.
fn make_names_distinct(candidates: &mut [Candidate], suffix: &str) {
    if let [first, second] = candidates
        && first.summary.name == second.summary.name
    {
        second.summary.name += suffix;
    }
}

impl FromStr for Positional {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('=') {
            return text
                .parse()
                .map(Self::Locator)
                .map_err(|error: cvmcache::LocatorError| error.to_string());
        }
        Workload::from_str(text, true).map(Self::Workload).map_err(|_| {
            let names: Vec<_> = Workload::value_variants().iter().map(|w| w.name()).collect();
            format!(
                "neither a locator, as in unix=/path/to/socket, nor a workload: {}",
                names.join(", ")
            )
        })
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("nothing would be done: write 1 or more".to_owned()),
        Ok(number) if number <= 10_000 => Ok(number),
        _ => Err("not a number from 1 to 10000".to_owned()),
    }
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(factor) if (0.1..=1000.0).contains(&factor) => Ok(factor),
        _ => Err("write a number from 0.1 to 1000".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("write seconds, from 0.01 to 86400".to_owned()),
    }
}
