//! The results of a check as text.

use std::io::Write;
use std::time::Duration;

use cvmcache_testkit::{Case, CaseResult, Kind, Outcome, Report, Suite};

use crate::error::Result;
use crate::output::{self, BAD, FAINT, GOOD, TITLE, WARN};

/// Writes what came of a case.
pub(super) fn result(out: &mut dyn Write, result: &CaseResult) -> Result<()> {
    let name = result.case.name();
    match &result.outcome {
        Outcome::Passed => writeln!(out, "{GOOD}ok{GOOD:#}       {name}")?,
        Outcome::Failed(failure) => {
            writeln!(out, "{BAD}FAILED{BAD:#}   {TITLE}{name}{TITLE:#}")?;
            let failure = output::escaped_lines(&failure.to_string());
            writeln!(out, "    {:<10}{}\n{failure}", "meaning:", result.case.meaning())?;
        }
        Outcome::Skipped(why) => {
            writeln!(out, "{WARN}skipped{WARN:#}  {name}{FAINT}: {why}{FAINT:#}")?;
        }
        // `Outcome` is non-exhaustive.
        other => writeln!(out, "{other:?}  {name}")?,
    }
    // Shows the progress at once.
    out.flush()?;
    Ok(())
}

/// Writes how many there were of each.
pub(super) fn summary(out: &mut dyn Write, report: &Report, took: Duration) -> Result<()> {
    let (passed, failed, skipped) = report.counts();
    let style = if report.is_good() { GOOD } else { BAD };
    let counts = format!("{passed} passed, {failed} failed, {skipped} skipped");
    writeln!(out, "\n{style}{counts}{style:#} in {:.1} s", took.as_secs_f64())?;
    if failed > 0 {
        writeln!(out, "The same objects again: --seed {}", report.seed())?;
    }
    if passed + failed == 0 {
        writeln!(out, "No case was run: see why they were skipped.")?;
    }
    Ok(())
}

/// Writes which cases there are.
pub(super) fn list(out: &mut dyn Write, suite: &Suite) -> Result<()> {
    let titles = [
        (Kind::Conformance, "What clients rely on"),
        (Kind::Hostile, "What no client should do (with --hostile)"),
    ];
    for (kind, title) in titles {
        let mut cases = suite.cases().filter(|case| case.kind() == kind).peekable();
        if cases.peek().is_some() {
            writeln!(out, "{TITLE}{title}{TITLE:#}\n")?;
            cases.try_for_each(|case| describe(out, case))?;
        }
    }
    Ok(())
}

fn describe(out: &mut dyn Write, case: &Case) -> Result<()> {
    let needs = match case.needs().to_string() {
        none if none == "none" => None,
        needs => Some(format!("needs {needs}")),
    };
    let alone = case.needs_cache_alone().then(|| "needs the cache for itself".to_owned());
    let notes: Vec<_> = needs.into_iter().chain(alone).collect();
    let notes = notes.join("; ");
    writeln!(out, "{GOOD}{}{GOOD:#}  {FAINT}{notes}{FAINT:#}", case.name())?;
    writeln!(out, "    {}\n", case.meaning())?;
    Ok(())
}
