//! What has come of it, to be read.

use std::fmt;
use std::time::Duration;

use super::bystander::Latencies;
use super::tally::{Counts, Line};
use crate::usage::Memory;

/// More broken promises than these do not tell more.
const SHOWN: usize = 10;

/// What has come of a run.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) seed: u64,
    pub(super) time: Duration,
    pub(super) clients: u64,
    pub(super) killed: u64,
    pub(super) counts: Counts,
    pub(super) latencies: Latencies,
    /// What the plugin took at most, and in the end.
    pub(super) memory: Option<Memory>,
    /// In the beginning and in the end.
    pub(super) descriptors: Option<(usize, usize)>,
    pub(super) broken: Vec<String>,
    /// The end of the plugin's log, if a promise was broken.
    pub(super) log: String,
}

impl Summary {
    pub(super) fn is_good(&self) -> bool {
        self.broken.is_empty()
    }

    /// Adds what a client says.
    pub(super) fn note(&mut self, line: Line) {
        match line {
            Line::Counts(counts) => {
                for (what, count) in counts {
                    *self.counts.entry(what).or_default() += count;
                }
            }
            Line::Broken(broken) => self.broken.push(broken),
        }
    }

    fn operations(&self) -> u64 {
        let counts =
            self.counts.iter().filter(|(what, _)| !matches!(&***what, "read-bytes" | "listed"));
        counts.map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64();
        writeln!(
            f,
            "clients      {} in {seconds:.0} s, {} of them killed",
            self.clients, self.killed
        )?;
        let operations = self.operations();
        writeln!(f, "operations   {operations}, {:.0} a second", operations as f64 / seconds)?;
        for (what, count) in &self.counts {
            writeln!(f, "  {what:<18} {count:>12}")?;
        }
        let latency = |percent| self.latencies.percentile(percent).as_secs_f64() * 1000.0;
        writeln!(
            f,
            "bystander    {} pings: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            self.latencies.count(),
            latency(50),
            latency(99),
            latency(100)
        )?;
        if let Some(memory) = self.memory {
            let (most, last) = (memory.peak_bytes >> 20, memory.resident_bytes >> 20);
            writeln!(f, "memory       {most} MiB at most, {last} MiB in the end")?;
        }
        if let Some((first, last)) = self.descriptors {
            writeln!(f, "descriptors  {first} in the beginning, {last} in the end")?;
        }
        for broken in self.broken.iter().take(SHOWN) {
            writeln!(f, "BROKEN       {broken}")?;
        }
        if self.broken.len() > SHOWN {
            writeln!(f, "BROKEN       and {} more", self.broken.len() - SHOWN)?;
        }
        if self.is_good() {
            return writeln!(f, "all promises were kept (seed {})", self.seed);
        }
        if !self.log.is_empty() {
            writeln!(f, "the plugin's log ends with:\n{}", self.log)?;
        }
        writeln!(f, "{} promises were broken; repeat with --seed {}", self.broken.len(), self.seed)
    }
}
