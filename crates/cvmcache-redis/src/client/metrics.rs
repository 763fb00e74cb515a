//! What the client counts.

use metrics::{Counter, counter};

/// Counters of this process.
#[derive(Clone)]
pub(super) struct ClientMetrics {
    /// Connections that ended with requests in flight.
    pub(super) lost_connections: Counter,
    /// Requests that were sent again on another connection.
    pub(super) repeated_requests: Counter,
    /// Requests that failed.
    pub(super) failed_requests: Counter,
}

impl ClientMetrics {
    /// Counts for the recorder that is the current one on this thread.
    pub(super) fn new() -> Self {
        Self {
            lost_connections: counter!("cvmcache_redis_lost_connections_total"),
            repeated_requests: counter!("cvmcache_redis_repeated_requests_total"),
            failed_requests: counter!("cvmcache_redis_failed_requests_total"),
        }
    }
}
