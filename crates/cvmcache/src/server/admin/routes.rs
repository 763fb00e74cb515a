//! Requests to the administration socket, and their responses.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{Level, info, warn};

use super::report;
use super::schema::{
    CacheView, Configuration, Failure, GaugeView, Health, Index, Resource, SessionList,
    SessionView, StatisticsView, Version,
};
use super::state::State;
use crate::admin::{Administration, Arguments, CommandError};
use crate::http::{Method, Request, Response, StatusCode};
use crate::plugin::Status;
use crate::server::telemetry::usage_line;
use crate::service::guard;

/// The version of the interface: the first part of all paths.
pub(super) const API: u32 = 1;

/// How long the I/O thread may take to be called healthy.
const HEALTHY: Duration = Duration::from_secs(1);
/// How long the plugin may take to say how full it is.
const USAGE: Duration = Duration::from_secs(2);
/// How long an administrator waits for a shrink; it goes on all the same.
const SHRINK: Duration = Duration::from_secs(60);

/// What there is besides the plugin's own commands.
const RESOURCES: [(&str, &str, &str); 13] = [
    ("GET", "/v1/sessions", "Sessions: what each holds, and has done"),
    (
        "GET",
        "/v1/statistics",
        "Requests, hits and latencies, since the start and of the last minute",
    ),
    ("GET", "/v1/configuration", "The configuration in force, and where each value comes from"),
    ("GET", "/v1/health", "Whether clients are served; status 503 if not"),
    ("GET", "/v1/version", "Versions, the process, and since when it serves"),
    ("GET", "/v1/plugin", "The plugin's own gauges"),
    ("GET", "/v1/log-level", "The level of the log"),
    (
        "POST",
        "/v1/log-level",
        "Changes the level of the log: {\"level\": \"error|warn|info|debug|trace\"}",
    ),
    ("POST", "/v1/detach", "Asks all clients to close the catalogs that they can do without"),
    ("POST", "/v1/shrink", "Evicts objects until at most so many bytes are used: {\"bytes\": N}"),
    ("GET", "/v1/report", "The status report"),
    ("POST", "/v1/report", "The same, which is written to the log as well"),
    ("POST", "/v1/zero", "Begins the window `since_zero` of the statistics"),
];

/// Where the plugin's own commands are.
const PLUGIN: &str = "/v1/plugin/";

pub(super) fn respond(state: &State, request: &Request) -> Response {
    let is_read = matches!(request.method, Method::Get | Method::Head);
    let path = request.path.strip_suffix('/').unwrap_or(&request.path);
    match (is_read, request.method, path) {
        (true, _, "" | "/v1") => index(state),
        (true, _, "/v1/sessions") => sessions(state),
        (true, _, "/v1/statistics") => statistics(state),
        (true, _, "/v1/configuration") => configuration(state),
        (true, _, "/v1/health") => health(state),
        (true, _, "/v1/version") => ok(&Version::of(state)),
        (true, _, "/v1/plugin") => match gauges(state) {
            Ok(gauges) => ok(&serde_json::json!({ "gauges": gauges })),
            Err(Panicked) => panicked(),
        },
        (true, _, "/v1/log-level") => log_level(state),
        (_, Method::Post, "/v1/log-level") => set_log_level(state, &request.body),
        (_, Method::Post, "/v1/detach") => detach(state),
        (_, Method::Post, "/v1/shrink") => shrink(state, &request.body),
        (true, _, "/v1/report") => report(state, None),
        (_, Method::Post, "/v1/report") => {
            state.server.handle.report();
            report(state, Some("log"))
        }
        (_, Method::Post, "/v1/zero") => zero(state),
        (_, Method::Post, path) if path.starts_with(PLUGIN) => {
            execute(state, &path[PLUGIN.len()..], &request.body)
        }
        _ => refuse(path),
    }
}

