//! How clients report to the parent: lines on a pipe that all of them share.
//!
//! Invariant: each line is one write of at most `PIPE_BUF` bytes, which is atomic, so that killing a
//! client never cuts a line or mixes two.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::violation::Violation;

/// The most that a pipe takes atomically (`PIPE_BUF`).
const MAX_LINE: usize = 4096;
/// The interval of reports.
const INTERVAL: Duration = Duration::from_millis(200);

/// The side of a client: counts, and reports at intervals.
#[derive(Debug)]
pub(super) struct Counter {
    counts: BTreeMap<&'static str, u64>,
    reported: Instant,
}

/// A line, on the side of the parent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Counts(Vec<(String, u64)>),
    Violation(String),
}

impl Counter {
    pub(super) fn new() -> Self {
        Self { counts: BTreeMap::new(), reported: Instant::now() }
    }

    pub(super) fn add(&mut self, what: &'static str, count: u64) {
        *self.counts.entry(what).or_default() += count;
    }

    /// Reports the counts if the interval has passed.
    pub(super) fn report_at_interval(&mut self) -> io::Result<()> {
        if self.reported.elapsed() > INTERVAL { self.report() } else { Ok(()) }
    }

    pub(super) fn report(&mut self) -> io::Result<()> {
        let mut line = "did".to_owned();
        for (what, count) in std::mem::take(&mut self.counts) {
            let _ = write!(line, " {what}={count}");
        }
        self.reported = Instant::now();
        write_line(line)
    }
}

pub(super) fn report_violation(violation: &Violation, number: u64) -> io::Result<()> {
    write_line(format!("violation client {number}: {}", violation.to_string().replace('\n', " ")))
}

fn write_line(mut line: String) -> io::Result<()> {
    let mut end = line.len().min(MAX_LINE - 1);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line.push('\n');
    io::stdout().lock().write_all(line.as_bytes())
}

impl Line {
    pub(super) fn parse(line: &str) -> Option<Self> {
        if let Some(violation) = line.strip_prefix("violation ") {
            return Some(Line::Violation(violation.to_owned()));
        }
        let counts = line.strip_prefix("did")?.split_whitespace().map(|count| {
            let (what, count) = count.split_once('=')?;
            Some((what.to_owned(), count.parse().ok()?))
        });
        counts.collect::<Option<_>>().map(Line::Counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_clients_are_parsed() {
        let counts = vec![("read".to_owned(), 3), ("store".to_owned(), 4)];
        assert_eq!(Line::parse("did read=3 store=4"), Some(Line::Counts(counts)));
        assert_eq!(Line::parse("violation a = b"), Some(Line::Violation("a = b".to_owned())));
        assert_eq!(Line::parse("did read=x"), None);
        assert_eq!(Line::parse("thread 'main' panicked"), None);
    }
}
