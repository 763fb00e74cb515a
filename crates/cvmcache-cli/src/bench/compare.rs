//! Measures candidates in interleaved rounds.
//!
//! The speed of a machine drifts over minutes, which paired rounds cancel out: the ratio of
//! neighbouring rounds says more than that of two sums.

use std::sync::Arc;
use std::time::Duration;

use super::candidate::{Candidate, Dataset, Prepared};
use super::cost::Cost;
use super::driver::{Loops, Measurable};
use super::limit::{self, EchoLink, Replay};
use super::measure::Round;
use super::progress::Progress;
use super::results::{Pass, Ratio, Result as Measured, Results, Spread};
use super::shape::Shape;
use super::workload::Workload;
use crate::error::{Error, Result};
use crate::usage;

/// The name of the baseline.
pub(super) const LIMIT: &str = "raw socket";

/// How many operations are recorded of a workload whose requests differ in length.
const RECORDINGS: usize = 256;

/// The longest that connections are warmed up, before each round.
const WARM_UP: Duration = Duration::from_millis(500);

/// The rounds of a candidate or of the raw socket.
struct Series<'a> {
    candidate: Option<&'a Candidate>,
    prepared: Option<Prepared>,
    limit: Option<Box<dyn Measurable>>,
    rounds: Vec<Round>,
    /// What the plugin has spent in each of them, if that is known.
    costs: Vec<Cost>,
    used_before: Option<u64>,
}

/// Measures a workload with all candidates, and with a raw socket if `limit` is set.
pub(super) fn measure(
    workload: Workload,
    candidates: &[Candidate],
    limit: bool,
    shape: &Shape,
    progress: &Progress,
) -> Result<Results> {
    let mut all_series = Vec::new();
    let mut first_dataset = None;
    for candidate in candidates {
        progress.show(&format!("{workload}: preparing {}", candidate.summary.name));
        let fill = |part| {
            let (name, percent) = (&candidate.summary.name, 100.0 * part);
            progress.show(&format!("{workload}: filling {name}, {percent:.0} %"));
        };
        let failed = |error| candidate.failed(workload, error);
        let (mut prepared, dataset) = candidate.prepare(workload, shape, &fill).map_err(failed)?;
        let used_before = candidate.info(&mut prepared).map_err(failed)?.map(|i| i.used_bytes);
        first_dataset.get_or_insert(dataset);
        all_series
            .push(Series { used_before, ..Series::new(Some(candidate), Some(prepared), None) });
    }
    if let (true, Some(dataset), [first, ..]) = (limit, first_dataset, candidates) {
        let echo = echo(workload, &dataset, first, shape).map_err(Error::System)?;
        all_series.extend(echo.map(|echo| Series::new(None, None, Some(echo))));
    }
    for round in 1..=shape.rounds {
        for series in &mut all_series {
            progress.show(&format!(
                "{workload}: {}, round {round} of {}",
                series.name(),
                shape.rounds
            ));
            series.round(workload, shape)?;
            progress.advance();
        }
    }
    let results: Result<Vec<Measured>> =
        all_series.iter_mut().map(|series| series.result(workload)).collect();
    let ratios = match &all_series[..] {
        [first, others @ ..] => others.iter().map(|other| first.ratio(other, workload)).collect(),
        [] => Vec::new(),
    };
    for series in all_series {
        if let (Some(candidate), Some(prepared)) = (series.candidate, series.prepared) {
            prepared.finish().map_err(|error| candidate.failed(workload, error))?;
        }
    }
    Ok(Results { workload, results: results?, ratios })
}

impl<'a> Series<'a> {
    fn new(
        candidate: Option<&'a Candidate>,
        prepared: Option<Prepared>,
        limit: Option<Box<dyn Measurable>>,
    ) -> Self {
        let (rounds, costs) = (Vec::new(), Vec::new());
        Self { candidate, prepared, limit, rounds, costs, used_before: None }
    }

    fn name(&self) -> &str {
        self.candidate.map_or(LIMIT, |candidate| &candidate.summary.name)
    }

