//! The results of a run: printed, plotted and written as JSON.

use serde::Serialize;

use super::cost::Cost;
use super::measure::{self, Latencies, Round};
use super::workload::Workload;
use crate::usage::Memory;

/// The results of all workloads.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) settings: Settings,
    pub(super) plugins: Vec<PluginSummary>,
    pub(super) workloads: Vec<Results>,
}

/// A plugin in the report.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PluginSummary {
    pub(super) name: String,
    pub(super) locator: String,
    /// Known only if it is on this machine.
    pub(super) pid: Option<u32>,
    /// Unknown if the plugin does not report it.
    pub(super) size_bytes: Option<u64>,
}

/// The settings of the run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Settings {
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) idle_connections: u64,
    pub(super) rounds: u32,
    pub(super) seconds_per_round: f64,
}

/// The results of a workload: of all candidates, and the ratios of the first to the others.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    pub(super) workload: Workload,
    pub(super) results: Vec<Result>,
    pub(super) ratios: Vec<Ratio>,
}

/// The result of a workload on one candidate.
#[derive(Debug, Serialize)]
pub(super) struct Result {
    pub(super) candidate: String,
    pub(super) ops: u64,
    /// These three are medians of the rounds.
    pub(super) ops_per_second: f64,
    pub(super) requests_per_second: f64,
    pub(super) bytes_per_second: f64,
    /// Of all rounds.
    pub(super) latency_ns: Percentiles,
    /// The fraction of operations that found their object, for `churn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hit_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) evicted_bytes: Option<u64>,
    pub(super) cpu_seconds_per_million_requests: Option<f64>,
    pub(super) memory: Option<Memory>,
    /// The peak of its memory, as a fraction of the size of the cache.
    pub(super) peak_per_size: Option<f64>,
    /// A pass over all files, for a mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pass: Option<Pass>,
    pub(super) rounds: Vec<RoundFigures>,
    #[serde(skip)]
    pub(super) latencies: Latencies,
}

/// A pass of a mount over all files: medians of the rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Pass {
    pub(super) files: u64,
    pub(super) requests: u64,
    pub(super) seconds: f64,
    /// Of the plugin; unknown if it is not on this machine.
    pub(super) cpu_seconds: Option<f64>,
    pub(super) context_switches: Option<u64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct RoundFigures {
    ops_per_second: f64,
    latency_ns: Percentiles,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: u64,
    pub(super) p99: u64,
    #[serde(rename = "p99.9")]
    pub(super) p999: u64,
    pub(super) max: u64,
}

/// The ratios of the first candidate to another.
#[derive(Debug, Serialize)]
pub(super) struct Ratio {
    pub(super) of: String,
    pub(super) to: String,
    pub(super) ops_per_second: Spread,
    pub(super) p50: Spread,
    pub(super) p99: Spread,
}

/// A ratio, pair by pair of neighbouring rounds.
#[derive(Debug, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) pairs: Vec<f64>,
}

impl Result {
    pub(super) fn of(candidate: &str, rounds: &[Round]) -> Self {
        let latencies = measure::merged(rounds);
        let ops: u64 = rounds.iter().map(|round| round.ops).sum();
        let median = |figure: fn(&Round) -> f64| measure::median(rounds.iter().map(figure));
        Self {
            candidate: candidate.to_owned(),
            ops,
            ops_per_second: median(|round| round.ops_per_second),
            requests_per_second: median(|round| round.requests_per_second),
            bytes_per_second: median(|round| round.bytes_per_second),
            latency_ns: Percentiles::of(&latencies),
            hit_ratio: None,
            evicted_bytes: None,
            cpu_seconds_per_million_requests: None,
            memory: None,
            peak_per_size: None,
            pass: None,
            rounds: rounds.iter().map(RoundFigures::of).collect(),
            latencies,
        }
    }
}

impl Pass {
    /// Each round is a pass; `None` if there are none.
    pub(super) fn of(rounds: &[Round], costs: &[Cost]) -> Option<Self> {
        let first = rounds.first()?;
        let seconds = rounds.iter().map(|round| round.ops as f64 / round.ops_per_second);
        let median = |figure: fn(&Cost) -> f64| {
            (!costs.is_empty()).then(|| measure::median(costs.iter().map(figure)))
        };
        let switches = median(|cost| cost.context_switches as f64);
        Some(Self {
            files: first.ops,
            requests: first.all_requests,
            seconds: measure::median(seconds),
            cpu_seconds: median(|cost| cost.cpu.as_secs_f64()),
            context_switches: switches.map(|switches| switches.round() as u64),
        })
    }
}

impl RoundFigures {
    fn of(round: &Round) -> Self {
        let ops_per_second = round.ops_per_second;
        Self { ops_per_second, latency_ns: Percentiles::of(&round.latencies) }
    }
}

impl Percentiles {
    fn of(latencies: &Latencies) -> Self {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|p| latencies.value_at_quantile(p));
        Self { p50, p99, p999, max: latencies.max() }
    }
}

impl Ratio {
    pub(super) fn of((of, a): (&str, &[Round]), (to, b): (&str, &[Round])) -> Self {
        let spread = |figure: &dyn Fn(&Round) -> f64| {
            Spread::of(a.iter().zip(b).map(|(a, b)| figure(a) / figure(b)).collect())
        };
        let latency = |p| spread(&|round: &Round| round.latencies.value_at_quantile(p) as f64);
        Self {
            of: of.to_owned(),
            to: to.to_owned(),
            ops_per_second: spread(&|round| round.ops_per_second),
            p50: latency(0.5),
            p99: latency(0.99),
        }
    }
}

impl Spread {
    pub(super) fn of(pairs: Vec<f64>) -> Self {
        // A round without operations has no ratio.
        let pairs: Vec<f64> = pairs.into_iter().filter(|ratio| ratio.is_finite()).collect();
        let median = measure::median(pairs.iter().copied());
        let min = pairs.iter().copied().reduce(f64::min).unwrap_or_default();
        let max = pairs.iter().copied().reduce(f64::max).unwrap_or_default();
        Self { median, min, max, pairs }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::measure::{Done, Samples};
    use super::*;

    /// A round with one operation of this latency in milliseconds.
    fn round(latency: u64) -> Round {
        let mut samples = Samples::default();
        let latency = Duration::from_millis(latency);
        samples.add(Done { bytes: 1, ..Done::default() }, latency, latency);
        Round::of(vec![samples])
    }

    #[test]
    fn ratios_are_those_of_neighbouring_rounds() {
        let (a, b) = ([1, 2, 9].map(round), [2, 4, 6].map(round));
        let ratio = Ratio::of(("a", &a), ("b", &b));
        let near = |x: f64, y: f64| assert!((x - y).abs() < 0.01, "{x} {y}");
        near(ratio.p50.median, 0.5);
        near(ratio.p50.max, 1.5);
        near(ratio.ops_per_second.median, 2.0);
        near(ratio.ops_per_second.min, 6.0 / 9.0);
    }

    #[test]
    fn a_round_without_operations_has_no_ratio() {
        let nothing = Round::of(Vec::new());
        let ratio = Ratio::of(("a", &[round(1), round(1)]), ("b", &[nothing, round(1)]));
        assert_eq!(ratio.ops_per_second.pairs, [1.0]);
    }

    #[test]
    fn rates_are_medians_of_rounds_and_percentiles_those_of_all() {
        let rounds = [1, 2, 4].map(round);
        let result = Result::of("a", &rounds);
        assert_eq!((result.ops, result.ops_per_second), (3, 500.0));
        assert_eq!(result.latency_ns.max / 1_000_000, 4);
    }
}
