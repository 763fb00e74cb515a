//! A client of an administration socket, and the check that a plugin's answers have the fields of the schema.

mod exchange;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cvmcache::Locator;
use cvmcache::admin::{AdminSocket, Value};
use thiserror::Error;

use exchange::Method;

/// The default timeout: more than any answer takes.
const TIMEOUT: Duration = Duration::from_secs(90);

/// A client of a plugin's administration socket.
///
/// ```no_run
/// use cvmcache_testkit::{AdminClient, PluginCommand};
///
/// let plugin = PluginCommand::new("target/debug/my-plugin").start()?;
/// let admin = AdminClient::of(plugin.locator());
/// admin.check_schema();
/// assert_eq!(admin.gauge("objects"), 0);
/// # Ok::<(), cvmcache_testkit::StartError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminClient {
    path: PathBuf,
    timeout: Duration,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AdminAnswer {
    /// The status code of HTTP.
    pub status: u16,
    /// The body; the text if it is not JSON.
    pub body: Value,
}

/// Why a request has no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The socket cannot be connected to.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// Too little was sent or received.
    #[error(transparent)]
    Exchange(io::Error),
    /// There was no whole answer within the timeout.
    #[error("no answer within the timeout")]
    TimedOut,
    /// The connection was closed without an answer.
    #[error("closed without an answer")]
    Closed,
    /// What was received is no response.
    #[error("no HTTP response: {0}")]
    NotHttp(String),
}

impl AdminClient {
    /// A client of the socket at this path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), timeout: TIMEOUT }
    }

    /// A client of the socket beside a plugin's own.
    ///
    /// # Panics
    ///
    /// If that is a TCP socket: write `CVMFS_CACHE_PLUGIN_ADMIN` in its configuration, and use [`at`](Self::at).
    pub fn of(locator: &Locator) -> Self {
        assert!(matches!(locator, Locator::Unix(_)), "{locator} has no path");
        Self::at(AdminSocket::path_of(locator, Path::new("")))
    }

    /// How long a request may take, from connecting to the end of its answer. Default: 90 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a resource.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub fn get(&self, resource: &str) -> Result<AdminAnswer, AdminError> {
        self.request(Method::Get, resource, "")
    }

    /// Has something done, with a JSON object as arguments; an empty text is one without any.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get).
    pub fn post(&self, resource: &str, arguments: &str) -> Result<AdminAnswer, AdminError> {
        self.request(Method::Post, resource, arguments)
    }

    /// The value of one of the plugin's gauges.
    ///
    /// # Panics
    ///
    /// If there is no such gauge, or no answer.
    #[track_caller]
    pub fn gauge(&self, name: &str) -> Value {
        let answer = self.expect("/v1/plugin");
        let gauges = array("/v1/plugin", &answer["gauges"]);
        let found = gauges.iter().find(|gauge| gauge["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {answer}"))["value"].clone()
    }

    /// The value of one of the plugin's gauges that is a number.
    ///
    /// # Panics
    ///
    /// If there is no such gauge, it is no number that is not negative, or there is no answer.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        let value = self.gauge(name);
        value.as_u64().unwrap_or_else(|| panic!("{name} is {value}"))
    }

    /// Reads every resource of `docs/administration.md`, and checks that each has the fields of the
    /// schema, and that every command of the SDK is known. It detaches and shrinks nothing.
    ///
    /// # Panics
    ///
    /// If one does not.
    #[track_caller]
    pub fn check_schema(&self) {
        let index = self.expect("/v1");
        has_fields("/v1", &index, &["name", "api", "resources"]);
        for resource in array("/v1", &index["resources"]) {
            has_fields("/v1", resource, &["method", "path", "description"]);
        }
        for (method, path) in RESOURCES {
            let is_it = |it: &&Value| it["method"] == *method && it["path"] == *path;
            let found = array("/v1", &index["resources"]).iter().find(is_it);
            assert!(found.is_some(), "no {method} {path} in {index}");
        }
        for session in array("/v1/sessions", &self.expect("/v1/sessions")["sessions"]) {
            has_fields("/v1/sessions", session, SESSION);
        }
        let statistics = self.expect("/v1/statistics");
        has_fields("/v1/statistics", &statistics, STATISTICS);
        let windows = ["since_start", "last_minute", "since_zero"].map(|name| &statistics[name]);
        for window in windows.into_iter().filter(|window| !window.is_null()) {
            has_fields("/v1/statistics", window, WINDOW);
            for operation in array("/v1/statistics", &window["operations"]) {
                has_fields("/v1/statistics", operation, OPERATION);
                has_fields("/v1/statistics", &operation["latency_us"], LATENCY);
            }
        }
        if !statistics["cache"].is_null() {
            has_fields("/v1/statistics", &statistics["cache"], CACHE);
        }
        let configuration = self.expect("/v1/configuration");
        has_fields("/v1/configuration", &configuration, &["file", "settings"]);
        for setting in array("/v1/configuration", &configuration["settings"]) {
            has_fields("/v1/configuration", setting, SETTING);
        }
        let health = self.expect("/v1/health");
        has_fields("/v1/health", &health, &["status", "problems", "io_thread_us"]);
        has_fields("/v1/version", &self.expect("/v1/version"), VERSION);
        let report = self.expect("/v1/report");
        let lines = array("/v1/report", &report["report"]);
        assert!(lines.len() >= 3, "/v1/report: {report}");
        for gauge in array("/v1/plugin", &self.expect("/v1/plugin")["gauges"]) {
            has_fields("/v1/plugin", gauge, &["name", "value", "description"]);
        }
    }

    /// A resource that is there.
    #[track_caller]
    fn expect(&self, resource: &str) -> Value {
        let answer = self.get(resource).unwrap_or_else(|error| panic!("{resource}: {error}"));
        assert_eq!(answer.status, 200, "{resource}: {}", answer.body);
        answer.body
    }

    fn request(
        &self,
        method: Method,
        resource: &str,
        body: &str,
    ) -> Result<AdminAnswer, AdminError> {
        let deadline = Instant::now() + self.timeout;
        let (status, body) =
            exchange::send(&self.path, method, resource, body.as_bytes(), deadline)?;
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&body)));
        Ok(AdminAnswer { status, body })
    }
}

