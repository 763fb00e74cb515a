//! Adaptive busy polling with exponential back-off: whether the event loop polls for requests for a
//! moment before it sleeps.
//!
//! Where the processor sleeps, too, it takes tens of microseconds to wake a thread: longer than a
//! small request and its reply take otherwise. A client that waits for its replies is back sooner
//! than that, so polling meanwhile is quicker. A poll that finds nothing is followed by sleeps without
//! one, each time twice as many; one that finds something ends the back-off. If the thread was
//! preempted, other threads want the processor, and it does not poll for a while.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// How many sleeps without a poll follow the first one that failed, and how many at most.
const FIRST_PENALTY: u32 = 1;
const LONGEST_PENALTY: u32 = 1024;

/// How long not to poll after other threads wanted the processor.
const BUSY: Duration = Duration::from_millis(50);

/// How many polls succeed before it is checked whether they did.
const CHECK_AFTER: u32 = 64;

/// Keeps account of what polling brings.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    /// How long a poll takes at most.
    time: Duration,
    /// How many sleeps there are before the next poll, and how many after it if it fails.
    skip: u32,
    penalty: u32,
    /// How many polls succeeded since the last check.
    successes: u32,
    /// How often this thread was preempted.
    preemptions: fn() -> Option<i64>,
    known_preemptions: Option<i64>,
    busy_until: Option<Instant>,
}

impl BusyPoll {
    /// Polls for `time` at most; if that is zero, never.
    pub(crate) fn new(time: Duration) -> Self {
        Self {
            time,
            skip: 0,
            penalty: FIRST_PENALTY,
            successes: 0,
            preemptions,
            known_preemptions: None,
            busy_until: None,
        }
    }

    /// Until when to poll before the sleep that is due; `None` if it does not pay.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<Instant> {
        if self.time.is_zero() {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        let is_busy = self.busy_until.is_some_and(|until| now < until);
        (!is_busy).then_some(now + self.time)
    }

    /// The poll has found something.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.penalty = FIRST_PENALTY;
        self.successes += 1;
        if self.successes >= CHECK_AFTER {
            self.check(now);
        }
    }

    /// The poll has found nothing.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.skip = self.penalty;
        self.penalty = (self.penalty * 2).min(LONGEST_PENALTY);
        self.check(now);
    }

    /// Checks whether this thread has kept others from the processor.
    fn check(&mut self, now: Instant) {
        self.successes = 0;
        let preemptions = (self.preemptions)();
        if self.known_preemptions.is_some() && preemptions > self.known_preemptions {
            self.busy_until = Some(now + BUSY);
        }
        self.known_preemptions = preemptions;
    }
}

fn preemptions() -> Option<i64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
    Some(usage.involuntary_context_switches())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static PREEMPTIONS: Cell<i64> = const { Cell::new(0) };
    }

    fn busy_poll() -> BusyPoll {
        let preemptions = || Some(PREEMPTIONS.get());
        BusyPoll { preemptions, ..BusyPoll::new(Duration::from_secs(1)) }
    }

    /// How many sleeps there are before the next poll.
    fn sleeps(busy_poll: &mut BusyPoll) -> u32 {
        let mut sleeps = 0;
        while busy_poll.begin(Instant::now()).is_none() {
            sleeps += 1;
        }
        sleeps
    }

    #[test]
    fn with_no_time_to_poll_it_does_not_poll() {
        assert_eq!(BusyPoll::new(Duration::ZERO).begin(Instant::now()), None);
    }

    #[test]
    fn polls_that_succeed_are_repeated_before_every_sleep() {
        let mut busy_poll = busy_poll();
        for _ in 0..1000 {
            assert_eq!(sleeps(&mut busy_poll), 0);
            busy_poll.succeeded(Instant::now());
        }
    }

    #[test]
    fn polls_that_fail_back_off_exponentially() {
        let mut busy_poll = busy_poll();
        let mut all = Vec::new();
        for _ in 0..14 {
            all.push(sleeps(&mut busy_poll));
            busy_poll.failed(Instant::now());
        }
        assert_eq!(all, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]);
        sleeps(&mut busy_poll);
        busy_poll.succeeded(Instant::now());
        assert_eq!(sleeps(&mut busy_poll), 0, "a success ends the back-off");
    }

    #[test]
    fn after_a_preemption_it_does_not_poll_for_a_while() {
        let now = Instant::now();
        let mut busy_poll = busy_poll();
        let check = |busy_poll: &mut BusyPoll| {
            (0..CHECK_AFTER).for_each(|_| busy_poll.succeeded(now));
        };
        check(&mut busy_poll);
        assert!(busy_poll.begin(now).is_some());
        PREEMPTIONS.set(1);
        check(&mut busy_poll);
        assert_eq!(busy_poll.begin(now), None);
        assert!(busy_poll.begin(now + BUSY).is_some(), "not for ever");
    }
}
