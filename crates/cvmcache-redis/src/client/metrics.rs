//! What the client counts.

use metrics::{Counter, counter};

const LOST_CONNECTIONS: &str = "cvmcache_redis_lost_connections_total";
const REPEATED_REQUESTS: &str = "cvmcache_redis_repeated_requests_total";
const FAILED_REQUESTS: &str = "cvmcache_redis_failed_requests_total";

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
            lost_connections: counter!(LOST_CONNECTIONS),
            repeated_requests: counter!(REPEATED_REQUESTS),
            failed_requests: counter!(FAILED_REQUESTS),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_book_has_every_counter_and_no_other() {
        let book = include_str!("../../../../docs/operations.md");
        let words = book.split('`').filter(|word| word.starts_with("cvmcache_redis_"));
        let documented: BTreeSet<_> = words.collect();
        assert_eq!(documented, [LOST_CONNECTIONS, REPEATED_REQUESTS, FAILED_REQUESTS].into());
    }
}
