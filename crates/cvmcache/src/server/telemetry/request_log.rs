//! The line that the debug log has for every request.
//!
//! The connection, the session and the number of the request are in its spans. Where there is no debug
//! log, a request costs one comparison of levels.

use std::time::Duration;

use tracing::{Level, debug, enabled};

use super::request_record::{Answered, RequestRecord};
use crate::plugin::Status;

/// What filters of a program know the lines by.
const TARGET: &str = "cvmcache::request";

/// True if the lines are read.
pub(super) fn is_on() -> bool {
    enabled!(target: TARGET, Level::DEBUG)
}

pub(super) fn log(request: &RequestRecord, answered: Answered, latency: Duration) {
    debug!(
        target: TARGET,
        operation = answered.kind.name(),
        object = request.object.map(tracing::field::display),
        status = Status::label(answered.result),
        bytes = (answered.bytes > 0).then_some(answered.bytes),
        duration_us = latency.as_micros() as u64,
        "answered"
    );
}
