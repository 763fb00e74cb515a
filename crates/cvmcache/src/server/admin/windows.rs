//! The windows of statistics: since the start, since they were zeroed, and over the last minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::server::telemetry::Counts;

/// How often the counts are kept, so that those of the last minute can be told.
pub(super) const PERIOD: Duration = Duration::from_secs(10);

const MINUTE: Duration = Duration::from_secs(60);

/// Counts at several moments of the past.
#[derive(Debug)]
pub(super) struct Windows {
    started: Instant,
    zeroed: Option<(Instant, Box<Counts>)>,
    /// The oldest first; one of them is at least a minute old, once there was that much time.
    kept: VecDeque<(Instant, Box<Counts>)>,
}

/// The counts of a time.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) time: Duration,
    pub(super) counts: Counts,
}

impl Windows {
    pub(super) fn new(started: Instant) -> Self {
        let kept = VecDeque::from([(started, Box::new(Counts::zero()))]);
        Self { started, zeroed: None, kept }
    }

    /// Keeps the counts of this moment. To be called every [`PERIOD`].
    pub(super) fn keep(&mut self, now: Instant, counts: Counts) {
        self.kept.push_back((now, Box::new(counts)));
        let is_old = |(at, _): &(Instant, _)| now.saturating_duration_since(*at) >= MINUTE;
        // The second one is old enough, too.
        while self.kept.get(1).is_some_and(is_old) {
            self.kept.pop_front();
        }
    }

    /// Begins the window that can be zeroed anew.
    pub(super) fn zero(&mut self, now: Instant, counts: Counts) {
        self.zeroed = Some((now, Box::new(counts)));
    }

    pub(super) fn since_start(&self, now: Instant, counts: &Counts) -> Window {
        Window { time: now.saturating_duration_since(self.started), counts: counts.clone() }
    }

    /// `None` if they never were zeroed.
    pub(super) fn since_zero(&self, now: Instant, counts: &Counts) -> Option<Window> {
        let (at, earlier) = self.zeroed.as_ref()?;
        Some(Window { time: now.saturating_duration_since(*at), counts: counts.since(earlier) })
    }

    /// Of the last minute, and up to [`PERIOD`] more; of less if the server has just started.
    pub(super) fn last_minute(&self, now: Instant, counts: &Counts) -> Window {
        match self.kept.front() {
            Some((at, earlier)) => {
                let time = now.saturating_duration_since(*at);
                Window { time, counts: counts.since(earlier) }
            }
            None => self.since_start(now, counts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(connections: u64) -> Counts {
        Counts { connections, ..Counts::zero() }
    }

    #[test]
    fn the_last_minute_is_at_least_a_minute_and_at_most_a_period_more() {
        let start = Instant::now();
        let mut windows = Windows::new(start);
        let window = windows.last_minute(start + Duration::from_secs(5), &counts(3));
        assert_eq!((window.time, window.counts.connections), (Duration::from_secs(5), 3));
        for step in 1..=30 {
            windows.keep(start + PERIOD * step, counts(step.into()));
        }
        let window = windows.last_minute(start + PERIOD * 30, &counts(100));
        assert_eq!((window.time, window.counts.connections), (MINUTE, 100 - 24));
        let window =
            windows.last_minute(start + PERIOD * 31 - Duration::from_secs(1), &counts(100));
        assert!(window.time < MINUTE + PERIOD);
    }

    #[test]
    fn what_was_zeroed_counts_from_then_on_and_the_rest_goes_on() {
        let start = Instant::now();
        let mut windows = Windows::new(start);
        assert!(windows.since_zero(start, &counts(3)).is_none());
        windows.zero(start + PERIOD, counts(3));
        let later = start + PERIOD * 2;
        assert_eq!(windows.since_zero(later, &counts(5)).unwrap().counts.connections, 2);
        assert_eq!(windows.since_start(later, &counts(5)).counts.connections, 5);
    }
}
