//! Adaptive busy polling: whether, and for how long, the event loop polls for requests before it sleeps.
//!
//! Where the processor sleeps, too, it takes tens of microseconds to wake a thread: longer than a
//! small request and its reply take otherwise. A client that waits for its replies is back sooner
//! than that, so polling meanwhile is quicker; one that is not costs processor time for nothing.
//!
//! What decides is how long the last waits took, polled or slept, as in the halt polling of KVM
//! (Linux, Documentation/virt/kvm/halt-polling.rst): polling is worth its time as long as most waits
//! end within the window. That is known of waits without a poll as well, so polling begins by itself
//! when the traffic changes. Being preempted does not count: on a machine with few processors, the
//! client preempts the thread that polls for it all the time.

use std::time::{Duration, Instant};

/// One wait more or less moves the share of short waits by 1/`WEIGHT` of what is missing.
const WEIGHT: u32 = 8;

/// A share of 1.
const ALL: u32 = 1 << 16;

/// Polls from this share of short waits on.
const WORTH_IT: u32 = ALL / 2;

/// Keeps account of what polling brings.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    /// How long a poll takes at most.
    window: Duration,
    /// The share of waits that ended within the window: an exponentially weighted moving average.
    short_waits: u32,
}

impl BusyPoll {
    /// Polls for `window` at most; if that is zero, never.
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, short_waits: 0 }
    }

    /// Until when to poll before the sleep that is due; `None` if it does not pay.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let pays = !self.window.is_zero() && self.short_waits >= WORTH_IT;
        pays.then(|| now + self.window)
    }

    /// A wait for events has ended after this time.
    pub(crate) fn waited(&mut self, time: Duration) {
        let target = if time <= self.window { ALL } else { 0 };
        self.short_waits = (self.short_waits * (WEIGHT - 1) + target) / WEIGHT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_micros(300);
    const SHORT: Duration = Duration::from_micros(50);
    const LONG: Duration = Duration::from_millis(10);

    fn polls(busy_poll: &BusyPoll) -> bool {
        busy_poll.deadline(Instant::now()).is_some()
    }

    fn after(waits: &[(u32, Duration)]) -> BusyPoll {
        let mut busy_poll = BusyPoll::new(WINDOW);
        for &(count, time) in waits {
            (0..count).for_each(|_| busy_poll.waited(time));
        }
        busy_poll
    }

    #[test]
    fn without_a_window_it_does_not_poll() {
        let mut busy_poll = BusyPoll::new(Duration::ZERO);
        (0..100).for_each(|_| busy_poll.waited(Duration::ZERO));
        assert!(!polls(&busy_poll));
    }

    #[test]
    fn it_polls_once_waits_are_short() {
        assert!(!polls(&after(&[])));
        assert!(polls(&after(&[(6, SHORT)])));
        let now = Instant::now();
        assert_eq!(after(&[(6, SHORT)]).deadline(now), Some(now + WINDOW));
    }

    #[test]
    fn it_polls_on_through_a_few_long_waits() {
        assert!(polls(&after(&[(100, SHORT), (4, LONG)])));
    }

    #[test]
    fn it_stops_when_waits_are_long() {
        assert!(!polls(&after(&[(100, SHORT), (6, LONG)])));
        assert!(polls(&after(&[(100, SHORT), (1000, LONG), (6, SHORT)])), "not for ever");
    }

    #[test]
    fn an_idle_client_is_not_polled_for() {
        let alternating: Vec<_> =
            (0..100).flat_map(|_| [(1, LONG), (1, LONG), (1, SHORT)]).collect();
        assert!(!polls(&after(&alternating)));
    }
}
