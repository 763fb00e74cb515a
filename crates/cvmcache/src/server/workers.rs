//! The workers, which run callbacks, and the accounting of their jobs. Knows no socket.
//!
//! [`Workers`] is the I/O thread's end, and the one owner of the accounting: how many jobs run, which
//! of them are overdue, and how many threads make up for those. A job has a serial, by which a worker
//! reports it done.
//!
//! Threads meet in two channels without a bound, jobs there and outcomes back, and in the service.
//! There is no lock here, so there is no order of locks: workers take those of the service, one
//! callback at a time, and hold none while they send an outcome. What bounds the channels is
//! [`Workers::room`].

mod in_flight;
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "only administrators call"))]
mod jobs;
mod ordering;
mod pool;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cvmcache_proto::{Reply, Request};
use mio::Token;

use super::waker::Waker;
use crate::service::{OpenSession, Service};
use in_flight::InFlight;
pub(crate) use in_flight::{Completed, TimedOut};
#[cfg(feature = "admin")]
pub(crate) use jobs::ServiceCall;
pub(crate) use jobs::{Job, Outcome, Ticket};
use pool::Pool;

/// The workers, as the I/O thread sees them.
#[derive(Debug)]
pub(crate) struct Workers {
    pool: Pool,
    in_flight: InFlight,
}

impl Workers {
    /// Starts `count` threads; `None` for none.
    pub(crate) fn start(
        count: usize,
        service: &Arc<Service>,
        waker: &Arc<Waker>,
    ) -> io::Result<Option<Self>> {
        if count == 0 {
            return Ok(None);
        }
        let pool = Pool::start(count, service, waker)?;
        Ok(Some(Self { pool, in_flight: InFlight::default() }))
    }

    /// Handles a request of a connection on this thread, if the plugin need not wait for anything, nor the
    /// request for another one of its ordering key.
    pub(crate) fn try_handle(
        &self,
        token: Token,
        open: &OpenSession,
        request: &Request,
    ) -> Option<Reply> {
        if self.in_flight.must_wait(Some(token), request) {
            return None;
        }
        self.pool.service().try_handle(open, request)
    }

    /// Takes a job of a connection, or of the server itself, and submits it when those are done that
    /// it has to wait for.
    pub(crate) fn dispatch(&mut self, token: Option<Token>, job: Job, ticket: Ticket) {
        if let Some((serial, job)) = self.in_flight.begin(token, job, ticket) {
            self.pool.submit(serial, job);
        }
    }

    /// The next job that a worker has done.
    pub(crate) fn next_completed(&mut self) -> Option<Completed> {
        loop {
            let (serial, outcome) = self.pool.next_outcome()?;
            let (completed, next) = self.in_flight.complete(serial, outcome);
            if let Some((serial, job)) = next {
                self.pool.submit(serial, job);
            }
            if completed.is_some() {
                return completed;
            }
        }
    }

    /// Finds the requests that have been in flight for longer than `timeout` and have not been
    /// answered: they are to be answered now. Starts other workers for those that they keep busy.
    pub(crate) fn time_out(&mut self, now: Instant, timeout: Duration) -> Vec<TimedOut> {
        let timed_out = self.in_flight.time_out(now, timeout);
        self.pool.make_up_for(self.in_flight.overdue());
        timed_out
    }

    /// How many jobs workers have.
    pub(crate) fn running(&self) -> usize {
        self.in_flight.running()
    }

    /// How many of them are overdue.
    pub(crate) fn overdue(&self) -> usize {
        self.in_flight.overdue()
    }

    /// How many more jobs the workers should have: one for each thread that is not kept busy by an
    /// overdue job, and one that it finds next.
    pub(crate) fn room(&self) -> usize {
        (2 * self.pool.count() + self.overdue()).saturating_sub(self.running())
    }

    /// Ends the threads, and waits for them, except for those with a job that still runs.
    pub(crate) fn stop(self) {
        self.pool.stop(self.in_flight.running() == 0);
    }
}
