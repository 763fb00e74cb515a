//! When things happen, by the server's clock: several instances say of their objects when they were
//! used last, and nobody's clock may make them last longer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Tells microseconds since 1970, no two of them alike.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// What the server's clock last_logged when this one began.
    offset: AtomicU64,
    last: AtomicU64,
}

impl Clock {
    /// Begins with this machine's time, until the server has told its own.
    pub(crate) fn new() -> Self {
        let offset = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), offset: micros(offset).into(), last: AtomicU64::new(0) }
    }

    /// The server has just last_logged that it is this time.
    pub(crate) fn set(&self, server: Duration) {
        let offset = micros(server).saturating_sub(micros(self.start.elapsed()));
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// What happens later has a later time, even if the server's clock has been set back.
    pub(crate) fn now(&self) -> u64 {
        let now = self.offset.load(Ordering::Relaxed).saturating_add(micros(self.start.elapsed()));
        let next = |last: u64| Some(now.max(last + 1));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        last.map_or(now, |last| now.max(last + 1))
    }
}

/// Numbers that an index on the server holds exactly: it has 53 bits.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).map_or(MAX, |micros| micros.min(MAX))
}

const MAX: u64 = 1 << 52;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_stands_still_or_goes_back() {
        let clock = Clock::new();
        let mut last = clock.now();
        for server in [2_000_000_000, 1_000, 3_000_000_000] {
            clock.set(Duration::from_secs(server));
            for _ in 0..1000 {
                let now = clock.now();
                assert!(now > last);
                last = now;
            }
        }
        assert!(last >= 3_000_000_000_000_000);
    }

    #[test]
    fn a_server_that_says_nonsense_does_no_harm() {
        let clock = Clock::new();
        clock.set(Duration::MAX);
        assert!(clock.now() < clock.now());
    }
}
