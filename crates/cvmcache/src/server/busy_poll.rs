//! Whether to keep looking for requests for a moment before going to sleep.
//!
//! Where the processor sleeps, too, it takes tens of microseconds to wake a thread: longer than a
//! small request and its answer take otherwise. A client that waits for its answers is back sooner
//! than that, so looking again and again meanwhile is quicker. It is given up when it does not pay,
//! or when somebody else wants the processor.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// After looking in vain once, so many sleeps go without a look; after the next time twice as many.
const FIRST_PENALTY: u32 = 1;
const LONGEST_PENALTY: u32 = 1024;

/// For how long nobody looks once somebody else wanted the processor.
const BUSY: Duration = Duration::from_millis(50);

/// How many looks pay before it is found out whether somebody did.
const FIND_OUT_AFTER: u32 = 64;

/// Keeps account of what looking brings.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    /// How long a look takes at most.
    time: Duration,
    /// How many sleeps there are before the next look, and how many if that is in vain.
    skip: u32,
    penalty: u32,
    paid: u32,
    /// How often this thread has had to give way to others.
    preemptions: fn() -> Option<i64>,
    known_preemptions: Option<i64>,
    busy_until: Option<Instant>,
}

impl BusyPoll {
    /// Looks for `time` at most; if that is zero, never.
    pub(crate) fn new(time: Duration) -> Self {
        Self {
            time,
            skip: 0,
            penalty: FIRST_PENALTY,
            paid: 0,
            preemptions,
            known_preemptions: None,
            busy_until: None,
        }
    }

    /// Until when to look before the sleep that is due; `None` if that would not pay.
    pub(crate) fn begin(&mut self) -> Option<Instant> {
        if self.time.is_zero() {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        let now = Instant::now();
        let is_busy = self.busy_until.is_some_and(|until| now < until);
        (!is_busy).then_some(now + self.time)
    }

    /// There was something to be found.
    pub(crate) fn paid(&mut self) {
        self.penalty = FIRST_PENALTY;
        self.paid += 1;
        if self.paid >= FIND_OUT_AFTER {
            self.find_out();
        }
    }

    /// There was nothing.
    pub(crate) fn in_vain(&mut self) {
        self.skip = self.penalty;
        self.penalty = (self.penalty * 2).min(LONGEST_PENALTY);
        self.find_out();
    }

    /// Finds out whether this thread has kept others from the processor.
    fn find_out(&mut self) {
        self.paid = 0;
        let now = (self.preemptions)();
        if self.known_preemptions.is_some() && now > self.known_preemptions {
            self.busy_until = Some(Instant::now() + BUSY);
        }
        self.known_preemptions = now;
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

    fn polling() -> BusyPoll {
        let preemptions = || Some(PREEMPTIONS.get());
        BusyPoll { preemptions, ..BusyPoll::new(Duration::from_secs(1)) }
    }

    /// How many sleeps there are before the next look.
    fn sleeps(polling: &mut BusyPoll) -> u32 {
        let mut sleeps = 0;
        while polling.begin().is_none() {
            sleeps += 1;
        }
        sleeps
    }

    #[test]
    fn who_looks_for_no_time_does_not_look() {
        assert_eq!(BusyPoll::new(Duration::ZERO).begin(), None);
    }

    #[test]
    fn what_pays_is_done_every_time() {
        let mut polling = polling();
        for _ in 0..1000 {
            assert_eq!(sleeps(&mut polling), 0);
            polling.paid();
        }
    }

    #[test]
    fn what_does_not_pay_is_done_less_and_less() {
        let mut polling = polling();
        let mut all = Vec::new();
        for _ in 0..14 {
            all.push(sleeps(&mut polling));
            polling.in_vain();
        }
        assert_eq!(all, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]);
        sleeps(&mut polling);
        polling.paid();
        assert_eq!(sleeps(&mut polling), 0, "as soon as it pays, it is done again");
    }

    #[test]
    fn who_keeps_others_from_the_processor_stops() {
        let mut polling = polling();
        let find_out = |polling: &mut BusyPoll| (0..FIND_OUT_AFTER).for_each(|_| polling.paid());
        find_out(&mut polling);
        assert!(polling.begin().is_some());
        PREEMPTIONS.set(1);
        find_out(&mut polling);
        assert_eq!(polling.begin(), None);
        polling.busy_until = Some(Instant::now());
        assert!(polling.begin().is_some(), "not for ever");
    }
}
