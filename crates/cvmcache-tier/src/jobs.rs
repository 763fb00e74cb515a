//! Jobs: what an administrator has the tier do that takes longer than an answer. One runs at a time; others ask
//! how far it is.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use cvmcache::admin::{CommandError, Value};
use cvmcache::threads;
use parking_lot::Mutex;
use serde_json::{Map, json};

use crate::hot::Scrubbed;

/// How far a job is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    looked_at: AtomicU64,
    done: AtomicU64,
    bytes: AtomicU64,
    /// Objects that rightly stay as they are.
    skipped: AtomicU64,
    failed: AtomicU64,
    /// The first of them, with their reasons.
    failures: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// The job that runs, or the last one.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    state: Mutex<Option<Job>>,
}

#[derive(Debug)]
struct Job {
    /// Tells it from others of its kind.
    number: u64,
    kind: &'static str,
    progress: Arc<Progress>,
    /// What came of it.
    end: Arc<Mutex<Option<Result<(), String>>>>,
    thread: Option<JoinHandle<()>>,
}

const MAX_FAILURES: usize = 20;

impl Jobs {
    /// Starts a job on a thread of its own.
    ///
    /// # Errors
    ///
    /// If one runs, or there is no thread to spare.
    pub(crate) fn start(
        &self,
        kind: &'static str,
        work: impl FnOnce(&Progress) -> Result<(), String> + Send + 'static,
    ) -> Result<Value, CommandError> {
        let mut state = self.state.lock();
        if let Some(job) = &*state
            && job.end.lock().is_none()
        {
            let kind = job.kind;
            let text = format!("{kind} is running: wait until it has ended, or stop it");
            return Err(CommandError::Failed(text));
        }
        let progress = Arc::new(Progress::default());
        let end = Arc::new(Mutex::new(None));
        let thread = {
            let (progress, end) = (Arc::clone(&progress), Ended(Arc::clone(&end)));
            threads::spawn(kind, move || {
                let result = work(&progress);
                *end.0.lock() = Some(result);
            })
        };
        let thread = thread.map_err(|error| CommandError::Failed(error.to_string()))?;
        let number = state.as_ref().map_or(1, |last| last.number + 1);
        let job = Job { number, kind, progress, end, thread: Some(thread) };
        let answer = job.to_json();
        *state = Some(job);
        Ok(answer)
    }

    /// How far the job is, or what came of the last one; null without any.
    pub(crate) fn to_json(&self) -> Value {
        self.state.lock().as_ref().map_or(Value::Null, Job::to_json)
    }

    /// Has the job that runs end soon.
    pub(crate) fn stop(&self) {
        if let Some(job) = &*self.state.lock()
            && job.end.lock().is_none()
        {
            job.progress.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the job, and waits for that.
    pub(crate) fn end(&self) {
        self.stop();
        let thread = self.state.lock().as_mut().and_then(|job| job.thread.take());
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a job has panicked");
        }
    }
}

/// The end of a job, also if it panics.
struct Ended(Arc<Mutex<Option<Result<(), String>>>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.lock().get_or_insert_with(|| Err("it has panicked: see the log".to_owned()));
    }
}

impl Job {
    fn to_json(&self) -> Value {
        let mut job = self.progress.to_json();
        job.insert("job".to_owned(), self.kind.into());
        job.insert("number".to_owned(), self.number.into());
        job.insert("stopped".to_owned(), self.progress.is_stopped().into());
        let end = self.end.lock();
        job.insert("running".to_owned(), end.is_none().into());
        if let Some(Err(error)) = &*end {
            job.insert("error".to_owned(), error.as_str().into());
        }
        Value::Object(job)
    }
}

impl Progress {
    /// One more object is done, of so many bytes.
    pub(crate) fn done(&self, bytes: u64) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn look_at(&self) {
        self.looked_at.fetch_add(1, Ordering::Relaxed);
    }

    /// How far the scrub of the hot cache is, which comes first.
    pub(crate) fn scrubbed(&self, scrubbed: &Scrubbed) {
        let Scrubbed { good, damaged, skipped, bytes } = *scrubbed;
        self.looked_at.store(good + damaged + skipped, Ordering::Relaxed);
        self.done.store(good, Ordering::Relaxed);
        self.failed.store(damaged, Ordering::Relaxed);
        self.skipped.store(skipped, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// An object failed.
    pub(crate) fn failed(&self, reason: &dyn Display) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock();
        if failures.len() < MAX_FAILURES {
            failures.push(reason.to_string());
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    pub(crate) fn skips(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn to_json(&self) -> Map<String, Value> {
        let (done, bytes) = self.counts();
        let value = json!({
            "looked_at": self.looked_at.load(Ordering::Relaxed),
            "done": done,
            "bytes": bytes,
            "skipped": self.skips(),
            "failed": self.failures(),
            "failures": *self.failures.lock(),
        });
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn one_job_runs_at_a_time_and_its_end_is_remembered() {
        let jobs = Jobs::default();
        assert_eq!(jobs.to_json(), Value::Null);
        let (end, ended) = mpsc::channel::<()>();
        jobs.start("archive", move |progress| {
            progress.done(17);
            let _ = ended.recv();
            Err("the store is away".to_owned())
        })
        .unwrap();
        let error = jobs.start("gc", |_| Ok(())).unwrap_err().to_string();
        assert!(error.starts_with("archive is running"), "{error}");
        drop(end);
        jobs.end();
        let job = jobs.to_json();
        assert_eq!((&job["job"], &job["running"]), (&json!("archive"), &json!(false)));
        assert_eq!((&job["bytes"], &job["error"]), (&json!(17), &json!("the store is away")));
        jobs.start("gc", |_| Ok(())).unwrap();
        jobs.end();
        let job = jobs.to_json();
        assert_eq!((&job["error"], &job["number"]), (&Value::Null, &json!(2)));
    }

    #[test]
    fn a_job_that_was_stopped_says_so_and_one_that_had_ended_does_not() {
        let jobs = Jobs::default();
        jobs.start("gc", |progress| {
            while !progress.is_stopped() {
                std::thread::yield_now();
            }
            Ok(())
        })
        .unwrap();
        jobs.end();
        assert_eq!(jobs.to_json()["stopped"], json!(true));
        let (end, ended) = mpsc::channel::<()>();
        jobs.start("gc", move |_| ended.recv().map_err(|error| error.to_string())).unwrap();
        end.send(()).unwrap();
        while jobs.to_json()["running"] == json!(true) {
            std::thread::yield_now();
        }
        jobs.stop();
        assert_eq!(jobs.to_json()["stopped"], json!(false));
    }

    #[test]
    fn a_job_that_panics_has_ended() {
        let jobs = Jobs::default();
        jobs.start("scrub", |_| panic!("a test")).unwrap();
        jobs.end();
        assert_eq!(jobs.to_json()["error"], json!("it has panicked: see the log"));
    }
}
