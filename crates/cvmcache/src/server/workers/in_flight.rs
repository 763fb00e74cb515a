//! The requests of one connection that are with the workers, or wait for each other to get there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cvmcache_proto::{Envelope, Request};

use crate::server::telemetry::request_metrics::RequestMetrics;
use crate::server::workers::ordering::{KeyedQueues, OrderingKey};
use crate::server::workers::pool::Call;
use crate::service::OpenSession;

/// Requests under way, by serial number, and the lanes they keep busy.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    underway: HashMap<u64, InFlightRequest>,
    last_serial: u64,
    bytes: usize,
    lanes: KeyedQueues,
}

#[derive(Debug)]
struct InFlightRequest {
    envelope: Envelope,
    since: Instant,
    /// What to measure, if anybody measures.
    subject: Option<RequestMetrics>,
    bytes: usize,
    /// It is with the workers, and not in a lane any more.
    is_submitted: bool,
    /// It took too long, and has been answered without waiting for it.
    is_overdue: bool,
}

/// A request that has taken too long.
#[derive(Debug)]
pub(crate) struct Overdue {
    /// How to answer it.
    pub(crate) envelope: Envelope,
    pub(crate) subject: Option<RequestMetrics>,
    /// It keeps a worker busy.
    pub(crate) is_submitted: bool,
}

impl InFlight {
    pub(crate) fn len(&self) -> usize {
        self.underway.len()
    }

    /// The memory that the requests and their answers take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a request in. Returns what is to be submitted, if it need not wait in its lane.
    pub(crate) fn begin(
        &mut self,
        open: Arc<OpenSession>,
        request: Request,
        bytes: usize,
        subject: Option<RequestMetrics>,
    ) -> Option<(Call, Option<OrderingKey>)> {
        self.last_serial += 1;
        let (serial, envelope) = (self.last_serial, request.envelope());
        let since = Instant::now();
        let underway = InFlightRequest {
            envelope,
            since,
            subject,
            bytes,
            is_submitted: false,
            is_overdue: false,
        };
        self.underway.insert(serial, underway);
        self.bytes += bytes;
        let entered = self.lanes.enter(Call { serial, open, request })?;
        Some(self.submitted(entered))
    }

    /// A worker is done with a request. If somebody still waits for the answer: what to measure.
    pub(crate) fn done(&mut self, serial: u64) -> Option<Option<RequestMetrics>> {
        self.forget(serial).filter(|call| !call.is_overdue).map(|call| call.subject)
    }

    /// What is to be submitted now that a lane is free.
    pub(crate) fn next_in(&mut self, lane: OrderingKey) -> Option<(Call, Option<OrderingKey>)> {
        while let Some(next) = self.lanes.leave(lane) {
            // What the client has been told to have failed must not be done after all.
            if self.underway.get(&next.serial).is_some_and(|call| !call.is_overdue) {
                return Some(self.submitted((next, Some(lane))));
            }
            self.forget(next.serial);
        }
        None
    }

    /// Takes note of what has been under way for longer than `deadline`: its answer is given now.
    pub(crate) fn expire(&mut self, deadline: Duration) -> Vec<Overdue> {
        let overdue =
            |call: &&mut InFlightRequest| !call.is_overdue && call.since.elapsed() > deadline;
        let expired = self.underway.values_mut().filter(overdue).map(|call| {
            call.is_overdue = true;
            let InFlightRequest { envelope, subject, is_submitted, .. } = *call;
            Overdue { envelope, subject, is_submitted }
        });
        expired.collect()
    }

    fn submitted(&mut self, entered: (Call, Option<OrderingKey>)) -> (Call, Option<OrderingKey>) {
        if let Some(call) = self.underway.get_mut(&entered.0.serial) {
            call.is_submitted = true;
        }
        entered
    }

    fn forget(&mut self, serial: u64) -> Option<InFlightRequest> {
        let call = self.underway.remove(&serial)?;
        self.bytes -= call.bytes;
        Some(call)
    }
}
