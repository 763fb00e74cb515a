//! A violation: the plugin does not do what the protocol promises.

use std::fmt::{self, Display};

use cvmcache::client::ClientError;
use cvmcache::plugin::Status;

/// What was expected of the plugin, and what was seen instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    expected: String,
    seen: String,
}

pub(super) type CheckResult<T = ()> = Result<T, Violation>;

impl Violation {
    pub(super) fn new(expected: impl Display, seen: impl Display) -> Self {
        Self { expected: expected.to_string(), seen: seen.to_string() }
    }
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, but {}", self.expected, self.seen)
    }
}

/// Checks of replies.
pub(super) trait Expect<T> {
    /// Any error is a violation.
    fn expect_ok(self, expected: impl Display) -> CheckResult<T>;

    /// Any error but this status is a violation; the status is `None`.
    fn allow(self, status: Status, expected: impl Display) -> CheckResult<Option<T>>;

    /// Anything but one of these statuses is a violation.
    fn expect_status(self, statuses: &[Status], expected: impl Display) -> CheckResult;
}

impl<T> Expect<T> for Result<T, ClientError> {
    fn expect_ok(self, expected: impl Display) -> CheckResult<T> {
        self.map_err(|error| Violation::new(expected, error))
    }

    fn allow(self, status: Status, expected: impl Display) -> CheckResult<Option<T>> {
        match self {
            Err(ClientError::Status(seen)) if seen == status => Ok(None),
            result => result.expect_ok(expected).map(Some),
        }
    }

    fn expect_status(self, statuses: &[Status], expected: impl Display) -> CheckResult {
        match self {
            Err(ClientError::Status(status)) if statuses.contains(&status) => Ok(()),
            Err(error) => Err(Violation::new(format!("{statuses:?} for {expected}"), error)),
            Ok(_) => Err(Violation::new(format!("{statuses:?} for {expected}"), "it succeeded")),
        }
    }
}

/// A violation unless a condition holds.
pub(super) fn ensure(holds: bool, expected: impl Display, seen: impl Display) -> CheckResult {
    if holds { Ok(()) } else { Err(Violation::new(expected, seen)) }
}
