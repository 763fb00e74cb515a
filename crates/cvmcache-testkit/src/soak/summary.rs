//! The result of a soak test.

use std::collections::BTreeMap;
use std::time::Duration;

use super::counts::Line;
use super::latency::Latencies;
use crate::Memory;

/// What clients did, and what the plugin did wrong.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// The seed of the random numbers.
    pub seed: u64,
    /// How long clients ran.
    pub time: Duration,
    /// How many client processes ran.
    pub clients: u64,
    /// How many of them were killed.
    pub killed: u64,
    /// How often clients did what, by name.
    pub counts: BTreeMap<String, u64>,
    /// The latencies of a client that sent the smallest request, over and over.
    pub latencies: Latencies,
    /// The memory of the plugin in the end; `None` if it is not on this machine.
    pub memory: Option<Memory>,
    /// The open descriptors of the plugin, before the first client and after the last.
    pub descriptors: Option<(usize, usize)>,
    /// What was expected of the plugin, and what was seen instead.
    pub violations: Vec<String>,
    /// The end of the plugin's output, if there is a violation and it was started for the test.
    pub log: String,
}

impl Summary {
    /// How many operations clients did.
    pub fn operations(&self) -> u64 {
        let counts =
            self.counts.iter().filter(|(what, _)| !matches!(&***what, "read-bytes" | "listed"));
        counts.map(|(_, count)| count).sum()
    }

    /// Adds the report of a client.
    pub(super) fn add(&mut self, line: Line) {
        match line {
            Line::Counts(counts) => {
                for (what, count) in counts {
                    *self.counts.entry(what).or_default() += count;
                }
            }
            Line::Violation(violation) => self.violations.push(violation),
        }
    }
}
