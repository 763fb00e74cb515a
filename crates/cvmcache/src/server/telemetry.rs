//! Telemetry: metrics, the debug log's lines for requests, the status report and the heartbeat. Knows
//! values only: the event loop collects them.

use std::time::Instant;

mod gauges;
mod heartbeat;
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "only administrators read it"))]
mod latency;
mod request_log;
mod request_metrics;
mod request_record;
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "only administrators read it"))]
mod sessions;
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "only administrators read it"))]
mod statistics;
mod status_report;
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "only administrators read it"))]
mod worker_load;

pub(crate) use gauges::Gauges;
pub use heartbeat::Heartbeat;
pub(crate) use heartbeat::HeartbeatTimer;
#[cfg(feature = "prometheus")]
pub(crate) use request_metrics::DURATION;
pub(crate) use request_metrics::Metrics;
pub(crate) use request_record::{Answered, RequestRecord, Tally};
pub(crate) use sessions::{SessionCounters, Sessions};
pub(crate) use statistics::Statistics;
#[cfg(feature = "admin")]
pub(crate) use statistics::{Counts, KindCounts};
#[cfg(feature = "admin")]
pub(crate) use status_report::usage_line;
pub(crate) use status_report::{Reporter, SessionStatus, StatusReport};
pub(crate) use worker_load::WorkerLoad;

/// What counts requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recorders<'a> {
    pub(crate) statistics: &'a Statistics,
    /// `None`: no metrics are served.
    pub(crate) metrics: Option<&'a Metrics>,
}

impl RequestRecord {
    /// True if anything wants records: otherwise they need not be made.
    pub(crate) fn is_wanted(metrics: Option<&Metrics>) -> bool {
        metrics.is_some() || request_log::is_on()
    }

    /// Records the request, whose reply was queued at `now`.
    pub(crate) fn record(&self, answered: Answered, metrics: Option<&Metrics>, now: Instant) {
        let latency = now.saturating_duration_since(self.received_at);
        if let Some(metrics) = metrics {
            metrics.record(answered, latency);
        }
        if request_log::is_on() {
            request_log::log(self, answered, latency);
        }
    }
}
