//! Refusals over a connection that is well: the server is a replica since a failover, loads its data, or
//! has lost its primary. Whether a request waits and is sent again, and how long its connection is kept. There
//! is no I/O and no clock in this file.
//!
//! The name of the server may lead to another one by now, so that the connection is replaced, with
//! exponential back-off. Requests wait for the next connection while the refusals are young; of a server that goes on
//! refusing, they fail at once, and what it answers is served.

use std::iter;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Failure;
use super::backoff::{MAX_PAUSE, MAX_PAUSE_OF_WAITERS, pauses};

/// The refusals of one server, over all connections to it.
#[derive(Debug)]
pub(super) struct Refusals {
    patience: Duration,
    episode: Mutex<Option<Episode>>,
}

/// Refusals without a request between them that was refused and is accepted now.
struct Episode {
    begun: Instant,
    /// Until when requests wait.
    until: Instant,
    last: Instant,
    reason: Failure,
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
}

/// What comes of a request that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It waits, and is sent again.
    Wait,
    /// It fails with the refusal.
    Fail,
}

/// A server that has refused nothing for so long is well again.
const STEADY: Duration = Duration::from_secs(60);

impl Refusals {
    /// Requests have `deadline`, and time left to learn the reason.
    pub(super) fn new(deadline: Duration) -> Self {
        Self { patience: deadline / 4 * 3, episode: Mutex::default() }
    }

    /// A request was refused.
    pub(super) fn refused(&self, reason: &Failure, now: Instant) -> Verdict {
        let mut episode = self.episode.lock();
        let current = episode.take().filter(|episode| now - episode.last <= STEADY);
        let current = current.unwrap_or_else(|| Episode {
            begun: now,
            until: now + self.patience,
            last: now,
            reason: reason.clone(),
            pauses: Box::new(iter::once(Duration::ZERO).chain(pauses())),
        });
        let verdict = if now < current.until { Verdict::Wait } else { Verdict::Fail };
        *episode = Some(Episode { last: now, reason: reason.clone(), ..current });
        verdict
    }

    /// A request that was refused is accepted.
    pub(super) fn accepted(&self) {
        *self.episode.lock() = None;
    }

    /// Why the last request was refused, if refusals go on, and since when they do.
    pub(super) fn current(&self, now: Instant) -> Option<(Failure, Duration)> {
        let episode = self.episode.lock();
        let current = episode.as_ref().filter(|episode| now - episode.last <= STEADY)?;
        Some((current.reason.clone(), now - current.begun))
    }

    /// Why the last request was refused, and how long its connection is kept.
    pub(super) fn replacement(&self, now: Instant) -> Option<(Failure, Duration)> {
        let mut episode = self.episode.lock();
        let episode = episode.as_mut()?;
        let pause = episode.pauses.next().unwrap_or(MAX_PAUSE);
        let waiting = episode.until.saturating_duration_since(now);
        // Requests that wait learn in time that it goes on.
        let pause =
            if waiting.is_zero() { pause } else { pause.min(MAX_PAUSE_OF_WAITERS).min(waiting) };
        Some((episode.reason.clone(), pause))
    }
}

impl std::fmt::Debug for Episode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Episode").field("reason", &self.reason).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(4);

    fn read_only() -> Failure {
        Failure::ReadOnly("READONLY".to_owned())
    }

    fn pause(refusals: &Refusals, now: Instant) -> Option<Duration> {
        refusals.replacement(now).map(|(_, pause)| pause)
    }

    #[test]
    fn requests_wait_while_the_refusals_are_young_and_fail_afterwards() {
        let (refusals, begin) = (Refusals::new(DEADLINE), Instant::now());
        assert_eq!(refusals.refused(&read_only(), begin), Verdict::Wait);
        for second in 1..600 {
            let now = begin + Duration::from_secs(second);
            let expected = if second < 3 { Verdict::Wait } else { Verdict::Fail };
            assert_eq!(refusals.refused(&read_only(), now), expected, "{second}");
        }
    }

    #[test]
    fn refusals_have_a_reason_and_a_begin_until_a_request_is_accepted() {
        let (refusals, begin) = (Refusals::new(DEADLINE), Instant::now());
        assert_eq!(refusals.current(begin), None);
        refusals.refused(&read_only(), begin);
        let later = begin + STEADY;
        refusals.refused(&read_only(), later);
        assert_eq!(refusals.current(later), Some((read_only(), STEADY)));
        assert_eq!(refusals.current(later + 2 * STEADY), None, "it is well again");
        refusals.accepted();
        assert_eq!(refusals.current(later), None);
    }

    #[test]
    fn requests_wait_again_after_one_was_accepted_or_a_minute_without_refusals() {
        let (refusals, begin) = (Refusals::new(DEADLINE), Instant::now());
        refusals.refused(&read_only(), begin);
        assert_eq!(refusals.refused(&read_only(), begin + DEADLINE), Verdict::Fail);
        refusals.accepted();
        assert_eq!(refusals.refused(&read_only(), begin + DEADLINE), Verdict::Wait);
        let later = begin + 2 * DEADLINE;
        assert_eq!(refusals.refused(&read_only(), later), Verdict::Fail);
        assert_eq!(refusals.refused(&read_only(), later + 2 * STEADY), Verdict::Wait);
    }

    #[test]
    fn connections_are_replaced_at_once_and_then_with_back_off() {
        let (refusals, begin) = (Refusals::new(DEADLINE), Instant::now());
        assert_eq!(pause(&refusals, begin), None);
        refusals.refused(&read_only(), begin);
        assert_eq!(pause(&refusals, begin), Some(Duration::ZERO));
        for _ in 0..20 {
            let pause = pause(&refusals, begin);
            assert!(pause > Some(Duration::ZERO) && pause <= Some(MAX_PAUSE_OF_WAITERS));
        }
        let rest = Duration::from_millis(3);
        assert_eq!(pause(&refusals, begin + DEADLINE / 4 * 3 - rest), Some(rest));
        assert!(pause(&refusals, begin + DEADLINE) >= Some(MAX_PAUSE));
        refusals.accepted();
        refusals.refused(&read_only(), begin + DEADLINE);
        assert_eq!(pause(&refusals, begin + DEADLINE), Some(Duration::ZERO));
    }
}
