//! `cvmcache stats`: requests, hits, bytes and latencies of a plugin.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use thiserror::Error;

use crate::Verdict;
use crate::admin::schema::{Gauge, Operation, Statistics, Version, Window};
use crate::admin::{Admin, AdminRemote, Answer};
use crate::error::{self, Result};
use crate::output::{self, FAINT, TITLE};

const EXAMPLES: &str = "\
Examples:
  cvmcache stats unix=/var/lib/cvmfs/cvmcache-ram.socket
  cvmcache stats --zero     # begins to count anew, besides
  cvmcache stats --watch 5  # a line every five seconds where it is not a terminal
  cvmcache stats --json | jq .last_minute.hit_ratio

--zero changes nothing for others: what is counted since the start goes on. Times are from when a
request is taken until its reply is queued: half of them were shorter than p50, 99 % shorter than
p99.

It uses the plugin's administration socket, as the plugin's user or root.";

const INSTEAD: &str = "the protocol tells how full the cache is, which cvmcache info and top show; hits \
                       and latencies are in the metrics, if it serves them";

/// The pause of `--watch`.
const PAUSE: Duration = Duration::from_secs(2);

/// Show requests, hits, bytes and latencies, since the start and of the last minute
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Stats {
    #[command(flatten)]
    remote: AdminRemote,
    /// Show them again and again: on a pipe, a line each time
    #[arg(long, value_name = "SECONDS", num_args = 0..=1)]
    watch: Option<Option<OsString>>,
    /// Begin to count anew first, besides what is counted since the start
    #[arg(long)]
    zero: bool,
    /// Print JSON; with --watch, a line each time
    #[arg(long)]
    json: bool,
}

/// The pause is none.
#[derive(Debug, Error)]
#[error("--watch {0:?}: write a number of seconds from 0.1 to 86400")]
pub(crate) struct ParsePauseError(OsString);

impl From<ParsePauseError> for error::Error {
    fn from(error: ParsePauseError) -> Self {
        Self::usage(error)
    }
}

impl Stats {
    pub(crate) fn run(mut self, out: &mut dyn Write) -> Result<Verdict> {
        let pause = match self.watch.take() {
            None => None,
            Some(Some(word)) if !self.remote.give_locator(&word) => Some(pause(word)?),
            Some(_) => Some(PAUSE),
        };
        let admin = self.remote.find("stats", INSTEAD)?;
        if self.zero {
            admin.post::<Value>("/v1/zero", None)?;
        }
        match pause {
            None => {
                let answer = statistics(&admin)?;
                match self.json {
                    true => output::json(out, &answer.json)?,
                    false => print(out, &version(&admin)?, &answer.value)?,
                }
            }
            Some(pause) => self.watch(out, &admin, pause)?,
        }
        Ok(Verdict::Good)
    }

    /// Until the plugin or the reader has gone.
    fn watch(&self, out: &mut dyn Write, admin: &Admin, pause: Duration) -> Result<()> {
        let on_terminal = io::stdout().is_terminal();
        let version = version(admin)?;
        let mut before: Option<Window> = None;
        loop {
            let answer = statistics(admin)?;
            if self.json {
                writeln!(out, "{}", answer.json)?;
            } else if on_terminal {
                let mut screen = Vec::new();
                print(&mut screen, &version, &answer.value)?;
                redraw(out, &screen)?;
            } else {
                let now = answer.value.since_start;
                match &before {
                    None => writeln!(out, "{LINE_HEADER}")?,
                    Some(before) => writeln!(out, "{}", line(before, &now))?,
                }
                before = Some(now);
            }
            out.flush()?;
            thread::sleep(pause);
        }
    }
}

fn statistics(admin: &Admin) -> Result<Answer<Statistics>> {
    Ok(admin.get("/v1/statistics")?)
}

fn version(admin: &Admin) -> Result<Version> {
    Ok(admin.get("/v1/version")?.value)
}

/// Draws from the top, as much as there is room for.
fn redraw(out: &mut dyn Write, screen: &[u8]) -> Result<()> {
    let size = terminal_size::terminal_size_of(io::stdout());
    let rows = size.map_or(usize::MAX, |(_, rows)| rows.0.saturating_sub(1).into());
    write!(out, "\x1b[H\x1b[J")?;
    for line in screen.split_inclusive(|&byte| byte == b'\n').take(rows) {
        out.write_all(line)?;
    }
    Ok(())
}

