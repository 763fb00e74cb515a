//! The results of a check as JSON.

use cvmcache_testkit::{Case, CaseResult, Kind, Outcome, Report};
use serde::Serialize;

/// All results.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    plugin: &'a str,
    passed: usize,
    failed: usize,
    skipped: usize,
    cases: Vec<Entry<'a>>,
}

/// A case, and what came of it.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    description: Description,
    outcome: &'static str,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(flatten)]
    failure: Option<Failure<'a>>,
}

#[derive(Debug, Serialize)]
struct Failure<'a> {
    before: &'a [String],
    sent: &'a str,
    expected: &'a str,
    received: &'a str,
    printed: &'a [String],
}

/// A case.
#[derive(Debug, Serialize)]
pub(super) struct Description {
    name: &'static str,
    kind: &'static str,
    meaning: &'static str,
    needs: String,
    needs_cache_alone: bool,
}

impl<'a> Document<'a> {
    pub(super) fn of(plugin: &'a str, report: &'a Report) -> Self {
        let (passed, failed, skipped) = report.counts();
        let cases = report.results().iter().map(Entry::of).collect();
        Self { plugin, passed, failed, skipped, cases }
    }
}

impl<'a> Entry<'a> {
    fn of(result: &'a CaseResult) -> Self {
        let (outcome, reason, failure) = match &result.outcome {
            Outcome::Passed => ("passed", None, None),
            Outcome::Skipped(why) => ("skipped", Some(why.as_str()), None),
            Outcome::Failed(failure) => {
                let cvmcache_testkit::Failure { before, sent, expected, received, printed, .. } =
                    failure;
                ("failed", None, Some(Failure { before, sent, expected, received, printed }))
            }
            _ => ("unknown", None, None),
        };
        let description = Description::of(result.case);
        Self { description, outcome, seconds: result.took.as_secs_f64(), reason, failure }
    }
}

impl Description {
    pub(super) fn of(case: &'static Case) -> Self {
        let kind = match case.kind() {
            Kind::Hostile => "hostile",
            _ => "conformance",
        };
        Self {
            name: case.name(),
            kind,
            meaning: case.meaning(),
            needs: case.needs().to_string(),
            needs_cache_alone: case.needs_cache_alone(),
        }
    }
}
