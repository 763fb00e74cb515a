//! The answers, as they are serialized. `docs/administration.md` is their description.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use super::state::State;
use super::windows::Window;
use crate::admin::{Gauge, Setting};
use crate::plugin::CacheInfo;
use crate::server::accept::Origin;
use crate::server::telemetry::{KindCounts, SessionCounters};
use crate::service::Service;

#[derive(Debug, Serialize)]
pub(super) struct Index<'a> {
    pub(super) name: &'a str,
    pub(super) api: u32,
    pub(super) resources: Vec<Resource>,
}

#[derive(Debug, Serialize)]
pub(super) struct Resource {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) description: String,
}

#[derive(Debug, Serialize)]
pub(super) struct SessionList {
    pub(super) sessions: Vec<SessionView>,
}

#[derive(Debug, Serialize)]
pub(super) struct SessionView {
    id: u64,
    repository: String,
    instance: Option<String>,
    pid: Option<u32>,
    uid: Option<u32>,
    address: Option<String>,
    age_seconds: f64,
    references: usize,
    uploads: usize,
    upload_bytes: u64,
    listings: usize,
    in_flight: u64,
    unsent_bytes: u64,
    buffered_bytes: u64,
    requests: u64,
    hits: u64,
    misses: u64,
    hit_ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct StatisticsView {
    pub(super) since_start: WindowView,
    pub(super) since_zero: Option<WindowView>,
    pub(super) last_minute: WindowView,
    /// `None` if the plugin does not report it, or not in time.
    pub(super) cache: Option<CacheView>,
    pub(super) plugin: Vec<GaugeView>,
}

#[derive(Debug, Serialize)]
pub(super) struct WindowView {
    seconds: f64,
    requests: u64,
    hits: u64,
    misses: u64,
    hit_ratio: Option<f64>,
    read_bytes: u64,
    stored_bytes: u64,
    stored_objects: u64,
    /// `None` if the plugin does not count them.
    evicted_objects: Option<u64>,
    evicted_bytes: Option<u64>,
    connections: u64,
    operations: Vec<OperationView>,
}

#[derive(Debug, Serialize)]
struct OperationView {
    operation: &'static str,
    requests: u64,
    by_status: serde_json::Map<String, Value>,
    latency_us: LatencyView,
}

#[derive(Debug, Serialize)]
struct LatencyView {
    mean: Option<f64>,
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct CacheView {
    size_bytes: u64,
    used_bytes: u64,
    pinned_bytes: u64,
    clean_ups: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct GaugeView {
    name: String,
    value: Value,
    description: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Configuration<'a> {
    /// `None` if there is none.
    pub(super) file: Option<String>,
    pub(super) settings: &'a [Setting],
}

#[derive(Debug, Serialize)]
pub(super) struct Health {
    pub(super) status: &'static str,
    pub(super) problems: Vec<String>,
    pub(super) io_thread_us: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Version<'a> {
    name: &'a str,
    plugin: Option<&'a str>,
    sdk: &'static str,
    protocol: u32,
    api: u32,
    pid: u32,
    started: u64,
    uptime_seconds: f64,
    executable: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Failure {
    pub(super) error: String,
}

impl SessionView {
    /// `None` before the handshake.
    pub(super) fn of(counters: &SessionCounters, service: &Service) -> Option<Self> {
        let open = counters.session()?;
        let session = open.session();
        let (references, listings) = service.objects_and_listings(open);
        let (uploads, upload_bytes) = service.uploads(open);
        let (pid, uid, address) = match counters.origin {
            Origin::Process(process) => {
                (process.and_then(|it| it.pid), process.map(|it| it.uid), None)
            }
            Origin::Address(address) => (None, None, Some(address.to_canonical().to_string())),
        };
        let escaped = |text: &[u8]| text.escape_ascii().to_string();
        let (hits, misses) = (counters.hits.get(), counters.misses.get());
        Some(Self {
            id: session.id(),
            repository: escaped(session.repository()),
            instance: session.instance().map(escaped),
            pid,
            uid,
            address,
            age_seconds: counters.opened().elapsed().as_secs_f64(),
            references,
            uploads,
            upload_bytes,
            listings,
            in_flight: counters.in_flight.get(),
            unsent_bytes: counters.unsent_bytes.get(),
            buffered_bytes: counters.buffered_bytes.get(),
            requests: counters.requests.get(),
            hits,
            misses,
            hit_ratio: ratio(hits, misses),
        })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl From<Window> for WindowView {
    fn from(Window { time, counts }: Window) -> Self {
        let operations: Vec<_> =
            counts.by_kind().map(|(name, of_kind)| OperationView::new(name, of_kind)).collect();
        let (hits, misses) = (counts.hits(), counts.misses());
        Self {
            seconds: time.as_secs_f64(),
            requests: operations.iter().map(|operation| operation.requests).sum(),
            hits,
            misses,
            hit_ratio: ratio(hits, misses),
            read_bytes: counts.read_bytes,
            stored_bytes: counts.stored_bytes,
            stored_objects: counts.stored_objects,
            evicted_objects: counts.evicted.map(|it| it.objects),
            evicted_bytes: counts.evicted.map(|it| it.bytes),
            connections: counts.connections,
            operations,
        }
    }
}

impl OperationView {
    fn new(operation: &'static str, counts: &KindCounts) -> Self {
        let us = |time: Option<Duration>| time.map(|time| time.as_nanos() as f64 / 1e3);
        let quantile = |share| us(counts.latency.quantile(share));
        let by_status = counts.by_status().map(|(status, n)| (status.to_owned(), n.into()));
        Self {
            operation,
            requests: counts.requests(),
            by_status: by_status.collect(),
            latency_us: LatencyView {
                mean: us(counts.latency.mean()),
                p50: quantile(0.5),
                p90: quantile(0.9),
                p99: quantile(0.99),
                p999: quantile(0.999),
                max: quantile(1.0),
            },
        }
    }
}

impl From<CacheInfo> for CacheView {
    fn from(info: CacheInfo) -> Self {
        Self {
            size_bytes: info.size_bytes,
            used_bytes: info.used_bytes,
            pinned_bytes: info.pinned_bytes,
            clean_ups: info.shrink_count,
        }
    }
}

impl From<Gauge> for GaugeView {
    fn from(gauge: Gauge) -> Self {
        Self { name: gauge.name, value: gauge.value, description: gauge.description }
    }
}

impl<'a> Version<'a> {
    pub(super) fn of(state: &'a State) -> Self {
        let executable = std::env::current_exe().ok();
        Self {
            name: &state.server.name,
            plugin: state.socket.version.as_deref(),
            sdk: env!("CARGO_PKG_VERSION"),
            protocol: cvmcache_proto::PROTOCOL_VERSION,
            api: super::routes::API,
            pid: std::process::id(),
            started: state.started_at.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            uptime_seconds: state.server.started.elapsed().as_secs_f64(),
            executable: executable.map(|path| path.display().to_string()),
        }
    }
}

fn ratio(hits: u64, misses: u64) -> Option<f64> {
    let all = hits + misses;
    (all > 0).then(|| hits as f64 / all as f64)
}
