//! The report of doctor: findings and what is right, by subject, as text and as JSON.

use std::io::Write;

use anstyle::Style;
use serde::Serialize;

use super::kind::{Kind, Severity};
use crate::error::Result;
use crate::output::{self, BAD, FAINT, GOOD, TITLE, WARN};

/// The column of texts, behind the severity.
const TEXT: usize = 11;

/// The columns of `why: `.
const LABEL: usize = 5;

/// The least columns of a text that is wrapped.
const NARROWEST: usize = 20;

/// The report: one section a subject.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Section>);

/// The findings on one subject, such as a file.
#[derive(Debug)]
pub(crate) struct Section {
    subject: String,
    entries: Vec<Entry>,
}

#[derive(Debug)]
enum Entry {
    Fine(String),
    Found(Finding),
}

#[derive(Debug)]
struct Finding {
    kind: Kind,
    found: String,
    remedy: String,
}

/// A finding as scripts see it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: String,
    severity: Severity,
    subject: &'a str,
    found: &'a str,
    why: &'a str,
    remedy: &'a str,
}

impl Report {
    pub(crate) fn push(&mut self, section: Section) {
        self.0.push(section);
    }

    /// True if there is an error.
    pub(crate) fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Writes it for people, whose terminal has so many columns; `None` for a file or a pipe.
    pub(crate) fn print(&self, out: &mut dyn Write, width: Option<usize>) -> Result<()> {
        for Section { subject, entries } in self.0.iter().filter(|part| !part.entries.is_empty()) {
            writeln!(out, "{TITLE}{}{TITLE:#}", output::escaped(subject))?;
            for entry in entries {
                match entry {
                    Entry::Fine(what) => {
                        writeln!(out, "  {GOOD}ok{GOOD:#}       {}", output::escaped(what))?;
                    }
                    Entry::Found(finding) => finding.print(out, width)?,
                }
            }
            writeln!(out)?;
        }
        let [errors, warnings, notes] = [Severity::Error, Severity::Warning, Severity::Note]
            .map(|severity| (self.count(severity), style(severity), word(severity)));
        let count = |(number, style, word): (usize, Style, &str)| {
            let style = if number == 0 { Style::new() } else { style };
            format!("{style}{number} {word}{}{style:#}", if number == 1 { "" } else { "s" })
        };
        writeln!(out, "{}, {}, {}", count(errors), count(warnings), count(notes))?;
        Ok(())
    }

    pub(crate) fn print_json(&self, out: &mut dyn Write) -> Result<()> {
        let rows = self.findings().map(|(subject, finding)| {
            let Finding { kind, found, remedy } = finding;
            let (name, severity, why) = (kind.to_string(), kind.severity(), kind.why());
            Row { name, severity, subject, found, why, remedy }
        });
        output::json(out, &Vec::from_iter(rows))
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings().filter(|(_, finding)| finding.kind.severity() == severity).count()
    }

    fn findings(&self) -> impl Iterator<Item = (&str, &Finding)> {
        self.0.iter().flat_map(|section| {
            section.entries.iter().filter_map(|entry| match entry {
                Entry::Fine(_) => None,
                Entry::Found(finding) => Some((section.subject.as_str(), finding)),
            })
        })
    }
}

impl Section {
    pub(crate) fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), entries: Vec::new() }
    }

    /// Says that something is as it should be.
    pub(crate) fn fine(&mut self, what: impl Into<String>) {
        self.entries.push(Entry::Fine(what.into()));
    }

    /// Says that something is not, and what to do about it: a command or a line to write.
    pub(crate) fn found(
        &mut self,
        kind: Kind,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (found, remedy) = (found.into(), remedy.into());
        self.entries.push(Entry::Found(Finding { kind, found, remedy }));
    }

    /// Adds all that is in another section.
    pub(crate) fn append(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// Adds what is right in another section, and its findings of these kinds.
    pub(crate) fn take(&mut self, other: Self, kinds: &[Kind]) {
        let is_taken = |entry: &Entry| match entry {
            Entry::Fine(_) => true,
            Entry::Found(finding) => kinds.contains(&finding.kind),
        };
        self.entries.extend(other.entries.into_iter().filter(is_taken));
    }

    /// What was found.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let kinds = self.entries.iter().filter_map(|entry| match entry {
            Entry::Fine(_) => None,
            Entry::Found(finding) => Some(finding.kind),
        });
        kinds.collect()
    }
}

impl Finding {
    fn print(&self, out: &mut dyn Write, width: Option<usize>) -> Result<()> {
        let Self { kind, found, remedy } = self;
        let (style, word) = (style(kind.severity()), word(kind.severity()));
        let found = wrapped(&format!("{kind}: {}", output::escaped(found)), TEXT, width);
        writeln!(out, "  {style}{word:<7}{style:#}  {found}")?;
        let why = wrapped(kind.why(), TEXT + LABEL, width);
        writeln!(out, "           {FAINT}why:{FAINT:#} {why}")?;
        // It may be a command, which is to be copied.
        writeln!(out, "           {FAINT}fix:{FAINT:#} {}", output::escaped(remedy))?;
        Ok(())
    }
}

/// A text that begins in this column, and goes on below.
fn wrapped(text: &str, column: usize, width: Option<usize>) -> String {
    let Some(width) = width.and_then(|width| width.checked_sub(column + NARROWEST)) else {
        return text.to_owned();
    };
    let options = textwrap::Options::new(width + NARROWEST)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::wrap(text, options).join(&format!("\n{:column$}", ""))
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Error => BAD,
        Severity::Warning => WARN,
        Severity::Note => FAINT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(kinds: &[Kind]) -> Report {
        let mut section = Section::new("file");
        for kind in kinds {
            section.found(*kind, "this\x1b[31m", "do that");
        }
        Report(vec![section])
    }

    fn printed(report: &Report) -> String {
        let mut out = Vec::new();
        report.print(&mut out, None).unwrap();
        anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string()
    }

    #[test]
    fn warnings_are_no_errors() {
        assert!(!report(&[Kind::KeyTwice, Kind::StaleSocket]).has_errors());
        assert!(report(&[Kind::KeyTwice, Kind::PollBad]).has_errors());
    }

    #[test]
    fn a_report_counts_its_findings() {
        let text = printed(&report(&[Kind::PollBad, Kind::KeyTwice, Kind::WorkersBad]));
        assert!(text.ends_with("2 errors, 1 warning, 0 notes\n"), "{text}");
    }

    #[test]
    fn prose_is_wrapped_for_a_terminal_and_remedies_are_not() {
        let mut section = Section::new("file");
        section.found(Kind::PollBad, "a ".repeat(60), "b ".repeat(60));
        let mut out = Vec::new();
        Report(vec![section]).print(&mut out, Some(80)).unwrap();
        let text = anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string();
        let columns = |line: &str| line.chars().count();
        let (fixes, rest): (Vec<_>, Vec<_>) = text.lines().partition(|it| it.contains("fix:"));
        assert!(rest.iter().copied().map(columns).max() <= Some(80), "{text}");
        assert!(rest.iter().any(|line| line.starts_with("           a a")), "{text}");
        assert!(fixes.iter().all(|line| columns(line) > 80), "{text}");
        assert_eq!(wrapped("a b", TEXT, Some(15)), "a b", "too narrow to wrap");
    }

    #[test]
    fn control_characters_from_a_file_are_escaped() {
        let text = printed(&report(&[Kind::PollBad]));
        assert!(text.contains("poll-bad: this\\u{1b}[31m\n"), "{text}");
    }
}