    fn round(&mut self, workload: Workload, shape: &Shape) -> Result<()> {
        let pid = self.candidate.and_then(|candidate| candidate.summary.pid);
        let before = pid.and_then(Cost::of);
        let warm_up = (shape.round / 10).min(WARM_UP);
        let loops = match (&mut self.prepared, &mut self.limit) {
            (Some(prepared), _) => &mut prepared.loops,
            (None, Some(limit)) => limit,
            (None, None) => return Ok(()),
        };
        let round = loops.round(warm_up, shape.round).map_err(|error| match self.candidate {
            Some(candidate) => candidate.failed(workload, error).into(),
            None => Error::System(std::io::Error::other(error)),
        })?;
        self.rounds.push(round);
        let after = pid.and_then(Cost::of);
        self.costs.extend(before.zip(after).map(|(before, after)| after.since(before)));
        Ok(())
    }

    fn result(&mut self, workload: Workload) -> Result<Measured> {
        let mut result = Measured::of(self.name(), &self.rounds);
        let Some((candidate, prepared)) = self.candidate.zip(self.prepared.as_mut()) else {
            return Ok(result);
        };
        if workload == Workload::Churn {
            result.hit_ratio = Some(result.latencies.len() as f64 / result.ops.max(1) as f64);
        }
        let info = candidate.info(prepared).map_err(|e| candidate.failed(workload, e))?;
        if let (true, Some(before), Some(info)) = (workload.evicts(), self.used_before, info) {
            let stored: u64 = self.rounds.iter().map(|round| round.all_stored).sum();
            let kept = info.used_bytes.saturating_sub(before);
            result.evicted_bytes = Some(stored.saturating_sub(kept));
        }
        let requests: u64 = self.rounds.iter().map(|round| round.all_requests).sum();
        if !self.costs.is_empty() {
            let cpu: Duration = self.costs.iter().map(|cost| cost.cpu).sum();
            let per_request = cpu.as_secs_f64() / requests.max(1) as f64;
            result.cpu_seconds_per_million_requests = Some(per_request * 1e6);
        }
        result.pass = workload.mount_threads().and_then(|_| Pass::of(&self.rounds, &self.costs));
        result.memory = candidate.summary.pid.and_then(usage::memory);
        let ratio = |size: u64, peak: u64| peak as f64 / size.max(1) as f64;
        result.peak_per_size = candidate
            .summary
            .size_bytes
            .zip(result.memory)
            .map(|(size, memory)| ratio(size, memory.peak_bytes));
        Ok(result)
    }

    fn ratio(&self, other: &Self, workload: Workload) -> Ratio {
        let mut ratio = Ratio::of((self.name(), &self.rounds), (other.name(), &other.rounds));
        // A raw socket has no misses, so only latencies of hits compare.
        if workload == Workload::Churn && other.candidate.is_none() {
            ratio.ops_per_second = Spread::of(Vec::new());
        }
        ratio
    }
}

/// A raw socket that carries as many bytes; `None` for a mount, as that would have no plugin to wait for.
fn echo(
    workload: Workload,
    dataset: &Dataset,
    candidate: &Candidate,
    shape: &Shape,
) -> std::io::Result<Option<Box<dyn Measurable>>> {
    let Some(task) = dataset.task() else { return Ok(None) };
    let times = match workload {
        Workload::Mixed | Workload::Churn => RECORDINGS,
        _ => 1,
    };
    let scripts: Arc<[_]> = limit::record(task, times).map_err(std::io::Error::other)?.into();
    let content: Arc<[u8]> = vec![7; dataset.hot_bytes()].into();
    let link = |_| {
        let replay = |_| Replay { scripts: Arc::clone(&scripts), script: 0, next: 0 };
        Ok((
            EchoLink::start(&candidate.locator, &content)?,
            (0..shape.in_flight).map(replay).collect::<Vec<_>>(),
        ))
    };
    let loops: std::io::Result<Vec<_>> = (0..shape.connections).map(link).collect();
    Ok(Some(Box::new(Loops(loops?))))
}
