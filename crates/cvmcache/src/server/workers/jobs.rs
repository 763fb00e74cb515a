//! The jobs of workers, and their outcomes.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use cvmcache_proto::{CacheInfo, Request, ServerMessage, Status};
use tracing::trace_span;

use crate::server::telemetry::{RequestRecord, Tally};
use crate::service::{OpenSession, Service};

/// How many references of a session that has ended are given back in one step.
const END_STEP: usize = 256;

/// The number of a job, which no other job of the server has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Serial(pub(super) u64);

/// Something for a worker to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Handle a request of a session.
    Handle(Arc<OpenSession>, Request),
    /// End a session.
    EndSession(Arc<OpenSession>),
    /// Ask the plugin how full the cache is.
    Usage,
    /// Call the service for the administration socket.
    Call(ServiceCall),
}

/// A call of the service that is neither a client's nor the server's own; it sends its result by itself.
pub(crate) struct ServiceCall(Box<dyn FnOnce(&Service) + Send>);

/// What stays with the I/O thread while a job is in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    /// When the request was received; its deadline counts from then.
    pub(crate) received: Instant,
    /// The memory that the request and its largest reply take, in bytes.
    pub(crate) weight: usize,
    /// `None` for a job that is no request.
    pub(crate) tally: Option<Tally>,
    /// `None` if requests are not recorded.
    pub(crate) record: Option<RequestRecord>,
}

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Outcome {
    Reply(ServerMessage),
    SessionEnded,
    Usage(Option<CacheInfo>),
    Called,
}

impl ServiceCall {
    pub(crate) fn new(call: impl FnOnce(&Service) + Send + 'static) -> Self {
        Self(Box::new(call))
    }

    /// Does it, on this thread. A panic ends nothing but the call.
    pub(crate) fn run(self, service: &Service) {
        let _ = catch_unwind(AssertUnwindSafe(|| (self.0)(service)));
    }
}

impl fmt::Debug for ServiceCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceCall")
    }
}

impl Ticket {
    /// For a job that is no request.
    pub(crate) fn new(now: Instant) -> Self {
        Self { received: now, weight: 0, tally: None, record: None }
    }
}

impl Job {
    /// Does it, on this thread. Callbacks have a guard of their own; what is caught here is a panic in
    /// between, and ends neither the thread nor what waits for the job.
    pub(super) fn run(self, service: &Service) -> Outcome {
        match self {
            Job::Handle(open, request) => {
                let session = open.session();
                let _request = trace_span!("request", number = request.id, %session).entered();
                let envelope = request.envelope();
                let handled = catch_unwind(AssertUnwindSafe(|| service.handle(&open, request)));
                let reply = handled.map(ServerMessage::Reply);
                Outcome::Reply(reply.unwrap_or_else(|_| envelope.fail(Status::IoErr)))
            }
            Job::EndSession(open) => {
                // In steps, because the session's holdings are locked in each: reports look at them.
                let end = || while !service.end(&open, END_STEP) {};
                let _ = catch_unwind(AssertUnwindSafe(end));
                Outcome::SessionEnded
            }
            Job::Usage => {
                let usage = catch_unwind(AssertUnwindSafe(|| service.usage()));
                Outcome::Usage(usage.unwrap_or(None))
            }
            Job::Call(call) => {
                call.run(service);
                Outcome::Called
            }
        }
    }
}