impl fmt::Display for AdminAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.body)
    }
}

/// What there is in every plugin.
const RESOURCES: &[(&str, &str)] = &[
    ("GET", "/v1/sessions"),
    ("GET", "/v1/statistics"),
    ("GET", "/v1/configuration"),
    ("GET", "/v1/health"),
    ("GET", "/v1/version"),
    ("GET", "/v1/plugin"),
    ("GET", "/v1/log-level"),
    ("POST", "/v1/log-level"),
    ("POST", "/v1/detach"),
    ("POST", "/v1/shrink"),
    ("GET", "/v1/report"),
    ("POST", "/v1/report"),
    ("POST", "/v1/zero"),
];

const SESSION: &[&str] = &[
    "id",
    "repository",
    "instance",
    "pid",
    "uid",
    "address",
    "age_seconds",
    "references",
    "uploads",
    "upload_bytes",
    "listings",
    "in_flight",
    "unsent_bytes",
    "buffered_bytes",
    "requests",
    "hits",
    "misses",
    "hit_ratio",
];

const STATISTICS: &[&str] = &["since_start", "since_zero", "last_minute", "cache", "plugin"];

const WINDOW: &[&str] = &[
    "seconds",
    "requests",
    "connections",
    "hits",
    "misses",
    "hit_ratio",
    "read_bytes",
    "stored_bytes",
    "stored_objects",
    "evicted_objects",
    "evicted_bytes",
    "operations",
];

const OPERATION: &[&str] = &["operation", "requests", "by_status", "latency_us"];
const LATENCY: &[&str] = &["mean", "p50", "p90", "p99", "p999", "max"];
const SETTING: &[&str] = &["key", "value", "source", "default", "meaning"];
const CACHE: &[&str] = &["size_bytes", "used_bytes", "pinned_bytes", "clean_ups"];

const VERSION: &[&str] =
    &["name", "plugin", "sdk", "protocol", "api", "pid", "started", "uptime_seconds", "executable"];

#[track_caller]
fn array<'a>(resource: &str, value: &'a Value) -> &'a [Value] {
    value.as_array().unwrap_or_else(|| panic!("{resource}: {value} is no array"))
}

#[track_caller]
fn has_fields(resource: &str, value: &Value, names: &[&str]) {
    for name in names {
        assert!(value.get(*name).is_some(), "{resource}: no {name} in {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_resource_and_field_that_is_checked() {
        let page = include_str!("../../../docs/administration.md");
        let fields =
            [SESSION, STATISTICS, WINDOW, OPERATION, LATENCY, CACHE, SETTING, VERSION].concat();
        let paths = RESOURCES.iter().map(|(_, path)| *path);
        for name in fields.into_iter().chain(paths) {
            assert!(page.contains(&format!("`{name}`")), "the page lacks `{name}`");
        }
    }
}
