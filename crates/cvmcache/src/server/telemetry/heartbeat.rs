//! The heartbeat: a callback of the program on the I/O thread, which reports to a supervisor or a
//! service manager that the thread is alive: a stuck thread does not call it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tracing::error;

/// The state that a [heartbeat](crate::ServerBuilder::heartbeat) reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heartbeat {
    /// The event loop turns.
    Alive {
        /// How many connections it serves, which may be none.
        clients: usize,
    },
    /// The server has begun to shut down. It may beat on until its last clients have gone.
    Ending,
}

/// The callback and its period, if there is one.
#[derive(Default)]
pub(crate) struct HeartbeatTimer(Option<(Duration, Callback)>);

type Callback = Box<dyn FnMut(Heartbeat) + Send>;

impl HeartbeatTimer {
    pub(crate) fn new(period: Duration, callback: Callback) -> Self {
        Self(Some((period, callback)))
    }

    /// The time from one heartbeat to the next; `None` if there is none.
    pub(crate) fn period(&self) -> Option<Duration> {
        self.0.as_ref().map(|(period, _)| *period)
    }

    /// Calls the program. Should that panic, clients must not suffer from it: it is the last call.
    pub(crate) fn emit(&mut self, heartbeat: Heartbeat) {
        let Some((_, callback)) = &mut self.0 else { return };
        if catch_unwind(AssertUnwindSafe(|| callback(heartbeat))).is_err() {
            error!("the heartbeat has panicked: there will be no other");
            self.0 = None;
        }
    }
}

impl fmt::Debug for HeartbeatTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeartbeatTimer").field(&self.period()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_callback_is_called_with_each_heartbeat() {
        let (sender, emitted) = mpsc::channel();
        let callback = Box::new(move |heartbeat| sender.send(heartbeat).unwrap());
        let mut timer = HeartbeatTimer::new(Duration::from_secs(3600), callback);
        assert_eq!(timer.period(), Some(Duration::from_secs(3600)));
        timer.emit(Heartbeat::Alive { clients: 3 });
        timer.emit(Heartbeat::Ending);
        drop(timer);
        let emitted: Vec<_> = emitted.iter().collect();
        assert_eq!(emitted, [Heartbeat::Alive { clients: 3 }, Heartbeat::Ending]);
    }

    #[test]
    fn a_callback_that_panics_is_not_called_again() {
        let mut timer =
            HeartbeatTimer::new(Duration::ZERO, Box::new(|_| panic!("panic on purpose")));
        timer.emit(Heartbeat::Ending);
        assert_eq!(timer.period(), None);
        timer.emit(Heartbeat::Ending);
        assert_eq!(HeartbeatTimer::default().period(), None);
    }
}
