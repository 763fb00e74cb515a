//! Telling somebody outside that the I/O thread is alive, from the thread itself: who is stuck says
//! nothing.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tracing::error;

/// What a [heartbeat](crate::ServerBuilder::heartbeat) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heartbeat {
    /// The I/O thread goes round.
    Alive {
        /// How many connections it serves, which may be none.
        clients: usize,
    },
    /// The server has begun to end. It may beat on until its last clients have gone.
    Ending,
}

/// A heart, if there is one, and when it beats next.
#[derive(Default)]
pub(crate) struct HeartbeatTimer {
    heart: Option<Heart>,
    next: Option<Instant>,
}

struct Heart {
    period: Duration,
    beat: Box<dyn FnMut(Heartbeat) + Send>,
}

impl HeartbeatTimer {
    pub(crate) fn new(period: Duration, beat: Box<dyn FnMut(Heartbeat) + Send>) -> Self {
        Self { heart: Some(Heart { period, beat }), next: Some(Instant::now()) }
    }

    /// When it is time for the next beat.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Beats, if it is time.
    pub(crate) fn beat(&mut self, clients: usize) {
        if self.next.is_none_or(|next| next > Instant::now()) {
            return;
        }
        self.say(Heartbeat::Alive { clients });
        let period = self.heart.as_ref().map(|heart| heart.period);
        self.next = period.and_then(|period| Instant::now().checked_add(period));
    }

    pub(crate) fn end(&mut self) {
        self.say(Heartbeat::Ending);
    }

    /// What the program has to say is its own; should it panic, clients must not suffer from it.
    fn say(&mut self, what: Heartbeat) {
        let Some(heart) = &mut self.heart else { return };
        if catch_unwind(AssertUnwindSafe(|| (heart.beat)(what))).is_err() {
            error!("the heartbeat has panicked: there will be no other");
            self.heart = None;
        }
    }
}

impl fmt::Debug for HeartbeatTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = self.heart.as_ref().map(|heart| heart.period);
        f.debug_struct("HeartbeatTimer").field("period", &period).field("next", &self.next).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn it_beats_at_once_and_then_when_it_is_time() {
        let (sender, said) = mpsc::channel();
        let beat = Box::new(move |what| sender.send(what).unwrap());
        let mut pulse = HeartbeatTimer::new(Duration::from_secs(3600), beat);
        pulse.beat(3);
        pulse.beat(4);
        pulse.end();
        assert!(pulse.next().unwrap() > Instant::now());
        drop(pulse);
        let said: Vec<_> = said.iter().collect();
        assert_eq!(said, [Heartbeat::Alive { clients: 3 }, Heartbeat::Ending]);
    }

    #[test]
    fn one_that_panics_is_the_last() {
        let mut pulse = HeartbeatTimer::new(Duration::ZERO, Box::new(|_| panic!("told to panic")));
        pulse.beat(0);
        pulse.beat(0);
        assert_eq!(pulse.next(), None);
    }
}
