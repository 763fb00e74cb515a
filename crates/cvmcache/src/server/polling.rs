//! Whether to keep looking for events for a moment before going to sleep.
//!
//! To be woken takes tens of microseconds, as long as a small request and its answer otherwise do. A
//! client that waits for its answer before it asks again is back sooner than that: looking again
//! and again meanwhile is quicker. It is given up when it does not pay, or when somebody else wants
//! the processor.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// After looking in vain once, so many sleeps go without; after the next time twice as many.
const FIRST_PENALTY: u32 = 1;
const LONGEST_PENALTY: u32 = 1024;

/// For how long nobody looks once the processor was wanted by somebody else.
const BUSY: Duration = Duration::from_millis(50);

/// How often the system is asked whether it was: every so many looks that found something.
const ASK_AFTER: u32 = 64;

/// The state of looking.
#[derive(Debug)]
pub(super) struct Polling {
    /// How long to look.
    time: Duration,
    /// How many sleeps are to come before the next look, and how many after the next in vain.
    skip: u32,
    penalty: u32,
    /// Looks since the system was asked.
    looks: u32,
    preempted: i64,
    busy_until: Option<Instant>,
}

impl Polling {
    /// Looks for `time` at most; zero is never.
    pub(super) fn new(time: Duration) -> Self {
        Self { time, skip: 0, penalty: FIRST_PENALTY, looks: 0, preempted: 0, busy_until: None }
    }

    /// Until when to look before the sleep that is due now; `None` if it does not pay.
    pub(super) fn begin(&mut self) -> Option<Instant> {
        if self.time.is_zero() {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        let now = Instant::now();
        if self.busy_until.is_some_and(|until| now < until) {
            return None;
        }
        Some(now + self.time)
    }

    /// There was something to be found.
    pub(super) fn paid(&mut self) {
        self.penalty = FIRST_PENALTY;
        self.looks += 1;
        if self.looks >= ASK_AFTER {
            self.ask();
        }
    }

    /// There was nothing.
    pub(super) fn in_vain(&mut self) {
        self.skip = self.penalty;
        self.penalty = (self.penalty * 2).min(LONGEST_PENALTY);
        self.ask();
    }

    /// Asks the system whether this thread had to give way to others.
    fn ask(&mut self) {
        self.looks = 0;
        let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return };
        let preempted = usage.involuntary_context_switches();
        if preempted > self.preempted {
            self.busy_until = Some(Instant::now() + BUSY);
        }
        self.preempted = preempted;
    }
}