/// There is no such resource, or not with this method.
fn refuse(path: &str) -> Response {
    let methods: Vec<_> =
        RESOURCES.iter().filter(|resource| resource.1 == path).map(|it| it.0).collect();
    let (has_get, has_post) = (methods.contains(&"GET"), methods.contains(&"POST"));
    let allow = match (has_get, has_post) {
        (true, true) => "GET, HEAD, POST",
        (true, false) => "GET, HEAD",
        (false, true) => "POST",
        (false, false) if path.starts_with(PLUGIN) => "POST",
        (false, false) => {
            return fail(StatusCode::NotFound, format!("{path}: no such resource; see /v1"));
        }
    };
    let refusal = fail(StatusCode::MethodNotAllowed, format!("{path}: use {allow}"));
    Response { allow: Some(allow), ..refusal }
}

fn index(state: &State) -> Response {
    let own = RESOURCES.iter().map(|&(method, path, description)| Resource {
        method,
        path: path.to_owned(),
        description: description.to_owned(),
    });
    let commands = administer(state, |plugin| plugin.commands());
    let commands =
        commands.ok().flatten().unwrap_or_default().into_iter().map(|command| Resource {
            method: "POST",
            path: format!("{PLUGIN}{}", command.name),
            description: command.description,
        });
    ok(&Index { name: &state.server.name, api: API, resources: own.chain(commands).collect() })
}

fn sessions(state: &State) -> Response {
    let Some(service) = state.server.service.upgrade() else { return ends() };
    let connections = state.server.sessions.all();
    let views = connections.iter().filter_map(|counters| SessionView::of(counters, &service));
    let mut sessions: Vec<_> = views.collect();
    sessions.sort_by_key(SessionView::id);
    ok(&SessionList { sessions })
}

fn configuration(state: &State) -> Response {
    let file = state.socket.configuration_file.as_ref().map(|path| path.display().to_string());
    ok(&Configuration { file, settings: &state.socket.settings })
}

fn statistics(state: &State) -> Response {
    let usage = state.caller.call(USAGE, |service| service.usage());
    let (counts, now) = (state.counts(), Instant::now());
    let windows = state.windows.lock();
    let since_start = windows.since_start(now, &counts).into();
    let since_zero = windows.since_zero(now, &counts).map(Into::into);
    let last_minute = windows.last_minute(now, &counts).into();
    drop(windows);
    let cache = usage.ok().flatten().map(CacheView::from);
    let plugin = gauges(state).unwrap_or_default();
    ok(&StatisticsView { since_start, since_zero, last_minute, cache, plugin })
}

fn health(state: &State) -> Response {
    let begun = Instant::now();
    let answer = state.caller.call(HEALTHY, |_| ());
    let io_thread_us = answer.is_ok().then(|| begun.elapsed().as_micros() as u64);
    let mut problems = Vec::new();
    if answer.is_err() {
        let seconds = HEALTHY.as_secs();
        problems.push(format!(
            "no request has been taken for {seconds} s: a callback of the plugin, or a server behind it, \
             does not answer"
        ));
    }
    let is_well = problems.is_empty();
    let status = if is_well { "ok" } else { "failing" };
    let code = if is_well { StatusCode::Ok } else { StatusCode::ServiceUnavailable };
    json(code, &Health { status, problems, io_thread_us })
}

