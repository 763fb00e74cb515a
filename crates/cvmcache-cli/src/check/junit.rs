//! The results of a check as JUnit XML, for continuous integration.

use std::io;

use cvmcache_testkit::{Kind, Outcome, Report};
use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use crate::output::{FileError, ResultFile};

/// Writes the results of a check to a file.
pub(super) fn write(file: ResultFile<'_>, plugin: &str, report: &Report) -> Result<(), FileError> {
    file.write(document(plugin, report))
}

fn document(plugin: &str, report: &Report) -> io::Result<String> {
    let mut suites = [TestSuite::new("conformance"), TestSuite::new("hostile")];
    for result in report.results() {
        let status = match &result.outcome {
            Outcome::Passed => TestCaseStatus::success(),
            Outcome::Skipped(why) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(why.as_str());
                status
            }
            Outcome::Failed(failure) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(format!(
                    "expected {}, received {}",
                    failure.expected, failure.received
                ));
                status.set_description(format!("{}\n{failure}", result.case.meaning()));
                status
            }
            other => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_message(format!("{other:?}"));
                status
            }
        };
        let hostile = result.case.kind() == Kind::Hostile;
        let suite = &mut suites[usize::from(hostile)];
        let mut case = TestCase::new(result.case.name(), status);
        case.set_classname(format!("cvmcache.{}", suite.name.as_str())).set_time(result.took);
        suite.add_test_case(case);
    }
    let mut junit = Junit::new(format!("cvmcache check {plugin}"));
    junit.add_test_suites(suites.into_iter().filter(|suite| suite.tests > 0));
    junit.to_string().map_err(io::Error::other)
}
