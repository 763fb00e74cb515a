//! The results as tables.

use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;

use super::results::{Report, Result as Measured, Settings, Spread};
use super::workload::Workload;
use crate::error::Result;
use crate::output::{self, FAINT, TITLE, count};

/// Stands for an unknown or undefined figure.
const NOTHING: &str = "-";

/// Prints the list of workloads.
pub(super) fn list(out: &mut dyn Write, json: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Entry {
        name: &'static str,
        meaning: String,
        evicts: bool,
    }
    let entry = |workload: &Workload| Entry {
        name: workload.name(),
        meaning: workload.meaning(),
        evicts: workload.evicts(),
    };
    let entries: Vec<_> = Workload::value_variants().iter().map(entry).collect();
    if json {
        return output::json(out, &entries);
    }
    for Entry { name, meaning, .. } in entries {
        writeln!(out, "{TITLE}{name:<7}{TITLE:#} {meaning}")?;
    }
    Ok(())
}

/// Prints all results, and notes about what was left out.
pub(super) fn print(out: &mut dyn Write, report: &Report, notes: &[String]) -> Result<()> {
    for plugin in &report.plugins {
        let pid = plugin.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        let size = plugin.size_bytes.map(output::bytes).map(|size| format!(", {size}"));
        let (name, size) = (&plugin.name, size.unwrap_or_default());
        writeln!(out, "{TITLE}{name}{TITLE:#} at {}{pid}{size}", plugin.locator)?;
    }
    writeln!(out, "{}", how(&report.settings))?;
    for note in notes {
        writeln!(out, "{note}")?;
    }
    throughput_and_latency(out, report)?;
    passes(out, report)?;
    ratios(out, report)?;
    costs(out, report)
}

fn how(settings: &Settings) -> String {
    let Settings { connections, in_flight, idle_connections, rounds, seconds_per_round } = settings;
    let idle = match idle_connections {
        0 => String::new(),
        n => format!(" besides {} idle", count(*n)),
    };
    let plural = |n: usize, what| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let seconds = format!("{seconds_per_round:.3}");
    format!(
        "{}{idle}, {} in flight on each, {} of {} s",
        plural(*connections, "connection"),
        plural(*in_flight, "request"),
        plural(*rounds as usize, "round"),
        seconds.trim_end_matches('0').trim_end_matches('.'),
    )
}

fn throughput_and_latency(out: &mut dyn Write, report: &Report) -> Result<()> {
    let header = ["workload", "on", "ops/s", "requests/s", "MiB/s", "p50", "p99", "p99.9", "max"];
    let mut rows = Vec::new();
    for (workload, result) in all(report) {
        let latency = &result.latency_ns;
        let mut row = vec![workload, result.candidate.clone()];
        row.push(rate(result.ops_per_second));
        row.push(rate(result.requests_per_second));
        row.push(match result.bytes_per_second / f64::from(1 << 20) {
            0.0 => NOTHING.to_owned(),
            mebibytes => rate(mebibytes),
        });
        // Without hits, there are no latencies.
        let shown =
            |time| if result.latencies.is_empty() { NOTHING.into() } else { duration(time) };
        row.extend([latency.p50, latency.p99, latency.p999, latency.max].map(shown));
        rows.push(row);
    }
    table(out, &header, rows)
}

