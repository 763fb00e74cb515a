//! The line that the debug log has for every request.
//!
//! The connection, the session and the number of the request are in its spans. Where there is no debug
//! log, a request costs one comparison of levels.

use std::time::Instant;

use tracing::{Level, debug, enabled};

use super::request_record::{ReplyOutcome, RequestRecord};
use crate::plugin::Status;

/// What filters of a program know the lines by.
const TARGET: &str = "cvmcache::request";

/// True if the lines are read.
pub(super) fn is_on() -> bool {
    enabled!(target: TARGET, Level::DEBUG)
}

pub(super) fn log(request: &RequestRecord, outcome: ReplyOutcome, now: Instant) {
    let bytes = request.bytes + outcome.sent;
    debug!(
        target: TARGET,
        operation = request.kind.name(),
        object = request.object.map(tracing::field::display),
        status = Status::label(outcome.result),
        bytes = (bytes > 0).then_some(bytes),
        duration_us = now.saturating_duration_since(request.received_at).as_micros() as u64,
        "answered"
    );
}