fn gauges(state: &State) -> Result<Vec<GaugeView>, Panicked> {
    let gauges = administer(state, |plugin| plugin.gauges())?.unwrap_or_default();
    Ok(gauges.into_iter().map(GaugeView::from).collect())
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLevelBody {
    level: String,
}

fn log_level(state: &State) -> Response {
    match &state.socket.log_level {
        Some(level) => ok(&LogLevelBody { level: level.get().to_string().to_lowercase() }),
        None => fail(StatusCode::NotImplemented, "the program has set up its log by itself"),
    }
}

fn set_log_level(state: &State, body: &[u8]) -> Response {
    let body: LogLevelBody = match parse(body, "{\"level\": \"debug\"}") {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let Ok(level) = body.level.parse::<Level>() else {
        let text = format!("{:?} is no level: write error, warn, info, debug or trace", body.level);
        return fail(StatusCode::BadRequest, text);
    };
    let Some(log) = &state.socket.log_level else { return log_level(state) };
    log.set(level);
    warn!("an administrator has set the level of the log to {level}");
    log_level(state)
}

fn detach(state: &State) -> Response {
    let sessions = state.server.sessions.all();
    let asked = sessions.iter().filter(|counters| counters.session().is_some()).count();
    state.server.handle.ask_detach();
    ok(&serde_json::json!({ "asked": asked }))
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ShrinkBody {
    bytes: u64,
}

fn shrink(state: &State, body: &[u8]) -> Response {
    let target = match parse::<ShrinkBody>(body, "{\"bytes\": N}") {
        Ok(body) => body.bytes,
        Err(refusal) => return refusal,
    };
    info!("an administrator shrinks the cache to {target} bytes");
    match state.caller.call(SHRINK, move |service| service.shrink_for_administrator(target)) {
        Ok(Ok(used)) => {
            ok(&serde_json::json!({ "used_bytes": used, "is_reached": used <= target }))
        }
        Ok(Err(Status::NoSupport)) => {
            fail(StatusCode::NotImplemented, "the plugin cannot shrink its cache")
        }
        Ok(Err(status)) => {
            fail(StatusCode::InternalServerError, format!("the plugin answers {}", status.name()))
        }
        Err(_) => {
            let seconds = SHRINK.as_secs();
            let text = format!("not done within {seconds} s; if it has begun, it goes on");
            fail(StatusCode::ServiceUnavailable, text)
        }
    }
}

#[derive(Debug, serde::Serialize)]
struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    written_to: Option<&'static str>,
    report: Vec<String>,
}

fn report(state: &State, written_to: Option<&'static str>) -> Response {
    let Some(service) = state.server.service.upgrade() else { return ends() };
    let mut report = report::lines(state, &service);
    drop(service);
    if let Ok(usage) = state.caller.call(USAGE, |service| service.usage()) {
        report.push(usage_line(usage.as_ref()));
    }
    ok(&Report { written_to, report })
}

fn zero(state: &State) -> Response {
    let counts = state.counts();
    state.windows.lock().zero(Instant::now(), counts);
    ok(&serde_json::json!({}))
}

fn execute(state: &State, command: &str, body: &[u8]) -> Response {
    let arguments: Arguments = match parse(body, "a JSON object") {
        Ok(arguments) => arguments,
        Err(refusal) => return refusal,
    };
    let result = administer(state, |plugin| {
        let is_known = plugin.commands().iter().any(|it| it.name == command);
        is_known.then(|| plugin.execute(command, &arguments))
    });
    let Ok(result) = result else { return panicked() };
    match result.flatten() {
        Some(Ok(value)) => ok(&value),
        Some(Err(error @ CommandError::Arguments(_))) => {
            fail(StatusCode::BadRequest, error.to_string())
        }
        Some(Err(error)) => fail(StatusCode::Conflict, error.to_string()),
        None => fail(StatusCode::NotFound, format!("{command}: the plugin has no such command")),
    }
}

/// The plugin's part has panicked, which is logged.
#[derive(Debug)]
struct Panicked;

fn panicked() -> Response {
    fail(StatusCode::InternalServerError, "the plugin has panicked: see its log")
}

/// Calls the plugin's part, behind the guard; `None` if it has none.
fn administer<T>(
    state: &State,
    call: impl FnOnce(&dyn Administration) -> T,
) -> Result<Option<T>, Panicked> {
    let Some(service) = state.server.service.upgrade() else { return Ok(None) };
    let called = guard("administration", || Ok(service.plugin().administration().map(call)));
    called.map_err(|_| Panicked)
}

/// An empty body is an empty object.
fn parse<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, Response> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| fail(StatusCode::BadRequest, format!("{error}: send {expected}")))
}

fn ok(value: &impl Serialize) -> Response {
    json(StatusCode::Ok, value)
}

fn fail(status: StatusCode, error: impl Into<String>) -> Response {
    json(status, &Failure { error: error.into() })
}

fn ends() -> Response {
    fail(StatusCode::ServiceUnavailable, "the server ends")
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            Response { status, content_type: "application/json", allow: None, body }
        }
        // A plugin's value can have a map whose keys are no texts.
        Err(error) => Response::text(StatusCode::InternalServerError, format!("{error}\n")),
    }
}