/// How wide a line is made at most.
const WIDTH: usize = 80;

const LINE_HEADER: &str = "    req/s   hits     read/s   stored/s   errors/s";

/// What has happened between two answers.
fn line(before: &Window, now: &Window) -> String {
    let seconds = (now.seconds - before.seconds).max(1e-3);
    let since = |now: u64, before: u64| now.saturating_sub(before);
    let rate = |now, before| since(now, before) as f64 / seconds;
    let bytes = |now, before| output::bytes(rate(now, before) as u64);
    let ratio =
        crate::sessions::ratio(since(now.hits, before.hits), since(now.misses, before.misses));
    format!(
        "{:>9.1} {:>6} {:>10} {:>10} {:>10.1}",
        rate(now.requests, before.requests),
        output::percent(ratio),
        bytes(now.read_bytes, before.read_bytes),
        bytes(now.stored_bytes, before.stored_bytes),
        rate(failed(now), failed(before)),
    )
}

fn failed(window: &Window) -> u64 {
    window.operations.iter().map(Operation::failed).sum()
}

fn print(out: &mut dyn Write, version: &Version, statistics: &Statistics) -> Result<()> {
    let name = output::escaped(&version.name);
    let age = output::age(version.uptime_seconds);
    let plugin = version.plugin.as_deref().map(|plugin| format!(" {}", output::escaped(plugin)));
    let plugin = plugin.unwrap_or_default();
    let (pid, sdk) = (version.pid, output::escaped(&version.sdk));
    writeln!(out, "{TITLE}{name}{plugin}{TITLE:#}, SDK {sdk}, process {pid}, up for {age}")?;
    writeln!(out)?;
    let Statistics { since_start, since_zero, last_minute, plugin } = statistics;
    let windows: Vec<_> =
        [Some(since_start), since_zero.as_ref(), Some(last_minute)].into_iter().flatten().collect();
    print_summary(out, &windows, since_zero.is_some())?;
    let whole = since_zero.as_ref().unwrap_or(since_start);
    if !whole.operations.is_empty() {
        writeln!(out)?;
        print_operations(out, whole, last_minute, since_zero.is_some())?;
    }
    if !plugin.is_empty() {
        writeln!(out)?;
        print_gauges(out, plugin)?;
    }
    Ok(())
}

