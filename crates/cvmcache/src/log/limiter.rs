//! The rate limit of the log: a number of lines a minute for each place in the code.
//!
//! Nothing a client does is worth more, or a hostile one could fill the disk. Counted by place, and
//! not by content, because the content can be the client's. Suppressed lines are reported once a minute.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tracing::Metadata;
use tracing::callsite::Identifier;

use crate::REPORT;

/// How many lines each place may log in a minute.
pub(super) const LINES_A_MINUTE: u32 = 20;

/// The target of lines about the log itself: at most one for each place.
pub(super) const ABOUT_THE_LOG: &str = "cvmcache::log";

/// Lets lines through until there are too many of their kind. Clones share what they count.
///
/// Invariant: the lock is not held while a line is formatted, logged or written, so that a thread that
/// logs waits for no more than one access to the table; and the reporter, whose own lines are admitted
/// without the lock, cannot deadlock.
#[derive(Debug, Clone, Default)]
pub(super) struct Limiter(Arc<Mutex<HashMap<Identifier, Place>>>);

/// A place that logs.
#[derive(Debug)]
struct Place {
    file: String,
    line: u32,
    lines: u32,
}

/// How many lines of a place were suppressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suppressed {
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) count: u32,
}

impl Limiter {
    /// Begins another minute. Returns what was suppressed in the last one.
    pub(super) fn begin_minute(&self) -> Vec<Suppressed> {
        let places = mem::take(&mut *self.places());
        let over = places.into_values().filter(|place| place.lines > LINES_A_MINUTE);
        let suppressed = over.map(|place| Suppressed {
            file: place.file,
            line: place.line,
            count: place.lines - LINES_A_MINUTE,
        });
        suppressed.collect()
    }

    /// True if this place may log one more line now.
    pub(super) fn admits(&self, metadata: &Metadata<'_>) -> bool {
        if [REPORT, ABOUT_THE_LOG].contains(&metadata.target()) {
            return true;
        }
        let mut places = self.places();
        let place = places.entry(metadata.callsite()).or_insert_with(|| Place {
            file: metadata.file().unwrap_or("an unknown place").to_owned(),
            line: metadata.line().unwrap_or(0),
            lines: 0,
        });
        place.lines = place.lines.saturating_add(1);
        place.lines <= LINES_A_MINUTE
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Identifier, Place>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use tracing::{info, warn};
    use tracing_subscriber::fmt::layer;
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::lines::Lines;
    use super::super::prefix::Prefix;
    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_limited_by_their_place_in_the_code() {
        let (written, limiter) = (Written::default(), Limiter::default());
        let limiter_of_lines = Some(limiter.clone());
        let writer = written.clone();
        let lines = Lines { writer, prefix: Prefix::None, limiter: limiter_of_lines };
        let layer = layer().with_writer(lines);
        let subscriber = tracing_subscriber::registry().with(layer);
        let lines = || {
            let text = mem::take(&mut *written.0.lock());
            text.split(|&byte| byte == b'\n').count() - 1
        };
        tracing::subscriber::with_default(subscriber, || {
            let noise = |number| info!("noise {number}");
            (0..1000).for_each(noise);
            assert_eq!(lines(), LINES_A_MINUTE as usize);
            warn!("something else");
            (0..100).for_each(|_| info!(target: REPORT, "a report is wanted in full"));
            assert_eq!(lines(), 101);

            let suppressed = limiter.begin_minute();
            let count = 1000 - LINES_A_MINUTE;
            assert!(matches!(&suppressed[..], [one] if one.count == count), "{suppressed:?}");
            assert_eq!(suppressed[0].file, file!());
            noise(0);
            assert_eq!(lines(), 1);
            assert_eq!(limiter.begin_minute(), []);
        });
    }
}
