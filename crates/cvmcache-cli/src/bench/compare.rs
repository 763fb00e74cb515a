//! Measures candidates in interleaved rounds.
//!
//! The speed of a machine drifts over minutes, which paired rounds cancel out: the ratio of
//! neighbouring rounds says more than that of two sums.

use std::sync::Arc;
use std::time::Duration;

use super::contender::{Contender, Material, Prepared};
use super::driver::{Loops, Measurable};
use super::limit::{self, Actor, Echoed};
use super::measure::Round;
use super::progress::Progress;
use super::results::{Ratio, Result as Measured, Results, Spread};
use super::shape::Shape;
use super::workload::Workload;
use crate::error::{Error, Result};
use crate::usage;

/// The name of the baseline.
pub(super) const LIMIT: &str = "raw socket";

/// How often a workload whose requests differ in length is recorded.
const REHEARSALS: usize = 256;

/// The longest that connections are warmed up, before each round.
const WARM_UP: Duration = Duration::from_millis(500);

/// An arm of the comparison: a contender or the raw socket.
struct Arm<'a> {
    contender: Option<&'a Contender>,
    prepared: Option<Prepared>,
    limit: Option<Box<dyn Measurable>>,
    rounds: Vec<Round>,
    /// Of the plugin, while it was measured.
    cpu: Option<Duration>,
    used_before: Option<u64>,
}

/// Measures a workload with all contenders, and with a raw socket if `limit` is set.
pub(super) fn measure(
    workload: Workload,
    contenders: &[Contender],
    limit: bool,
    shape: &Shape,
    progress: &Progress,
) -> Result<Results> {
    let mut arms = Vec::new();
    let mut script = None;
    for contender in contenders {
        progress.say(&format!("{workload}: preparing {}", contender.summary.name));
        let fill = |part| {
            let (name, percent) = (&contender.summary.name, 100.0 * part);
            progress.say(&format!("{workload}: filling {name}, {percent:.0} %"));
        };
        let failed = |error| contender.failed(workload, error);
        let (mut prepared, material) = contender.prepare(workload, shape, &fill).map_err(failed)?;
        let used_before = contender.info(&mut prepared).map_err(failed)?.map(|i| i.used_bytes);
        script.get_or_insert(material);
        arms.push(Arm { used_before, ..Arm::new(Some(contender), Some(prepared), None) });
    }
    if let (true, Some(material), [first, ..]) = (limit, script, contenders) {
        let echo = echo(workload, &material, first, shape).map_err(Error::System)?;
        arms.push(Arm::new(None, None, Some(echo)));
    }
    for round in 1..=shape.rounds {
        for arm in &mut arms {
            progress.say(&format!("{workload}: {}, round {round} of {}", arm.name(), shape.rounds));
            arm.round(workload, shape)?;
            progress.advance();
        }
    }
    let results: Result<Vec<Measured>> = arms.iter_mut().map(|arm| arm.result(workload)).collect();
    let ratios = match &arms[..] {
        [first, others @ ..] => others.iter().map(|other| first.ratio(other, workload)).collect(),
        [] => Vec::new(),
    };
    for arm in arms {
        if let (Some(contender), Some(prepared)) = (arm.contender, arm.prepared) {
            prepared.finish().map_err(|error| contender.failed(workload, error))?;
        }
    }
    Ok(Results { workload, results: results?, ratios })
}

impl<'a> Arm<'a> {
    fn new(
        contender: Option<&'a Contender>,
        prepared: Option<Prepared>,
        limit: Option<Box<dyn Measurable>>,
    ) -> Self {
        let rounds = Vec::new();
        Self { contender, prepared, limit, rounds, cpu: None, used_before: None }
    }

    fn name(&self) -> &str {
        self.contender.map_or(LIMIT, |contender| &contender.summary.name)
    }

    fn round(&mut self, workload: Workload, shape: &Shape) -> Result<()> {
        let pid = self.contender.and_then(|contender| contender.summary.pid);
        let before = pid.and_then(usage::cpu);
        let warm_up = (shape.round / 10).min(WARM_UP);
        let loops = match (&mut self.prepared, &mut self.limit) {
            (Some(prepared), _) => &mut prepared.loops,
            (None, Some(limit)) => limit,
            (None, None) => return Ok(()),
        };
        let round = loops.round(warm_up, shape.round).map_err(|error| match self.contender {
            Some(contender) => contender.failed(workload, error).into(),
            None => Error::System(std::io::Error::other(error)),
        })?;
        self.rounds.push(round);
        if let (Some(before), Some(after)) = (before, pid.and_then(usage::cpu)) {
            *self.cpu.get_or_insert_default() += after.saturating_sub(before);
        }
        Ok(())
    }

    fn result(&mut self, workload: Workload) -> Result<Measured> {
        let mut result = Measured::of(self.name(), &self.rounds);
        let Some((contender, prepared)) = self.contender.zip(self.prepared.as_mut()) else {
            return Ok(result);
        };
        if workload == Workload::Churn {
            result.hit_ratio = Some(result.latencies.len() as f64 / result.ops.max(1) as f64);
        }
        let info = contender.info(prepared).map_err(|e| contender.failed(workload, e))?;
        if let (true, Some(before), Some(info)) = (workload.evicts(), self.used_before, info) {
            let stored: u64 = self.rounds.iter().map(|round| round.all_stored).sum();
            let kept = info.used_bytes.saturating_sub(before);
            result.evicted_bytes = Some(stored.saturating_sub(kept));
        }
        let requests: u64 = self.rounds.iter().map(|round| round.all_requests).sum();
        result.cpu_seconds_per_million_requests =
            self.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / requests.max(1) as f64);
        result.memory = contender.summary.pid.and_then(usage::memory);
        let ratio = |size: u64, peak: u64| peak as f64 / size.max(1) as f64;
        result.peak_per_size = contender
            .summary
            .size_bytes
            .zip(result.memory)
            .map(|(size, memory)| ratio(size, memory.peak_bytes));
        Ok(result)
    }

    fn ratio(&self, other: &Self, workload: Workload) -> Ratio {
        let mut ratio = Ratio::of((self.name(), &self.rounds), (other.name(), &other.rounds));
        // A raw socket has no misses, so only latencies of hits compare.
        if workload == Workload::Churn && other.contender.is_none() {
            ratio.ops_per_second = Spread::of(Vec::new());
        }
        ratio
    }
}

fn echo(
    workload: Workload,
    material: &Material,
    contender: &Contender,
    shape: &Shape,
) -> std::io::Result<Box<dyn Measurable>> {
    let times = match workload {
        Workload::Mixed | Workload::Churn => REHEARSALS,
        _ => 1,
    };
    let scripts: Arc<[_]> =
        limit::rehearse(material.task(), times).map_err(std::io::Error::other)?.into();
    let content: Arc<[u8]> = vec![7; material.hot_bytes()].into();
    let link = |_| {
        let actor = |_| Actor { scripts: Arc::clone(&scripts), script: 0, next: 0 };
        Ok((
            Echoed::start(&contender.locator, &content)?,
            (0..shape.in_flight).map(actor).collect::<Vec<_>>(),
        ))
    };
    let loops: std::io::Result<Vec<_>> = (0..shape.connections).map(link).collect();
    Ok(Box::new(Loops(loops?)))
}