fn print_summary(out: &mut dyn Write, windows: &[&Window], has_zero: bool) -> Result<()> {
    let header = match has_zero {
        true => &["", "since start", "since zero", "last minute"][..],
        false => &["", "since start", "last minute"],
    };
    let row = |name: &str, cell: &dyn Fn(&Window) -> String| {
        let cells = windows.iter().map(|window| cell(window));
        [name.to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
    };
    let unknown = || "-".to_owned();
    let rows = vec![
        row("requests", &|window| output::count(window.requests)),
        row("hits", &|window| output::count(window.hits)),
        row("misses", &|window| output::count(window.misses)),
        row("hit ratio", &|window| output::percent(window.hit_ratio)),
        row("read", &|window| output::bytes(window.read_bytes)),
        row("stored", &|window| output::bytes(window.stored_bytes)),
        row("stored objects", &|window| output::count(window.stored_objects)),
        row("evicted", &|window| window.evicted_bytes.map_or_else(unknown, output::bytes)),
        row("evicted objects", &|window| {
            window.evicted_objects.map_or_else(unknown, output::count)
        }),
        row("connections", &|window| output::count(window.connections)),
    ];
    output::table(out, header, rows, 1)
}

/// One line an operation; below it, what else than OK was answered.
fn print_operations(
    out: &mut dyn Write,
    whole: &Window,
    minute: &Window,
    is_zeroed: bool,
) -> Result<()> {
    let since = if is_zeroed { "since zero" } else { "since start" };
    writeln!(out, "{TITLE}{:<13}{:>34}{:>31}{TITLE:#}", "", since, "last minute")?;
    writeln!(
        out,
        "{TITLE}{:<16}{:>11}{:>10}{:>10}{:>11}{:>10}{:>10}{TITLE:#}",
        "operation", "requests", "p50", "p99", "requests", "p50", "p99"
    )?;
    for operation in &whole.operations {
        let recent = minute.operations.iter().find(|it| it.operation == operation.operation);
        let latency = recent.map(|it| it.latency_us).unwrap_or_default();
        writeln!(
            out,
            "{:<16}{:>11}{:>10}{:>10}{:>11}{:>10}{:>10}",
            output::escaped(&operation.operation),
            output::count(operation.requests),
            output::latency(operation.latency_us.p50),
            output::latency(operation.latency_us.p99),
            output::count(recent.map_or(0, |it| it.requests)),
            output::latency(latency.p50),
            output::latency(latency.p99),
        )?;
        let others = operation.by_status.iter().filter(|(status, _)| *status != "OK");
        let others: Vec<_> = others
            .map(|(status, n)| format!("{} {}", output::escaped(status), output::count(*n)))
            .collect();
        if !others.is_empty() {
            writeln!(out, "{FAINT}  {}{FAINT:#}", others.join(", "))?;
        }
    }
    Ok(())
}

/// The plugin's own gauges.
pub(crate) fn print_gauges(out: &mut dyn Write, gauges: &[Gauge]) -> Result<()> {
    let cells = gauges.iter().map(|gauge| (output::escaped(&gauge.name), value(gauge)));
    let cells: Vec<_> = cells.collect();
    let widest = |of: fn(&(String, String)) -> usize| cells.iter().map(of).max().unwrap_or(0);
    let (names, values) = (widest(|it| it.0.chars().count()), widest(|it| it.1.chars().count()));
    let indent = names + values + 4;
    for ((name, value), gauge) in cells.iter().zip(gauges) {
        let description = output::escaped(&gauge.description);
        let lines = textwrap::wrap(&description, WIDTH.saturating_sub(indent).max(20));
        let description = lines.join(&format!("\n{:indent$}", ""));
        writeln!(out, "{name:<names$}  {value:>values$}  {FAINT}{description}{FAINT:#}")?;
    }
    Ok(())
}

/// The value; a size also as people write it.
fn value(gauge: &Gauge) -> String {
    match (&gauge.value, gauge.value.as_u64()) {
        (_, Some(bytes)) if gauge.name.ends_with("_bytes") => output::bytes(bytes),
        (_, Some(number)) => output::count(number),
        (Value::String(text), _) => output::escaped(text),
        (value, _) => output::escaped(&value.to_string()),
    }
}

impl Operation {
    /// How many failed; that an object is not there is no failure.
    pub(crate) fn failed(&self) -> u64 {
        let is_failure = |status: &str| !["OK", "NOENTRY"].contains(&status);
        self.by_status.iter().filter(|(status, _)| is_failure(status)).map(|(_, n)| n).sum()
    }
}

fn pause(word: OsString) -> std::result::Result<Duration, ParsePauseError> {
    let seconds = word.to_str().and_then(|text| text.parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| (0.1..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or(ParsePauseError(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(seconds: f64, requests: u64, hits: u64, misses: u64) -> Window {
        let operation = Operation {
            operation: "read".to_owned(),
            requests,
            by_status: [("OK", 1), ("NOENTRY", 2), ("IOERR", requests / 10)]
                .map(|(status, n)| (status.to_owned(), n))
                .into(),
            latency_us: Default::default(),
        };
        Window {
            seconds,
            requests,
            connections: 1,
            hits,
            misses,
            hit_ratio: None,
            read_bytes: requests * 1024,
            stored_bytes: 0,
            stored_objects: 0,
            evicted_objects: None,
            evicted_bytes: None,
            operations: vec![operation],
        }
    }

    #[test]
    fn a_line_has_what_happened_between_two_answers() {
        let line = line(&window(10.0, 100, 0, 0), &window(20.0, 300, 1, 1));
        assert_eq!(line, "     20.0   50 %   20.0 KiB        0 B        2.0");
        assert_eq!(line.len(), LINE_HEADER.len());
    }

    #[test]
    fn a_pause_is_neither_too_short_nor_too_long() {
        assert_eq!(pause("0.5".into()).unwrap(), Duration::from_millis(500));
        for text in ["", "0", "-1", "NaN", "inf", "1e300", "2s"] {
            assert!(pause(text.into()).is_err(), "{text}");
        }
    }
}
