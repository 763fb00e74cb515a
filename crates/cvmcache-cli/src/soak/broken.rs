//! A promise that the plugin has not kept.

use std::fmt::{self, Display};

use cvmcache::client::ClientError;
use cvmcache::plugin::Status;

/// What was expected of the plugin, and what was seen instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    expected: String,
    seen: String,
}

pub(super) type Kept<T = ()> = Result<T, Broken>;

impl Broken {
    pub(super) fn new(expected: impl Display, seen: impl Display) -> Self {
        Self { expected: expected.to_string(), seen: seen.to_string() }
    }
}

impl Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, but {}", self.expected, self.seen)
    }
}

/// What clients make of answers.
pub(super) trait Expect<T> {
    /// Nothing but success will do.
    fn or_broken(self, expected: impl Display) -> Kept<T>;

    /// Besides success, this status is fine, too: then there is `None`.
    fn unless(self, status: Status, expected: impl Display) -> Kept<Option<T>>;

    /// Nothing but one of these will do.
    fn must_be(self, statuses: &[Status], expected: impl Display) -> Kept;
}

impl<T> Expect<T> for Result<T, ClientError> {
    fn or_broken(self, expected: impl Display) -> Kept<T> {
        self.map_err(|error| Broken::new(expected, error))
    }

    fn unless(self, status: Status, expected: impl Display) -> Kept<Option<T>> {
        match self {
            Err(ClientError::Status(seen)) if seen == status => Ok(None),
            result => result.or_broken(expected).map(Some),
        }
    }

    fn must_be(self, statuses: &[Status], expected: impl Display) -> Kept {
        match self {
            Err(ClientError::Status(status)) if statuses.contains(&status) => Ok(()),
            Err(error) => Err(Broken::new(format!("{statuses:?} for {expected}"), error)),
            Ok(_) => Err(Broken::new(format!("{statuses:?} for {expected}"), "it succeeded")),
        }
    }
}

/// Breaks a promise unless a condition holds.
pub(super) fn ensure(holds: bool, expected: impl Display, seen: impl Display) -> Kept {
    if holds { Ok(()) } else { Err(Broken::new(expected, seen)) }
}
