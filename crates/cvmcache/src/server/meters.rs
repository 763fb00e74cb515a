//! What is measured of a server, and under which names it is told.
//!
//! Everything goes through the facade of the crate `metrics`, to whatever recorder the program has
//! installed. The handles are made once, so a request costs an index, two looks at the clock and a
//! few additions; only the I/O thread records. No label has a value that comes from a client: a
//! client could make up as many as it likes, and each would stay in memory here and with whoever
//! collects them.

use std::time::Instant;

use cvmcache_proto::{
    CacheInfo, Operation, OperationKind, Reply, ReplyBody, Request, ServerMessage, Status,
};
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

/// The latency of requests, whose buckets suit it better than the usual ones.
pub(crate) const DURATION: &str = "cvmcache_request_duration_seconds";

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Operation(OperationKind),
    Handshake,
    /// It makes no sense, or names a session that is not its own.
    Invalid,
}

impl Kind {
    const COUNT: usize = OperationKind::ALL.len() + 2;

    /// Every kind, in the order of [`index`](Self::index).
    fn all() -> [Self; Self::COUNT] {
        std::array::from_fn(|index| match OperationKind::ALL.get(index) {
            Some(&kind) => Self::Operation(kind),
            None if index == OperationKind::ALL.len() => Self::Handshake,
            None => Self::Invalid,
        })
    }

    fn index(self) -> usize {
        match self {
            Self::Operation(kind) => kind as usize,
            Self::Handshake => OperationKind::ALL.len(),
            Self::Invalid => OperationKind::ALL.len() + 1,
        }
    }

    /// As labels have it.
    fn name(self) -> &'static str {
        match self {
            Self::Operation(kind) => kind.name(),
            Self::Handshake => "handshake",
            Self::Invalid => "invalid",
        }
    }
}

/// What is to be known of a request once it has been answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    kind: Kind,
    since: Instant,
    /// The bytes of an object that came with it, and whether they were the last ones.
    received: usize,
    last: bool,
}

/// How a request was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    result: Result<(), Status>,
    /// The bytes of an object that go with the answer.
    sent: usize,
}

/// What a server holds at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Level {
    pub(super) connections: usize,
    pub(super) sessions: usize,
    pub(super) uploads: usize,
    pub(super) upload_bytes: u64,
    pub(super) jobs: usize,
    pub(super) waiting: usize,
    pub(super) stuck: usize,
    pub(super) unsent_bytes: usize,
    pub(super) reloads: u64,
}

/// The handles of all that a server measures.
pub(super) struct Meters {
    requests: [PerKind; Kind::COUNT],
    hits: Counter,
    misses: Counter,
    read_bytes: Counter,
    stored_bytes: Counter,
    stored_objects: Counter,
    connections_total: Counter,
    level: Levels,
    cache: Cache,
}

struct PerKind {
    /// By the number of the status on the wire.
    by_status: [Counter; Status::ALL.len() + 1],
    duration: Histogram,
}

struct Levels {
    connections: Gauge,
    sessions: Gauge,
    uploads: Gauge,
    upload_bytes: Gauge,
    jobs: Gauge,
    waiting: Gauge,
    stuck: Gauge,
    unsent_bytes: Gauge,
    reloads: Gauge,
}

struct Cache {
    size: Gauge,
    used: Gauge,
    pinned: Gauge,
    clean_ups: Gauge,
}

impl Subject {
    /// A request that has just been taken.
    pub(super) fn of(request: &Request, since: Instant) -> Self {
        let (mut received, mut last) = (0, false);
        if let Operation::Store(part) = &request.operation {
            (received, last) = (part.data.len(), part.last);
        }
        let kind = Kind::Operation(request.operation.kind());
        Self { kind, since, received, last }
    }

    /// Something that was answered before it became a request.
    pub(super) fn of_answer(answer: &ServerMessage, since: Instant) -> Self {
        let is_ack = matches!(answer, ServerMessage::HandshakeAck(_));
        let kind = if is_ack { Kind::Handshake } else { Kind::Invalid };
        Self { kind, since, received: 0, last: false }
    }
}

impl Outcome {
    pub(super) fn of(answer: &ServerMessage) -> Self {
        let sent = match answer {
            ServerMessage::Reply(Reply {
                body: ReplyBody::Read { result: Ok(data), .. }, ..
            }) => data.len(),
            _ => 0,
        };
        let result = answer.status().unwrap_or(Err(Status::Unknown));
        Self { result, sent }
    }
}

