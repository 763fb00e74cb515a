//! What clients have done, and how it comes to the parent: lines on a pipe that all clients share.
//! Each line goes with one write that is short enough to be atomic, so a client can be killed at
//! any time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::broken::Broken;

/// What a pipe takes in one piece (`PIPE_BUF`).
const LINE: usize = 4096;
const INTERVAL: Duration = Duration::from_millis(200);

/// How often something was done.
pub(super) type Counts = BTreeMap<String, u64>;

/// A client's side: counts, and says so from time to time.
#[derive(Debug)]
pub(super) struct Tally {
    counts: BTreeMap<&'static str, u64>,
    told: Instant,
}

/// A line, on the parent's side.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Counts(Vec<(String, u64)>),
    Broken(String),
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { counts: BTreeMap::new(), told: Instant::now() }
    }

    pub(super) fn add(&mut self, what: &'static str, count: u64) {
        *self.counts.entry(what).or_default() += count;
    }

    /// Tells the counts if they have not been told for a while.
    pub(super) fn tell_sometimes(&mut self) -> io::Result<()> {
        if self.told.elapsed() > INTERVAL { self.tell() } else { Ok(()) }
    }

    pub(super) fn tell(&mut self) -> io::Result<()> {
        let mut line = "did".to_owned();
        for (what, count) in std::mem::take(&mut self.counts) {
            let _ = write!(line, " {what}={count}");
        }
        self.told = Instant::now();
        write_line(line)
    }
}

pub(super) fn tell_broken(broken: &Broken, number: u64) -> io::Result<()> {
    write_line(format!("broke client {number}: {}", broken.to_string().replace('\n', " ")))
}

fn write_line(mut line: String) -> io::Result<()> {
    let mut end = line.len().min(LINE - 1);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line.push('\n');
    io::stdout().lock().write_all(line.as_bytes())
}

impl Line {
    pub(super) fn parse(line: &str) -> Option<Self> {
        if let Some(broken) = line.strip_prefix("broke ") {
            return Some(Line::Broken(broken.to_owned()));
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
    fn lines_are_understood() {
        let counts = vec![("read".to_owned(), 3), ("store".to_owned(), 4)];
        assert_eq!(Line::parse("did read=3 store=4"), Some(Line::Counts(counts)));
        assert_eq!(Line::parse("broke a = b"), Some(Line::Broken("a = b".to_owned())));
        assert_eq!(Line::parse("did read=x"), None);
        assert_eq!(Line::parse("thread 'main' panicked"), None);
    }
}
