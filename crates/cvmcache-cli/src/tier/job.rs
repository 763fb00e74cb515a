//! A job of the tier: started, watched, stopped by a signal, and reported.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use cvmcache::admin::Arguments;
use cvmcache_tier::command::JOB;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Common;
use super::error::Error;
use super::progress::Progress;
use super::target::Target;
use crate::Verdict;
use crate::error;
use crate::interrupt;
use crate::output::{self, BAD};

/// How far a job is, or what came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) job: String,
    #[serde(skip_serializing)]
    number: u64,
    #[serde(skip_serializing)]
    pub(super) running: bool,
    pub(super) looked_at: u64,
    pub(super) done: u64,
    pub(super) bytes: u64,
    pub(super) skipped: u64,
    pub(super) failed: u64,
    pub(super) failures: Vec<String>,
    pub(super) stopped: bool,
    pub(super) error: Option<String>,
}

/// What a command wants of the tier: the same for each batch of arguments, one after another.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) command: &'static str,
    pub(super) batches: Vec<Arguments>,
    /// How many objects it is about, if that is known.
    pub(super) total: Option<u64>,
}

/// Short jobs are not held up, and long ones cost nothing.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(300));

/// More failures than these are not printed.
const SHOWN: usize = 20;

impl Plan {
    pub(super) fn once(command: &'static str, arguments: Value, total: Option<u64>) -> Self {
        Self { command, batches: vec![to_arguments(arguments)], total }
    }

    /// Has the tier do it. A signal stops the job, and a second one ends this program.
    pub(super) fn run(self, target: &Target) -> Result<Job, error::Error> {
        let is_interrupted = interrupt::requested().map_err(error::Error::System)?;
        let mut progress = Progress::new(self.total);
        let mut sum = Job::default();
        for arguments in self.batches {
            let started = start(target, self.command, arguments)?;
            let mut pause = POLL.0;
            let mut is_told = false;
            let ended = loop {
                let job = poll(target, &started, is_told)?;
                progress.show(&sum.plus(&job));
                if !job.running {
                    break job;
                }
                if is_interrupted.load(Ordering::Relaxed) && !is_told {
                    progress.note(
                        "stopping after what is under way; once more ends this command at once",
                    );
                    is_told = true;
                    continue;
                }
                thread::sleep(pause);
                pause = (pause * 3 / 2).min(POLL.1);
            };
            sum = sum.plus(&ended);
            if sum.stopped || sum.error.is_some() {
                break;
            }
        }
        Ok(sum)
    }
}

impl Job {
    /// Of two batches, what came of both.
    fn plus(&self, next: &Self) -> Self {
        let mut failures = self.failures.clone();
        failures.extend(next.failures.iter().take(SHOWN.saturating_sub(failures.len())).cloned());
        Self {
            looked_at: self.looked_at + next.looked_at,
            done: self.done + next.done,
            bytes: self.bytes + next.bytes,
            skipped: self.skipped + next.skipped,
            failed: self.failed + next.failed,
            failures,
            ..next.clone()
        }
    }

    /// Prints what came of it: `done` is what was done to objects, as in `archived`.
    pub(super) fn report(
        &self,
        out: &mut dyn Write,
        common: &Common,
        done: &str,
    ) -> Result<Verdict, error::Error> {
        for failure in &self.failures {
            output::note(&output::escaped(failure));
        }
        if self.failed > self.failures.len() as u64 {
            output::note(&format!("and {} more", self.failed - self.failures.len() as u64));
        }
        if let Some(error) = &self.error {
            output::note(&format!("{BAD}{} ended: {}{BAD:#}", self.job, output::escaped(error)));
        }
        if self.stopped {
            output::note(&format!(
                "{} was stopped: the same command goes on with the rest",
                self.job
            ));
        }
        if common.json {
            output::json(out, self)?;
        } else {
            let skipped = match self.skipped {
                0 => String::new(),
                skipped => format!(", {} left as they are", output::count(skipped)),
            };
            let failed = match self.failed {
                0 => String::new(),
                failed => format!(", {BAD}{} failed{BAD:#}", output::count(failed)),
            };
            let (objects, bytes) = (output::count(self.done), output::bytes(self.bytes));
            let plural = if self.done == 1 { "object" } else { "objects" };
            writeln!(out, "{done} {objects} {plural}, {bytes}{skipped}{failed}")?;
        }
        let is_good = self.failed == 0 && self.error.is_none() && !self.stopped;
        Ok(if is_good { Verdict::Good } else { Verdict::Bad })
    }
}

fn start(target: &Target, command: &str, arguments: Arguments) -> Result<Job, Error> {
    target.ask(command, arguments).map_err(|error| {
        let running = target.ask::<Option<Job>>(JOB, Arguments::new()).ok().flatten();
        match running.is_some_and(|job| job.running) {
            true => Error::Busy(Box::new(error)),
            false => error,
        }
    })
}

/// How far a job is; it is stopped first if that is wanted.
fn poll(target: &Target, started: &Job, stop: bool) -> Result<Job, Error> {
    let ask = |arguments| {
        let job = target.ask::<Option<Job>>(JOB, arguments);
        let job = job.map_err(|error| Error::Lost { source: Box::new(error) })?;
        let job = job.ok_or_else(|| Error::Forgotten(started.job.clone()))?;
        match job.number == started.number && job.job == started.job {
            true => Ok(job),
            false => Err(Error::Replaced(started.job.clone())),
        }
    };
    let job = ask(Arguments::new())?;
    if stop && job.running { ask(to_arguments(json!({"stop": true}))) } else { Ok(job) }
}

/// The arguments of a command, written as an object.
pub(super) fn to_arguments(value: Value) -> Arguments {
    match value {
        Value::Object(arguments) => arguments,
        _ => Arguments::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(done: u64, failures: &[&str]) -> Job {
        let failures: Vec<_> = failures.iter().map(|&text| text.to_owned()).collect();
        Job { done, failed: failures.len() as u64, failures, ..Job::default() }
    }

    #[test]
    fn batches_are_reported_together() {
        let sum = job(1, &["a"]).plus(&Job { stopped: true, ..job(2, &["b"; 30]) });
        assert_eq!((sum.done, sum.failed, sum.failures.len()), (3, 31, SHOWN));
        assert!(sum.stopped);
    }
}
