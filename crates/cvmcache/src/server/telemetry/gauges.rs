//! Gauges: what the server and the plugin hold at one moment.

use cvmcache_proto::CacheInfo;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

/// What a server holds at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gauges {
    pub(crate) connections: usize,
    pub(crate) sessions: usize,
    pub(crate) uploads: usize,
    pub(crate) upload_bytes: u64,
    /// Jobs that workers have.
    pub(crate) jobs: usize,
    /// Connections that wait for a worker.
    pub(crate) waiting: usize,
    /// Callbacks that are overdue.
    pub(crate) overdue: usize,
    pub(crate) unsent_bytes: usize,
    pub(crate) buffered_bytes: usize,
    pub(crate) reloads: u64,
    pub(crate) references: usize,
}

/// The handles of all gauges, and of what the plugin counts by itself.
pub(super) struct GaugeHandles {
    connections: Gauge,
    sessions: Gauge,
    uploads: Gauge,
    upload_bytes: Gauge,
    jobs: Gauge,
    waiting: Gauge,
    overdue: Gauge,
    unsent_bytes: Gauge,
    buffered_bytes: Gauge,
    reloads: Gauge,
    references: Gauge,
    cache_size: Gauge,
    cache_used: Gauge,
    cache_pinned: Gauge,
    clean_ups: Counter,
}

impl GaugeHandles {
    pub(super) fn new() -> Self {
        Self {
            connections: gauge!("cvmcache_connections"),
            sessions: gauge!("cvmcache_sessions"),
            uploads: gauge!("cvmcache_uploads"),
            upload_bytes: gauge!("cvmcache_upload_bytes"),
            jobs: gauge!("cvmcache_jobs"),
            waiting: gauge!("cvmcache_waiting_connections"),
            overdue: gauge!("cvmcache_stuck_callbacks"),
            unsent_bytes: gauge!("cvmcache_unsent_bytes"),
            buffered_bytes: gauge!("cvmcache_buffered_bytes"),
            reloads: gauge!("cvmcache_reloads"),
            references: gauge!("cvmcache_open_objects"),
            cache_size: gauge!("cvmcache_size_bytes"),
            cache_used: gauge!("cvmcache_used_bytes"),
            cache_pinned: gauge!("cvmcache_pinned_bytes"),
            clean_ups: counter!("cvmcache_clean_ups_total"),
        }
    }

    pub(super) fn set(&self, gauges: &Gauges) {
        self.connections.set(gauges.connections as f64);
        self.sessions.set(gauges.sessions as f64);
        self.uploads.set(gauges.uploads as f64);
        self.upload_bytes.set(gauges.upload_bytes as f64);
        self.jobs.set(gauges.jobs as f64);
        self.waiting.set(gauges.waiting as f64);
        self.overdue.set(gauges.overdue as f64);
        self.unsent_bytes.set(gauges.unsent_bytes as f64);
        self.buffered_bytes.set(gauges.buffered_bytes as f64);
        self.reloads.set(gauges.reloads as f64);
        self.references.set(gauges.references as f64);
    }

    pub(super) fn set_usage(&self, usage: &CacheInfo) {
        self.cache_size.set(usage.size_bytes as f64);
        self.cache_used.set(usage.used_bytes as f64);
        self.cache_pinned.set(usage.pinned_bytes as f64);
        self.clean_ups.absolute(usage.shrink_count.unwrap_or(0));
    }
}

pub(super) fn describe() {
    let gauges = [
        ("cvmcache_build_info", Unit::Count, "Always 1; the labels say what runs"),
        ("cvmcache_connections", Unit::Count, "Connections that are open"),
        ("cvmcache_sessions", Unit::Count, "Sessions that are open: mounts, mostly"),
        ("cvmcache_uploads", Unit::Count, "Uploads that have begun and not ended"),
        ("cvmcache_upload_bytes", Unit::Bytes, "Bytes received of these uploads"),
        ("cvmcache_jobs", Unit::Count, "Jobs that workers run, or will run next"),
        ("cvmcache_waiting_connections", Unit::Count, "Connections that wait for a free worker"),
        ("cvmcache_stuck_callbacks", Unit::Count, "Callbacks that exceed the deadline"),
        ("cvmcache_unsent_bytes", Unit::Bytes, "Bytes of replies not sent yet"),
        ("cvmcache_buffered_bytes", Unit::Bytes, "Memory of connections, for requests and replies"),
        ("cvmcache_reloads", Unit::Count, "Clients that announced a reload and are away"),
        ("cvmcache_open_objects", Unit::Count, "Objects that sessions have open, by session"),
        ("cvmcache_size_bytes", Unit::Bytes, "Size of the cache, as the plugin reports"),
        ("cvmcache_used_bytes", Unit::Bytes, "Bytes in use, as the plugin reports"),
        ("cvmcache_pinned_bytes", Unit::Bytes, "Bytes in use that cannot be evicted"),
    ];
    for (name, unit, help) in gauges {
        describe_gauge!(name, unit, help);
    }
    let clean_ups = "Clean-ups since the start, as the plugin says";
    describe_counter!("cvmcache_clean_ups_total", Unit::Count, clean_ups);
}
