//! The report of a suite: all cases, and of those that failed, the request, the expectation and the
//! reply.

use std::fmt;
use std::time::Duration;

use super::Case;

/// What came of a [`Suite`](super::Suite).
#[derive(Debug, Clone)]
pub struct Report {
    results: Vec<CaseResult>,
    seed: u64,
}

/// What came of a case.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CaseResult {
    /// The case.
    pub case: &'static Case,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// What comes of a case.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// The plugin does as it should.
    Passed,
    /// It does not.
    Failed(Failure),
    /// The case does not apply, or could not be tried; why.
    Skipped(String),
}

/// How a plugin failed a case.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// What happened before, the latest last.
    pub before: Vec<String>,
    /// What was sent.
    pub sent: String,
    /// What should have come back, or happened.
    pub expected: String,
    /// What came back, or happened.
    pub received: String,
    /// The last lines that the plugin has printed to standard output and standard error, if it was
    /// started for the suite.
    pub printed: Vec<String>,
}

impl Report {
    pub(super) fn new(seed: u64) -> Self {
        Self { results: Vec::new(), seed }
    }

    /// Every case that was chosen, in the order of the suite.
    pub fn results(&self) -> &[CaseResult] {
        &self.results
    }

    /// The cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&CaseResult, &Failure)> {
        self.results.iter().filter_map(|result| match &result.outcome {
            Outcome::Failed(failure) => Some((result, failure)),
            _ => None,
        })
    }

    /// What chance began with: see [`Suite::seed`](super::Suite::seed).
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many cases passed, failed and were skipped, in this order.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |is: fn(&Outcome) -> bool| {
            self.results.iter().filter(|result| is(&result.outcome)).count()
        };
        (
            count(|outcome| matches!(outcome, Outcome::Passed)),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
            count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        )
    }

    /// True if no case failed, and not all of them were skipped.
    pub fn is_good(&self) -> bool {
        let (passed, failed, _) = self.counts();
        failed == 0 && passed > 0
    }

    /// Nothing, if the plugin conforms: for tests.
    ///
    /// # Panics
    ///
    /// With the whole report unless it [is good](Self::is_good).
    #[track_caller]
    pub fn assert_good(&self) {
        assert!(self.is_good(), "the plugin does not conform\n{self}");
    }

    pub(super) fn push(&mut self, result: CaseResult) {
        self.results.push(result);
    }
}

/// A line for each case, and for those that failed what was sent, expected and received.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for result in &self.results {
            writeln!(f, "{result}")?;
        }
        let (passed, failed, skipped) = self.counts();
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl fmt::Display for CaseResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.case.name();
        match &self.outcome {
            Outcome::Passed => write!(f, "ok      {name}"),
            Outcome::Failed(failure) => {
                let meaning = self.case.meaning();
                write!(f, "FAILED  {name}\n    {:<10}{meaning}\n{failure}", "meaning:")
            }
            Outcome::Skipped(why) => write!(f, "skipped {name}: {why}"),
        }
    }
}

/// Indented lines.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut label = "before:";
        for line in &self.before {
            writeln!(f, "    {label:<10}{line}")?;
            label = "";
        }
        let fields =
            [("sent:", &self.sent), ("expected:", &self.expected), ("received:", &self.received)];
        for (at, (label, text)) in fields.into_iter().enumerate() {
            let end = if at + 1 < fields.len() { "\n" } else { "" };
            let text = text.replace('\n', "\n              ");
            write!(f, "    {label:<10}{text}{end}")?;
        }
        let mut label = "printed:";
        for line in &self.printed {
            write!(f, "\n    {label:<10}{line}")?;
            label = "";
        }
        Ok(())
    }
}
