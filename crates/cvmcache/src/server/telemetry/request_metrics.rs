//! The metrics of requests, and their names.
//!
//! Everything goes through the facade of the crate `metrics`, to whatever recorder the program has
//! installed. The handles are made once, so a request costs an index, two readings of the clock and a
//! few additions. Only the I/O thread records. No label has a value that comes from a client: a
//! client could make up as many as it likes, and each would stay in memory here and in the system
//! that scrapes them.

use std::time::Duration;

use cvmcache_proto::{CacheInfo, Status};
use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_histogram, gauge, histogram,
};

use super::gauges::{self, GaugeHandles, Gauges};
use super::request_record::{Answered, Kind, Transfer};

/// The latency of requests, whose buckets suit it better than the usual ones.
pub(crate) const DURATION: &str = "cvmcache_request_duration_seconds";

/// The handles of all that a server measures.
pub(crate) struct Metrics {
    requests: [PerKind; Kind::COUNT],
    hits: Counter,
    misses: Counter,
    read_bytes: Counter,
    stored_bytes: Counter,
    stored_objects: Counter,
    connections_total: Counter,
    gauges: GaugeHandles,
}

struct PerKind {
    /// By the number of the status on the wire.
    by_status: [Counter; Status::ALL.len() + 1],
    duration: Histogram,
}

impl Metrics {
    /// Makes the handles, with the recorder that is current on this thread.
    pub(crate) fn new(plugin: &str) -> Self {
        describe();
        gauge!("cvmcache_build_info", "version" => env!("CARGO_PKG_VERSION"),
            "plugin" => plugin.to_owned())
        .set(1.0);
        // Exported from the start with 0, so that the first increment shows as an increase.
        for name in [
            "cvmcache_callback_panics_total",
            "cvmcache_log_lines_suppressed_total",
            "cvmcache_log_lines_lost_total",
        ] {
            counter!(name).increment(0);
        }
        Self {
            requests: Kind::all().map(|kind| PerKind::new(kind.name())),
            hits: counter!("cvmcache_hits_total"),
            misses: counter!("cvmcache_misses_total"),
            read_bytes: counter!("cvmcache_read_bytes_total"),
            stored_bytes: counter!("cvmcache_stored_bytes_total"),
            stored_objects: counter!("cvmcache_stored_objects_total"),
            connections_total: counter!("cvmcache_connections_total"),
            gauges: GaugeHandles::new(),
        }
    }

    /// Counts a connection that was accepted.
    pub(crate) fn connected(&self) {
        self.connections_total.increment(1);
    }

    /// Records a request that was answered after so long.
    pub(super) fn record(&self, answered: Answered, latency: Duration) {
        let of_kind = &self.requests[answered.kind.index()];
        // The numbers of the wire are those of `by_status`.
        of_kind.by_status[Status::to_wire(answered.result) as usize].increment(1);
        of_kind.duration.record(latency);
        match answered.is_hit() {
            None => {}
            Some(true) => self.hits.increment(1),
            Some(false) => self.misses.increment(1),
        }
        match answered.transfer() {
            None => {}
            Some(Transfer::Read { bytes }) => self.read_bytes.increment(bytes),
            Some(Transfer::Stored { bytes, is_last_part }) => {
                self.stored_bytes.increment(bytes);
                self.stored_objects.increment(is_last_part.into());
            }
        }
    }

    /// Sets the gauges of the server.
    pub(crate) fn set_gauges(&self, gauges: &Gauges) {
        self.gauges.set(gauges);
    }

    /// Sets the gauges of the cache, as the plugin describes it.
    pub(crate) fn set_usage(&self, usage: &CacheInfo) {
        self.gauges.set_usage(usage);
    }
}

impl PerKind {
    fn new(kind: &'static str) -> Self {
        let results = [Ok(())].into_iter().chain(Status::ALL.map(Err));
        let mut by_status = [const { Counter::noop() }; Status::ALL.len() + 1];
        for result in results {
            let status = Status::label(result);
            by_status[Status::to_wire(result) as usize] =
                counter!("cvmcache_requests_total", "operation" => kind, "status" => status);
        }
        Self { by_status, duration: histogram!(DURATION, "operation" => kind) }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

fn describe() {
    let counters = [
        ("cvmcache_requests_total", Unit::Count, "Requests answered, by operation and status"),
        ("cvmcache_hits_total", Unit::Count, "Objects opened that were there"),
        ("cvmcache_misses_total", Unit::Count, "Objects that were to be opened and not there"),
        ("cvmcache_read_bytes_total", Unit::Bytes, "Bytes of objects in answers to reads"),
        ("cvmcache_stored_bytes_total", Unit::Bytes, "Bytes of objects taken in by uploads"),
        ("cvmcache_stored_objects_total", Unit::Count, "Uploads that became an object"),
        ("cvmcache_connections_total", Unit::Count, "Connections accepted"),
        ("cvmcache_callback_panics_total", Unit::Count, "Panics in callbacks of the plugin"),
        ("cvmcache_log_lines_suppressed_total", Unit::Count, "Lines over their limit a minute"),
        (
            "cvmcache_log_lines_lost_total",
            Unit::Count,
            "Lines lost because the output was too slow",
        ),
        ("cvmcache_evicted_objects_total", Unit::Count, "Objects evicted, if the plugin tells"),
        ("cvmcache_evicted_bytes_total", Unit::Bytes, "What they took, if the plugin tells"),
    ];
    for (name, unit, help) in counters {
        describe_counter!(name, unit, help);
    }
    gauges::describe();
    let help = "From when a request was taken to when its answer was queued";
    describe_histogram!(DURATION, Unit::Seconds, help);
}
