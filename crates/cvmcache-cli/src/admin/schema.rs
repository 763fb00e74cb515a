//! The answers of the administration socket, as far as they are used; fields that came later are ignored.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    pub(crate) name: String,
    pub(crate) resources: Vec<Resource>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Resource {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) description: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Sessions {
    pub(crate) sessions: Vec<Session>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) repository: String,
    pub(crate) pid: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) address: Option<String>,
    pub(crate) age_seconds: f64,
    pub(crate) references: u64,
    pub(crate) uploads: u64,
    pub(crate) in_flight: u64,
    pub(crate) unsent_bytes: u64,
    pub(crate) requests: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Statistics {
    pub(crate) since_start: Window,
    pub(crate) since_zero: Option<Window>,
    pub(crate) last_minute: Window,
    pub(crate) plugin: Vec<Gauge>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Window {
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) connections: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) hit_ratio: Option<f64>,
    pub(crate) read_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) stored_objects: u64,
    #[serde(default)]
    pub(crate) evicted_objects: Option<u64>,
    #[serde(default)]
    pub(crate) evicted_bytes: Option<u64>,
    pub(crate) operations: Vec<Operation>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Operation {
    pub(crate) operation: String,
    pub(crate) requests: u64,
    pub(crate) by_status: BTreeMap<String, u64>,
    pub(crate) latency_us: Latency,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Gauge {
    pub(crate) name: String,
    pub(crate) value: Value,
    pub(crate) description: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Configuration {
    #[serde(default)]
    pub(crate) file: Option<String>,
    pub(crate) settings: Vec<Setting>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
    /// As a value or in words.
    #[serde(default)]
    pub(crate) default: Option<String>,
    pub(crate) source: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Health {
    pub(crate) status: String,
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) plugin: Option<String>,
    pub(crate) sdk: String,
    pub(crate) pid: u32,
    pub(crate) uptime_seconds: f64,
    pub(crate) executable: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Detached {
    pub(crate) asked: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct LogLevel {
    pub(crate) level: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Failure {
    pub(crate) error: String,
}
