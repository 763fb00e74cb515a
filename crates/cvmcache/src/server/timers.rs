//! The timer table: all deadlines of a server. Pure: the event loop passes the time.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use mio::Token;

use crate::sparse::shrink_if_sparse;

/// What is to be done at a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Timer {
    /// Accept again, after the system had no resources for a connection.
    AcceptRetry,
    /// Give up uploads that are idle.
    UploadSweep,
    /// Abort more of the uploads that were given up.
    IdleUploads,
    /// Free the buffers of idle connections.
    BufferSweep,
    /// Look for requests over their deadline.
    RequestCheck,
    /// Call the heartbeat.
    Heartbeat,
    /// Set the gauges.
    Gauges,
    /// End, whatever is still in flight.
    Shutdown,
    /// Abort this connection, unless its client takes replies.
    Close(Token),
}

/// How many timers there are besides those of connections.
const COUNT: usize = 8;

/// Deadlines, each with what it is for. A timer that is set again has the new deadline only.
///
/// Those of the server are an array, because some are set and cancelled once a request. Those of
/// connections are ordered by time: all connections may be closing at once.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    server: [Option<Instant>; COUNT],
    closing: BTreeSet<(Instant, Token)>,
    /// Invariant: has the tokens of `closing`, each with its deadline there.
    deadlines: HashMap<Token, Instant>,
}

impl Timer {
    /// Those of the server.
    const SERVER: [Self; COUNT] = [
        Self::AcceptRetry,
        Self::UploadSweep,
        Self::RequestCheck,
        Self::Heartbeat,
        Self::Gauges,
        Self::Shutdown,
        Self::BufferSweep,
        Self::IdleUploads,
    ];

    /// Its place among those of the server, or its connection.
    fn place(self) -> Result<usize, Token> {
        match self {
            Self::AcceptRetry => Ok(0),
            Self::UploadSweep => Ok(1),
            Self::RequestCheck => Ok(2),
            Self::Heartbeat => Ok(3),
            Self::Gauges => Ok(4),
            Self::Shutdown => Ok(5),
            Self::BufferSweep => Ok(6),
            Self::IdleUploads => Ok(7),
            Self::Close(token) => Err(token),
        }
    }
}

impl Timers {
    /// Sets a timer.
    pub(crate) fn set(&mut self, timer: Timer, deadline: Instant) {
        match timer.place() {
            Ok(place) => self.server[place] = Some(deadline),
            Err(token) => {
                self.cancel(timer);
                self.deadlines.insert(token, deadline);
                self.closing.insert((deadline, token));
            }
        }
    }

    /// Cancels a timer, if it is set.
    pub(crate) fn cancel(&mut self, timer: Timer) {
        match timer.place() {
            Ok(place) => self.server[place] = None,
            Err(token) => {
                if let Some(deadline) = self.deadlines.remove(&token) {
                    shrink_if_sparse(&mut self.deadlines);
                    self.closing.remove(&(deadline, token));
                }
            }
        }
    }

    /// Sets a timer of the server that is not set if it is needed, and cancels it if not.
    pub(crate) fn keep(
        &mut self,
        timer: Timer,
        is_needed: bool,
        deadline: impl FnOnce() -> Instant,
    ) {
        match (is_needed, self.is_set(timer)) {
            (true, false) => self.set(timer, deadline()),
            (false, true) => self.cancel(timer),
            _ => {}
        }
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        match timer.place() {
            Ok(place) => self.server[place].is_some(),
            Err(token) => self.deadlines.contains_key(&token),
        }
    }

    /// When the next timer expires.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let closing = self.closing.first().map(|(deadline, _)| deadline);
        self.server.iter().flatten().chain(closing).min().copied()
    }

    /// Takes the timer that expired first out of the table; `None` if none has expired at `now`.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<Timer> {
        // Most often, none has expired, and which is the next one need not be known.
        self.next_deadline().filter(|deadline| *deadline <= now)?;
        let (_, timer) = self.next()?;
        self.cancel(timer);
        Some(timer)
    }

    fn next(&self) -> Option<(Instant, Timer)> {
        let server = self.server.iter().zip(Timer::SERVER);
        let server = server.filter_map(|(deadline, timer)| Some(((*deadline)?, timer)));
        let closing =
            self.closing.first().map(|(deadline, token)| (*deadline, Timer::Close(*token)));
        server.chain(closing).min_by_key(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timers_expire_in_the_order_of_their_deadlines() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        assert_eq!(timers.next_deadline(), None);
        timers.set(Timer::Shutdown, at(4));
        timers.set(Timer::Close(Token(7)), at(3));
        timers.set(Timer::Heartbeat, at(1));
        timers.set(Timer::Close(Token(8)), at(2));
        assert_eq!(timers.next_deadline(), Some(at(1)));
        assert_eq!(timers.pop_expired(start), None);
        let expired = std::iter::from_fn(|| timers.pop_expired(at(3)));
        let expected = [Timer::Heartbeat, Timer::Close(Token(8)), Timer::Close(Token(7))];
        assert_eq!(expired.collect::<Vec<_>>(), expected);
        assert_eq!(timers.next_deadline(), Some(at(4)));
    }

    #[test]
    fn a_timer_that_is_set_again_expires_once() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        for timer in Timer::SERVER.into_iter().chain([Timer::Close(Token(2))]) {
            let mut timers = Timers::default();
            timers.set(timer, start);
            timers.set(timer, later);
            assert_eq!(timers.pop_expired(start), None, "{timer:?}");
            assert_eq!(timers.pop_expired(later), Some(timer));
            assert_eq!(timers.pop_expired(later), None, "{timer:?}");
        }
    }

    #[test]
    fn a_timer_that_is_cancelled_does_not_expire() {
        let now = Instant::now();
        let mut timers = Timers::default();
        timers.set(Timer::Close(Token(2)), now);
        timers.set(Timer::Close(Token(3)), now);
        timers.set(Timer::Gauges, now);
        timers.cancel(Timer::Close(Token(2)));
        timers.cancel(Timer::Close(Token(2)));
        timers.cancel(Timer::Gauges);
        assert_eq!(timers.pop_expired(now), Some(Timer::Close(Token(3))));
        assert_eq!(timers.pop_expired(now), None);
    }

    #[test]
    fn a_timer_that_is_kept_is_set_once_and_cancelled_when_it_is_not_needed() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut timers = Timers::default();
        timers.keep(Timer::UploadSweep, false, || start);
        assert!(!timers.is_set(Timer::UploadSweep));
        timers.keep(Timer::UploadSweep, true, || start);
        timers.keep(Timer::UploadSweep, true, || later);
        assert_eq!(timers.next_deadline(), Some(start));
        timers.keep(Timer::UploadSweep, false, || later);
        assert_eq!(timers.next_deadline(), None);
    }
}
