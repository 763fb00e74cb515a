//! Telemetry: metrics, the debug log's lines for requests, the status report and the heartbeat. Knows
//! values only: the event loop collects them.

mod gauges;
mod heartbeat;
mod request_log;
mod request_metrics;
mod request_record;
mod status_report;

pub(crate) use gauges::Gauges;
pub use heartbeat::Heartbeat;
pub(crate) use heartbeat::HeartbeatTimer;
#[cfg(feature = "prometheus")]
pub(crate) use request_metrics::DURATION;
pub(crate) use request_metrics::Metrics;
pub(crate) use request_record::{ReplyOutcome, RequestRecord};
pub(crate) use status_report::{Reporter, SessionStatus, StatusReport};
