//! The deadline of a call: when its wait for a message ends, whatever else the plugin sends meanwhile.

use std::io;
use std::time::{Duration, Instant};

/// The end of all waits of one call together.
///
/// A timeout for each wait would be no bound: a byte now and then, a request to detach or the reply to
/// another request ends a wait, and is not what the call waits for. The time is counted from the first
/// wait on, so that a call that need not wait reads no clock.
#[derive(Debug)]
pub(super) struct Deadline {
    timeout: Option<Duration>,
    end: Option<Instant>,
}

impl Deadline {
    /// So long after the first wait; `None` for never.
    pub(super) fn after(timeout: Option<Duration>) -> Self {
        Self { timeout: timeout.map(at_least_some), end: None }
    }

    /// Counts the time from now on. False if it is counted already; then the wait is bounded by
    /// [`remaining`](Self::remaining), and no longer by the timeout of the socket.
    pub(super) fn begin(&mut self) -> bool {
        let Some(timeout) = self.timeout else { return true };
        if self.end.is_some() {
            return false;
        }
        self.end = Instant::now().checked_add(timeout);
        if self.end.is_none() {
            // Later than the clock can tell.
            self.timeout = None;
        }
        true
    }

    /// How long a wait may take; `None` for ever.
    ///
    /// # Errors
    ///
    /// `WouldBlock`, as from a socket whose timeout has passed, if it may take no time at all.
    pub(super) fn remaining(&mut self) -> io::Result<Option<Duration>> {
        self.begin();
        let Some(end) = self.end else { return Ok(None) };
        match end.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::WouldBlock.into()),
            remaining => Ok(Some(remaining)),
        }
    }
}

/// For the system, no time at all means no bound.
pub(super) fn at_least_some(timeout: Duration) -> Duration {
    timeout.max(Duration::from_micros(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_waits_of_a_call_have_one_end() {
        let mut never = Deadline::after(None);
        assert!(never.begin() && never.begin());
        assert_eq!(never.remaining().unwrap(), None);
        let mut late = Deadline::after(Some(Duration::MAX));
        assert!(late.begin() && late.begin(), "no clock goes so far");
        let hour = Duration::from_secs(3600);
        let mut deadline = Deadline::after(Some(hour));
        assert!(deadline.begin());
        assert!(!deadline.begin(), "it goes on from where it was begun");
        assert!(deadline.remaining().unwrap().unwrap() <= hour);
        let mut past = Deadline { end: Some(Instant::now()), ..deadline };
        assert_eq!(past.remaining().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
