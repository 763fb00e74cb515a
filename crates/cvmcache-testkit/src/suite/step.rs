//! A step: a request of a case and its reply, which the case compares with what it expects.

use std::collections::VecDeque;
use std::fmt::{Debug, Display};
use std::sync::Arc;

use bytes::Bytes;
use cvmcache::client::ClientError;
use cvmcache::plugin::Status;
use parking_lot::Mutex;

use super::report::Failure;

/// The result of a check: the value to go on with, or why the case ends here.
pub(super) type Checked<T> = Result<T, Stop>;

/// Why a case ends before its end.
#[derive(Debug)]
pub(super) enum Stop {
    Failed(Failure),
    Skipped(String),
}

/// How much of a value is shown, in characters.
const SHOWN: usize = 200;

/// How many earlier steps are shown.
const REMEMBERED: usize = 6;

/// What a case has done so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace(Arc<Mutex<VecDeque<String>>>);

impl Trace {
    fn push(&self, line: String) {
        let mut lines = self.0.lock();
        if lines.len() == REMEMBERED {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// A failure after all that was done.
    pub(super) fn failure(
        &self,
        sent: impl Into<String>,
        expected: impl Display,
        received: impl Display,
    ) -> Stop {
        let lines = self.0.lock();
        Stop::Failed(Failure {
            before: lines.iter().cloned().collect(),
            sent: sent.into(),
            expected: expected.to_string(),
            received: received.to_string(),
            printed: Vec::new(),
        })
    }

    /// What was done, and what came of it.
    pub(super) fn step<T>(&self, sent: impl Into<String>, got: Result<T, ClientError>) -> Step<T> {
        Step { trace: self.clone(), sent: shortened(sent.into()), got }
    }
}

/// A request and what came of it.
#[derive(Debug)]
#[must_use = "what came of a step is to be checked"]
pub(super) struct Step<T> {
    trace: Trace,
    sent: String,
    got: Result<T, ClientError>,
}

impl<T: Debug> Step<T> {
    /// It succeeds.
    pub(super) fn ok(self) -> Checked<T> {
        self.ok_and("OK", |_| true)
    }

    /// It succeeds, and the result satisfies `holds`, which `expected` describes.
    pub(super) fn ok_and(
        self,
        expected: impl Display,
        holds: impl FnOnce(&T) -> bool,
    ) -> Checked<T> {
        match self.got {
            Ok(value) if holds(&value) => {
                self.trace.push(format!("{} → OK", self.sent));
                Ok(value)
            }
            got => Err(self.trace.failure(self.sent, expected, received(&got))),
        }
    }

    /// It succeeds with this value.
    pub(super) fn is(self, value: T) -> Checked<T>
    where
        T: PartialEq,
    {
        let expected = shortened(format!("OK: {value:?}"));
        self.ok_and(expected, |got| *got == value)
    }

    /// The reply has this status of a failure.
    pub(super) fn fails(self, status: Status) -> Checked<()> {
        self.fails_with(&[status])
    }

    /// The reply has one of these statuses of a failure.
    pub(super) fn fails_with(self, statuses: &[Status]) -> Checked<()> {
        let names: Vec<_> = statuses.iter().map(|status| status.name()).collect();
        self.fails_as(names.join(" or "), |status| statuses.contains(&status))
    }

    /// The reply has any status of a failure.
    pub(super) fn fails_somehow(self) -> Checked<()> {
        self.fails_as("any status but OK".to_owned(), |_| true)
    }

    /// There is a reply, with any status: the value if it is OK.
    pub(super) fn answered(self) -> Checked<Option<T>> {
        match self.got {
            Ok(value) => {
                self.trace.push(format!("{} → OK", self.sent));
                Ok(Some(value))
            }
            Err(ClientError::Status(status)) => {
                self.trace.push(format!("{} → {}", self.sent, status.name()));
                Ok(None)
            }
            got => Err(self.trace.failure(self.sent, "a reply", received(&got))),
        }
    }

    /// It succeeds, or the reply has this status: then, `None`.
    pub(super) fn unless(self, status: Status) -> Checked<Option<T>> {
        match &self.got {
            Err(ClientError::Status(got)) if *got == status => self.answered(),
            _ => self.ok().map(Some),
        }
    }

    fn fails_as(self, expected: String, holds: impl FnOnce(Status) -> bool) -> Checked<()> {
        match self.got {
            Err(ClientError::Status(status)) if holds(status) => {
                self.trace.push(format!("{} → {}", self.sent, status.name()));
                Ok(())
            }
            got => Err(self.trace.failure(self.sent, expected, received(&got))),
        }
    }
}

impl Step<Bytes> {
    /// It succeeds with these bytes; the failure has the offset of the first that differs.
    pub(super) fn has_content(self, content: &[u8]) -> Checked<()> {
        let expected = format!("OK: {} bytes, as they were stored", content.len());
        match &self.got {
            Ok(data) if *data != content => {
                let same = data.iter().zip(content).take_while(|(a, b)| a == b).count();
                let received = format!("OK: {} bytes, wrong from byte {same} on", data.len());
                Err(self.trace.failure(self.sent, expected, received))
            }
            _ => self.ok_and(expected, |_| true).map(|_| ()),
        }
    }
}

fn received<T: Debug>(got: &Result<T, ClientError>) -> String {
    match got {
        Ok(value) => shortened(format!("OK: {value:?}")),
        Err(ClientError::Status(status)) => status.name().to_owned(),
        Err(error) => error.to_string(),
    }
}

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push('…');
    }
    text.replace("OK: ()", "OK")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure<T>(checked: Checked<T>) -> Failure {
        match checked {
            Err(Stop::Failed(failure)) => failure,
            _ => panic!("it should have failed"),
        }
    }

    #[test]
    fn a_failure_has_request_expectation_reply_and_the_steps_before() {
        let trace = Trace::default();
        trace.step("open", Ok(())).ok().unwrap();
        let step: Step<()> = trace.step("close", Err(Status::NoEntry.into()));
        let failure = failure(step.fails(Status::BadCount));
        assert_eq!(failure.before, ["open → OK"]);
        assert_eq!((&*failure.sent, &*failure.expected), ("close", "BADCOUNT"));
        assert_eq!(failure.received, "NOENTRY");
    }

    #[test]
    fn wrong_bytes_are_reported_with_the_offset_of_the_first() {
        let step = Trace::default().step("read", Ok(Bytes::from_static(b"abX")));
        assert_eq!(failure(step.has_content(b"abc")).received, "OK: 3 bytes, wrong from byte 2 on");
    }

    #[test]
    fn a_long_value_is_cut_in_a_failure() {
        let step = Trace::default().step("list".repeat(1000), Ok(vec![7; 10_000]));
        let failure = failure(step.is(Vec::new()));
        for shown in [failure.sent, failure.received] {
            assert!(shown.chars().count() <= SHOWN + 1, "{shown}");
        }
    }

    #[test]
    fn a_status_is_a_reply_and_a_timeout_is_none() {
        let trace = Trace::default();
        let refused: Step<()> = trace.step("x", Err(Status::IoErr.into()));
        assert!(refused.answered().unwrap().is_none());
        let silent: Step<()> = trace.step("x", Err(ClientError::Timeout));
        let timeout = ClientError::Timeout.to_string();
        assert_eq!(failure(silent.answered()).received, timeout);
    }
}