impl Meters {
    /// Makes the handles, with the recorder that is the current one on this thread.
    pub(super) fn new(plugin: &str) -> Self {
        describe();
        gauge!("cvmcache_build_info", "version" => env!("CARGO_PKG_VERSION"),
            "plugin" => plugin.to_owned())
        .set(1.0);
        // Known from the beginning, so that the first of them is seen to be one more.
        for name in [
            "cvmcache_callback_panics_total",
            "cvmcache_log_lines_left_out_total",
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
            level: Levels {
                connections: gauge!("cvmcache_connections"),
                sessions: gauge!("cvmcache_sessions"),
                uploads: gauge!("cvmcache_uploads"),
                upload_bytes: gauge!("cvmcache_upload_bytes"),
                jobs: gauge!("cvmcache_jobs"),
                waiting: gauge!("cvmcache_waiting_connections"),
                stuck: gauge!("cvmcache_stuck_callbacks"),
                unsent_bytes: gauge!("cvmcache_unsent_bytes"),
                reloads: gauge!("cvmcache_reloads"),
            },
            cache: Cache {
                size: gauge!("cvmcache_size_bytes"),
                used: gauge!("cvmcache_used_bytes"),
                pinned: gauge!("cvmcache_pinned_bytes"),
                clean_ups: gauge!("cvmcache_clean_ups"),
            },
        }
    }

    /// Somebody has been let in.
    pub(super) fn connected(&self) {
        self.connections_total.increment(1);
    }

    /// A request has been answered.
    pub(super) fn answered(&self, subject: Subject, outcome: Outcome) {
        let Outcome { result, sent } = outcome;
        let of_kind = &self.requests[subject.kind.index()];
        // The numbers of the wire are those of `by_status`.
        of_kind.by_status[Status::to_wire(result) as usize].increment(1);
        of_kind.duration.record(subject.since.elapsed());
        match (subject.kind, result) {
            (Kind::Operation(OperationKind::Open), Ok(())) => self.hits.increment(1),
            (Kind::Operation(OperationKind::Open), Err(Status::NoEntry)) => {
                self.misses.increment(1)
            }
            (Kind::Operation(OperationKind::Read), Ok(())) => {
                self.read_bytes.increment(sent as u64)
            }
            (Kind::Operation(OperationKind::Store), Ok(())) => {
                self.stored_bytes.increment(subject.received as u64);
                self.stored_objects.increment(subject.last.into());
            }
            _ => {}
        }
    }

    /// Tells what the server holds.
    pub(super) fn set_level(&self, level: Level) {
        let to = &self.level;
        to.connections.set(level.connections as f64);
        to.sessions.set(level.sessions as f64);
        to.uploads.set(level.uploads as f64);
        to.upload_bytes.set(level.upload_bytes as f64);
        to.jobs.set(level.jobs as f64);
        to.waiting.set(level.waiting as f64);
        to.stuck.set(level.stuck as f64);
        to.unsent_bytes.set(level.unsent_bytes as f64);
        to.reloads.set(level.reloads as f64);
    }

    /// Tells what the plugin says of itself.
    pub(super) fn set_usage(&self, usage: CacheInfo) {
        let to = &self.cache;
        to.size.set(usage.size_bytes as f64);
        to.used.set(usage.used_bytes as f64);
        to.pinned.set(usage.pinned_bytes as f64);
        to.clean_ups.set(usage.shrink_count.unwrap_or(0) as f64);
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

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
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
        ("cvmcache_log_lines_left_out_total", Unit::Count, "Lines over their limit a minute"),
        ("cvmcache_log_lines_lost_total", Unit::Count, "Lines that nobody took in time"),
        ("cvmcache_evicted_objects_total", Unit::Count, "Objects evicted, if the plugin tells"),
        ("cvmcache_evicted_bytes_total", Unit::Bytes, "What they took, if the plugin tells"),
    ];
    for (name, unit, help) in counters {
        describe_counter!(name, unit, help);
    }
    let gauges = [
        ("cvmcache_build_info", Unit::Count, "Always 1; the labels say what runs"),
        ("cvmcache_connections", Unit::Count, "Connections that are open"),
        ("cvmcache_sessions", Unit::Count, "Sessions that are open: mounts, mostly"),
        ("cvmcache_uploads", Unit::Count, "Uploads that have begun and not ended"),
        ("cvmcache_upload_bytes", Unit::Bytes, "Bytes received of these uploads"),
        ("cvmcache_jobs", Unit::Count, "Requests that workers are at, or will be next"),
        ("cvmcache_waiting_connections", Unit::Count, "Connections that wait for a free worker"),
        ("cvmcache_stuck_callbacks", Unit::Count, "Callbacks that exceed the deadline"),
        ("cvmcache_unsent_bytes", Unit::Bytes, "Memory held by answers not taken yet"),
        ("cvmcache_reloads", Unit::Count, "Clients that announced a reload and are away"),
        ("cvmcache_size_bytes", Unit::Bytes, "Size of the cache, as the plugin says"),
        ("cvmcache_used_bytes", Unit::Bytes, "Bytes in use, as the plugin says"),
        ("cvmcache_pinned_bytes", Unit::Bytes, "Bytes in use that cannot be evicted"),
        ("cvmcache_clean_ups", Unit::Count, "Clean-ups since the start, as the plugin says"),
    ];
    for (name, unit, help) in gauges {
        describe_gauge!(name, unit, help);
    }
    let help = "From when a request was taken to when its answer was queued";
    describe_histogram!(DURATION, Unit::Seconds, help);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_counted_at_its_own_index() {
        for (index, kind) in Kind::all().into_iter().enumerate() {
            assert_eq!(kind.index(), index, "{kind:?}");
        }
    }
}
