//! The threads of the workers.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use tracing::warn;

use super::jobs::{Job, Outcome, Serial};
use crate::server::discard::discard;
use crate::server::waker::Waker;
use crate::service::Service;
use crate::{threads, watchdog};

/// For each thread that should be there, how many may be started in place of overdue ones.
const MAX_REPLACEMENTS: usize = 3;

/// A pool of threads that take jobs from one channel and send what came of them through another.
#[derive(Debug)]
pub(super) struct Pool {
    jobs: Sender<(Serial, Job)>,
    outcomes: Receiver<(Serial, Outcome)>,
    /// How many threads there should be that have no overdue job.
    count: usize,
    threads: Vec<JoinHandle<()>>,
    worker: Worker,
}

/// What each thread has.
#[derive(Debug, Clone)]
struct Worker {
    jobs: Receiver<(Serial, Job)>,
    outcomes: Sender<(Serial, Outcome)>,
    service: Arc<Service>,
    waker: Arc<Waker>,
}

impl Pool {
    pub(super) fn start(
        count: usize,
        service: &Arc<Service>,
        waker: &Arc<Waker>,
    ) -> io::Result<Self> {
        let (jobs, to_do) = crossbeam_channel::unbounded();
        let (done, outcomes) = crossbeam_channel::unbounded();
        let (service, waker) = (service.clone(), waker.clone());
        let worker = Worker { jobs: to_do, outcomes: done, service, waker };
        let mut pool = Self { jobs, outcomes, count, threads: Vec::new(), worker };
        for _ in 0..count {
            pool.start_thread()?;
        }
        Ok(pool)
    }

    fn start_thread(&mut self) -> io::Result<()> {
        let worker = self.worker.clone();
        let run = move || {
            watchdog::prepare_thread();
            worker.run();
        };
        let name = format!("worker-{}", self.threads.len());
        self.threads.push(threads::spawn(&name, run)?);
        Ok(())
    }

    pub(super) fn service(&self) -> &Service {
        &self.worker.service
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Hands a job to the worker that is free next.
    pub(super) fn submit(&self, serial: Serial, job: Job) {
        // Fails only without a receiver, and `self.worker` has one.
        let _ = self.jobs.send((serial, job));
    }

    pub(super) fn next_outcome(&self) -> Option<(Serial, Outcome)> {
        self.outcomes.try_recv().ok()
    }

    /// Starts a thread for each overdue job, up to a bound. They stay when the job is done after all.
    pub(super) fn make_up_for(&mut self, overdue: usize) {
        while missing(self.count, self.threads.len(), overdue) {
            match self.start_thread() {
                Ok(()) => {
                    warn!(threads = self.threads.len(), "a callback is overdue: one more worker");
                }
                Err(error) => {
                    warn!(%error, "a callback is overdue, and no other worker can start");
                    return;
                }
            }
        }
    }

    /// Ends the threads that are idle, and waits for them. If a job still runs, threads that have not
    /// ended yet are left behind: one of them may be stuck in a callback.
    pub(super) fn stop(self, all_idle: bool) {
        drop((self.jobs, self.worker));
        self.outcomes.try_iter().for_each(discard);
        for thread in self.threads {
            if all_idle || thread.is_finished() {
                // No panic leaves `Job::run`.
                let _ = thread.join();
            }
        }
    }
}

/// True if of `threads` too few have no overdue job, and one more is allowed.
fn missing(count: usize, threads: usize, overdue: usize) -> bool {
    let spare = threads - count;
    overdue > spare && spare < MAX_REPLACEMENTS * count
}

impl Worker {
    /// Runs jobs until the pool is stopped.
    fn run(self) {
        for (serial, job) in &self.jobs {
            let outcome = job.run(&self.service);
            match self.outcomes.send((serial, outcome)) {
                Ok(()) => self.waker.wake(),
                // The server has ended, and no client waits for it.
                Err(unsent) => discard(unsent),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overdue_job_is_made_up_for_by_at_most_three_threads_a_worker() {
        let threads_for = |count: usize, overdue: usize| {
            let mut threads = count;
            while missing(count, threads, overdue) {
                threads += 1;
            }
            threads
        };
        assert_eq!(threads_for(2, 0), 2);
        assert_eq!(threads_for(2, 1), 3);
        assert_eq!(threads_for(2, 6), 8);
        assert_eq!(threads_for(2, 7), 8);
        assert!(!missing(2, 5, 3), "those that were started before are enough");
    }
}
