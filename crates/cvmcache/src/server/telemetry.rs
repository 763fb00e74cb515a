//! What the server tells of itself: metrics, reports and heartbeats. Knows values only.

pub(super) mod heartbeat;
pub(super) mod request_metrics;
pub(super) mod status_report;
