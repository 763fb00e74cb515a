//! Adaptive busy polling with exponential back-off: whether, and for how long, the event loop polls for
//! requests before it sleeps.
//!
//! Where the processor sleeps, too, it takes tens of microseconds to wake a thread: longer than a
//! small request and its reply take otherwise. A client that waits for its replies is back sooner
//! than that, so polling meanwhile is quicker; one that is not costs processor time for nothing.
//!
//! What decides is what polls find, as in the halt polling of KVM (Linux,
//! Documentation/virt/kvm/halt-polling.rst). While most of them find something within the window, every
//! wait begins with one. Otherwise each poll in vain is followed by sleeps without a poll, twice as many as
//! the last time. Being preempted is no criterion: on a machine with few processors, the client preempts
//! the thread that polls for it all the time; it even yields to that. But a poll that finds something only after
//! its window, because other threads had the processor, is in vain: a thread that had slept would have been woken
//! at once.

use std::time::{Duration, Instant};

/// One poll moves the share of successful ones by 1/`WEIGHT` of what is missing.
const WEIGHT: u32 = 8;

/// A share of 1.
const ALL: u32 = 1 << 16;

/// With a smaller share than this, polls back off.
const WORTH_IT: u32 = ALL / 2;

/// How many sleeps without a poll there are at most after a poll in vain.
const MAX_SKIPPED: u32 = 1024;

/// How many sleeps without a poll there are at least after other threads had the processor for longer than a
/// poll takes: by milliseconds, where one that finds something saves tens of microseconds.
const SKIPPED_WHEN_BUSY: u32 = 64;

/// Keeps account of what polling brings.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    /// How long a poll takes at most.
    window: Duration,
    /// The share of polls that found something: an exponentially weighted moving average.
    successes: u32,
    /// How many sleeps there are before the next poll, and after it if it is in vain.
    skip: u32,
    penalty: u32,
}

impl BusyPoll {
    /// Polls for `window` at most; if that is zero, never.
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, successes: 0, skip: 0, penalty: 1 }
    }

    /// Until when to poll before the sleep that is due; `None` if it does not pay.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<Instant> {
        if self.window.is_zero() {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(now + self.window)
    }

    /// The poll that began with this deadline has ended, with something found or in vain.
    pub(crate) fn ended(&mut self, has_found: bool, deadline: Instant, now: Instant) {
        let is_success = has_found && now < deadline;
        let is_busy = now > deadline + self.window;
        let target = if is_success { ALL } else { 0 };
        self.successes = (self.successes * (WEIGHT - 1) + target) / WEIGHT;
        if is_success {
            self.penalty = (self.penalty / 2).max(1);
        } else if is_busy || self.successes < WORTH_IT {
            let least = if is_busy { SKIPPED_WHEN_BUSY } else { 1 };
            self.skip = self.penalty.max(least);
            self.penalty = (self.skip * 2).min(MAX_SKIPPED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_micros(200);

    fn busy_poll() -> BusyPoll {
        BusyPoll::new(WINDOW)
    }

    /// A poll ends so long after its begin.
    fn end(busy_poll: &mut BusyPoll, has_found: bool, after: Duration) {
        let now = Instant::now();
        busy_poll.ended(has_found, now + WINDOW, now + after);
    }

    fn succeed(busy_poll: &mut BusyPoll) {
        end(busy_poll, true, WINDOW / 2);
    }

    fn fail(busy_poll: &mut BusyPoll) {
        end(busy_poll, false, WINDOW);
    }

    /// How many sleeps there are before the next poll.
    fn sleeps(busy_poll: &mut BusyPoll) -> u32 {
        let mut sleeps = 0;
        while busy_poll.begin(Instant::now()).is_none() {
            sleeps += 1;
        }
        sleeps
    }

    /// How many of 10,000 waits are polled for, if polls find something when `finds` says so of their number.
    fn polls(finds: impl Fn(u32) -> bool) -> u32 {
        let mut busy_poll = busy_poll();
        let mut polls = 0;
        for _ in 0..10_000 {
            if busy_poll.begin(Instant::now()).is_some() {
                if finds(polls) {
                    succeed(&mut busy_poll);
                } else {
                    fail(&mut busy_poll);
                }
                polls += 1;
            }
        }
        polls
    }

    #[test]
    fn a_poll_takes_no_longer_than_the_window() {
        let now = Instant::now();
        assert_eq!(busy_poll().begin(now), Some(now + WINDOW));
        assert_eq!(BusyPoll::new(Duration::ZERO).begin(now), None);
    }

    #[test]
    fn while_most_polls_find_something_every_wait_has_one() {
        assert_eq!(polls(|_| true), 10_000);
        assert!(polls(|poll| poll % 10 > 0) > 9_900);
        assert!(polls(|poll| poll % 3 > 0) > 9_900);
    }

    #[test]
    fn polls_in_vain_back_off_exponentially() {
        let mut busy_poll = busy_poll();
        let mut all = Vec::new();
        for _ in 0..14 {
            all.push(sleeps(&mut busy_poll));
            fail(&mut busy_poll);
        }
        assert_eq!(all, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]);
        assert!(polls(|poll| poll % 10 == 0) < 500, "one in ten does not pay");
    }

    #[test]
    fn one_poll_that_finds_something_ends_the_skipping() {
        let mut busy_poll = busy_poll();
        for _ in 0..20 {
            sleeps(&mut busy_poll);
            fail(&mut busy_poll);
        }
        assert_eq!(sleeps(&mut busy_poll), 1024);
        for _ in 0..20 {
            succeed(&mut busy_poll);
            assert_eq!(sleeps(&mut busy_poll), 0);
        }
        fail(&mut busy_poll);
        assert_eq!(sleeps(&mut busy_poll), 0, "most have found something");
    }

    #[test]
    fn where_other_threads_have_the_processor_polls_are_rare_at_once() {
        let mut busy_poll = busy_poll();
        (0..20).for_each(|_| succeed(&mut busy_poll));
        for expected in [64, 128, 256, 512, 1024, 1024] {
            end(&mut busy_poll, true, 20 * WINDOW);
            assert_eq!(sleeps(&mut busy_poll), expected);
        }
    }
}
