//! The time of use, by the server's clock: several instances order their objects by it, and a wrong
//! clock of a node must not keep its objects longer than those of others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Strictly increasing microseconds since 1970.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// The time of the server's clock when this one was made.
    offset: AtomicU64,
    last: AtomicU64,
}

impl Clock {
    /// Starts with this machine's time, until that of the server is known.
    pub(crate) fn new() -> Self {
        let offset = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), offset: micros(offset).into(), last: AtomicU64::new(0) }
    }

    /// Follows the server's clock.
    pub(crate) fn set(&self, server: Duration) {
        let offset = micros(server).saturating_sub(micros(self.start.elapsed()));
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// A later call returns a later time, even if the server's clock has been set back.
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
    fn time_strictly_increases() {
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
    fn an_absurd_time_of_the_server_is_capped() {
        let clock = Clock::new();
        clock.set(Duration::MAX);
        assert!(clock.now() < clock.now());
    }
}
