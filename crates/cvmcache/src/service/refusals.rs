//! Refusals: requests that fail because the plugin does, or has no room. They are logged, one line for each
//! status in ten seconds, so that the plugin need not be asked more often how full the cache is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::warn;

use super::{OpenSession, Service};
use crate::plugin::{ObjectId, Status};

/// The least time between two lines about refusals with the same status.
const PERIOD: Duration = Duration::from_secs(10);

/// The refusals that have not been logged, by status.
///
/// Invariant: the lock is not held while a line is logged or the plugin is called.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    statuses: Mutex<Vec<Refused>>,
    /// True if a line is due in time, for a look without the lock.
    any_suppressed: AtomicBool,
}

#[derive(Debug, PartialEq, Eq)]
struct Refused {
    status: Status,
    /// When a line about them was logged.
    logged: Duration,
    /// How many there were since.
    suppressed: u64,
}

impl Refusals {
    /// Counts a refusal. If a line is due, returns how many have come since the last one.
    fn count(&self, status: Status, now: Duration) -> Option<u64> {
        let mut statuses = self.statuses.lock();
        let Some(refused) = statuses.iter_mut().find(|refused| refused.status == status) else {
            statuses.push(Refused { status, logged: now, suppressed: 0 });
            return Some(0);
        };
        if now.saturating_sub(refused.logged) < PERIOD {
            refused.suppressed += 1;
            self.any_suppressed.store(true, Ordering::Relaxed);
            return None;
        }
        refused.logged = now;
        Some(std::mem::take(&mut refused.suppressed))
    }

    /// The statuses whose refusals have been suppressed for long enough, and how many they are.
    fn take_due(&self, now: Duration) -> Vec<(Status, u64)> {
        let mut statuses = self.statuses.lock();
        let due = statuses.iter_mut().filter(|refused| {
            refused.suppressed > 0 && now.saturating_sub(refused.logged) >= PERIOD
        });
        let due = due.map(|refused| {
            refused.logged = now;
            (refused.status, std::mem::take(&mut refused.suppressed))
        });
        let due = due.collect();
        let left = statuses.iter().any(|refused| refused.suppressed > 0);
        self.any_suppressed.store(left, Ordering::Relaxed);
        due
    }
}

/// True if a request that ends like this is not the client's fault: a miss, a read behind the end and a
/// capability that is not declared are not logged.
pub(super) fn is_refusal(status: Status) -> bool {
    matches!(
        status,
        Status::Unknown
            | Status::Forbidden
            | Status::NoSpace
            | Status::IoErr
            | Status::Corrupted
            | Status::Timeout
    )
}

impl Service {
    /// Logs that a request was refused, if a line is due.
    #[cold]
    pub(super) fn on_refusal(
        &self,
        open: &OpenSession,
        operation: &'static str,
        object: Option<ObjectId>,
        status: Status,
    ) {
        let Some(suppressed) = self.refusals.count(status, self.clock()) else { return };
        // In the session of the request: a plugin in C may rely on one. A plugin whose storage fails is not
        // asked anything else.
        let usage =
            if status == Status::NoSpace { self.info(Some(&open.session)).ok() } else { None };
        warn!(
            session = %open.session,
            operation,
            object = object.map(tracing::field::display),
            status = status.name(),
            size_bytes = usage.map(|usage| usage.size_bytes),
            used_bytes = usage.map(|usage| usage.used_bytes),
            pinned_bytes = usage.map(|usage| usage.pinned_bytes),
            suppressed = (suppressed > 0).then_some(suppressed),
            "request refused: {status}"
        );
    }

    /// Logs how many refusals have been suppressed, of those for which it is time. Calls no plugin.
    pub(super) fn log_suppressed_refusals(&self, now: Duration) {
        if !self.refusals.any_suppressed.load(Ordering::Relaxed) {
            return;
        }
        for (status, suppressed) in self.refusals.take_due(now) {
            warn!(status = status.name(), suppressed, "more requests refused: {status}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn refusals_with_one_status_are_logged_once_a_period_and_counted() {
        let refusals = Refusals::default();
        assert_eq!(refusals.count(Status::NoSpace, at(5)), Some(0));
        assert_eq!(refusals.count(Status::NoSpace, at(6)), None);
        assert_eq!(refusals.count(Status::IoErr, at(7)), Some(0), "it is another status");
        assert_eq!(refusals.count(Status::NoSpace, at(14)), None);
        assert_eq!(refusals.count(Status::NoSpace, at(15)), Some(2));
        assert_eq!(refusals.count(Status::NoSpace, at(40)), Some(0));
    }

    #[test]
    fn refusals_that_no_other_follows_are_logged_after_the_period() {
        let refusals = Refusals::default();
        for status in [Status::NoSpace, Status::NoSpace, Status::NoSpace, Status::IoErr] {
            refusals.count(status, at(0));
        }
        assert_eq!(refusals.take_due(at(9)), []);
        assert!(refusals.any_suppressed.load(Ordering::Relaxed));
        assert_eq!(refusals.take_due(at(10)), [(Status::NoSpace, 2)]);
        assert!(!refusals.any_suppressed.load(Ordering::Relaxed));
        assert_eq!(refusals.take_due(at(100)), []);
        // The line begins another period.
        assert_eq!(refusals.count(Status::NoSpace, at(19)), None);
    }

    #[test]
    fn statuses_of_invalid_requests_and_absent_objects_are_no_refusals() {
        for status in [Status::NoEntry, Status::Malformed, Status::BadCount, Status::OutOfBounds] {
            assert!(!is_refusal(status), "{status}");
        }
        assert!(!is_refusal(Status::Partial) && !is_refusal(Status::NoSupport));
    }
}