fn ratios(out: &mut dyn Write, report: &Report) -> Result<()> {
    let header = ["workload", "ratio of", "ops/s", "p50", "p99"];
    let mut rows = Vec::new();
    for results in &report.workloads {
        for ratio in &results.ratios {
            let mut row =
                vec![results.workload.to_string(), format!("{} to {}", ratio.of, ratio.to)];
            row.extend([&ratio.ops_per_second, &ratio.p50, &ratio.p99].map(spread));
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    table(out, &header, rows)?;
    writeln!(
        out,
        "{FAINT}medians of rounds side by side, and from the least to the most{FAINT:#}"
    )?;
    Ok(())
}

/// CPU time and memory, as far as they are known.
fn costs(out: &mut dyn Write, report: &Report) -> Result<()> {
    let header =
        ["workload", "on", "CPU per million", "memory", "at most", "of size", "hits", "evicted"];
    let unknown = || NOTHING.to_owned();
    let mut rows = Vec::new();
    for (workload, result) in all(report) {
        let known = (result.cpu_seconds_per_million_requests, result.memory, result.hit_ratio);
        if matches!(known, (None, None, None)) && result.evicted_bytes.is_none() {
            continue;
        }
        let percent = |part: f64| format!("{:.1} %", part * 100.0);
        let cpu = result.cpu_seconds_per_million_requests.map(|s| duration((s * 1e9) as u64));
        let memory = result.memory;
        rows.push(vec![
            workload,
            result.candidate.clone(),
            cpu.unwrap_or_else(unknown),
            memory.map_or_else(unknown, |memory| output::bytes(memory.resident_bytes)),
            memory.map_or_else(unknown, |memory| output::bytes(memory.peak_bytes)),
            result.peak_per_size.map_or_else(unknown, percent),
            result.hit_ratio.map_or_else(unknown, percent),
            result.evicted_bytes.map_or_else(unknown, output::bytes),
        ]);
    }
    if rows.is_empty() { Ok(()) } else { table(out, &header, rows) }
}

/// What a pass of a mount takes.
fn passes(out: &mut dyn Write, report: &Report) -> Result<()> {
    let header = ["workload", "on", "files", "requests", "a pass takes", "CPU", "switches"];
    let unknown = || NOTHING.to_owned();
    let row = |(workload, result): (String, &Measured)| {
        let pass = result.pass?;
        let nanoseconds = |seconds: f64| duration((seconds * 1e9) as u64);
        let cpu = pass.cpu_seconds.map_or_else(unknown, nanoseconds);
        let switches = pass.context_switches.map_or_else(unknown, count);
        let seconds = nanoseconds(pass.seconds);
        let (files, requests) = (count(pass.files), count(pass.requests));
        Some(vec![workload, result.candidate.clone(), files, requests, seconds, cpu, switches])
    };
    let rows: Vec<_> = all(report).filter_map(row).collect();
    if rows.is_empty() { Ok(()) } else { table(out, &header, rows) }
}

fn all(report: &Report) -> impl Iterator<Item = (String, &Measured)> {
    let of = |(n, workload): (usize, Workload)| {
        if n == 0 { workload.to_string() } else { String::new() }
    };
    report.workloads.iter().flat_map(move |results| {
        let numbered = results.results.iter().enumerate();
        numbered.map(move |(n, result)| (of((n, results.workload)), result))
    })
}

/// Texts to the left in the first two columns, figures to the right in the others.
fn table(out: &mut dyn Write, header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    writeln!(out)?;
    output::table(out, header, rows, 2)
}

fn spread(spread: &Spread) -> String {
    if spread.pairs.is_empty() {
        return NOTHING.to_owned();
    }
    format!("{:.2} ({:.2} to {:.2})", spread.median, spread.min, spread.max)
}

/// A time in nanoseconds, to three digits.
fn duration(nanoseconds: u64) -> String {
    let (value, unit) = match nanoseconds as f64 {
        n if n < 999.5 => return format!("{n} ns"),
        n if n < 999.5e3 => (n / 1e3, "µs"),
        n if n < 999.5e6 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// A rate, with a digit behind the point if it is small.
pub(super) fn rate(value: f64) -> String {
    if value < 99.95 { format!("{value:.1}") } else { count(value.round() as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let times = [0, 999, 1000, 12_345, 99_960, 999_600, 1_234_567, 12_000_000_000];
        let texts =
            ["0 ns", "999 ns", "1.00 µs", "12.3 µs", "100 µs", "1.00 ms", "1.23 ms", "12.0 s"];
        assert_eq!(times.map(duration), texts);
    }

    #[test]
    fn rates_are_easy_to_read() {
        assert_eq!(
            [0.0, 1.25, 99.96, 1234.6, 1e6].map(rate),
            ["0.0", "1.2", "100", "1,235", "1,000,000"]
        );
    }
}
