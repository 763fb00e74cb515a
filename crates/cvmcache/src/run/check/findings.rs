//! The findings of a check: errors and warnings, one line each.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// What `--check` finds in a configuration; see [`Program::check`](crate::Program::check).
///
/// It prints as a line for each finding, `error: …`, `warning: …` or `note: …`, and a last line `ok`
/// if there is no error.
///
/// ```
/// let mut findings = cvmcache::Findings::default();
/// findings.warning("the disk is almost full; remove something");
/// assert_eq!(findings.to_string(), "warning: the disk is almost full; remove something\nok\n");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings(Vec<(Kind, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Error,
    Warning,
    Note,
}

impl Findings {
    /// A start would fail of this. The text names the key and the remedy, as an
    /// [`OptionsError`](crate::OptionsError) does.
    pub fn error(&mut self, what: impl fmt::Display) {
        self.push(Kind::Error, what);
    }

    /// A start would log this as a warning, and go on.
    pub fn warning(&mut self, what: impl fmt::Display) {
        self.push(Kind::Warning, what);
    }

    /// Nothing is wrong with this, but it is good to know.
    pub fn note(&mut self, what: impl fmt::Display) {
        self.push(Kind::Note, what);
    }

    /// True if a start would fail.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|(kind, _)| *kind == Kind::Error)
    }

    fn push(&mut self, kind: Kind, what: impl fmt::Display) {
        let text = what.to_string();
        let words: Vec<_> = text.split_whitespace().collect();
        self.0.push((kind, cut(words.join(" "))));
    }

    /// Runs a check, and takes what it logs as warnings for warnings.
    pub(super) fn collect_warnings(&mut self, check: impl FnOnce(&mut Self)) {
        let logged = Warnings::default();
        let subscriber = tracing_subscriber::registry().with(logged.clone());
        tracing::subscriber::with_default(subscriber, || check(self));
        let logged = std::mem::take(&mut *logged.0.lock());
        logged.iter().for_each(|text| self.warning(text));
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = [0; 3];
        for (kind, text) in &self.0 {
            let count = &mut counts[*kind as usize];
            *count += 1;
            if *count <= MAX_FINDINGS {
                writeln!(f, "{kind}: {text}")?;
            }
        }
        for (kind, count) in [Kind::Error, Kind::Warning, Kind::Note].into_iter().zip(counts) {
            if count > MAX_FINDINGS {
                writeln!(f, "{kind}: there are {} more", count - MAX_FINDINGS)?;
            }
        }
        if self.has_errors() { Ok(()) } else { f.write_str("ok\n") }
    }
}

/// How many findings of a kind are printed, and the longest, in bytes: `cvmcache doctor` reads 64 KiB.
const MAX_FINDINGS: usize = 25;
const MAX_TEXT: usize = 700;

/// Leaves out the middle of a long text: the key is at its beginning, the remedy at its end.
fn cut(text: String) -> String {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let is_boundary = |index: &usize| text.is_char_boundary(*index);
    let begin = (0..=MAX_TEXT / 2).rev().find(is_boundary).unwrap_or(0);
    let end = (text.len() - MAX_TEXT / 2..text.len()).find(is_boundary).unwrap_or(text.len());
    format!("{} [...] {}", &text[..begin], &text[end..])
}

/// The warnings that are logged while it is the subscriber.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= Level::WARN {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().push(text.0);
        }
    }
}

/// The message of an event with its other fields, as `message: name=value`.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0.insert_str(0, &format!("{value:?}"));
        } else {
            self.0 += &format!(" {}={value:?}", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_fits_into_64_kib_and_keeps_its_verdict() {
        let mut findings = Findings::default();
        for number in 0..1000 {
            findings.warning(format!("{number} {}; remove it", "\u{20ac}".repeat(1000)));
            findings.note(number);
        }
        let printed = findings.to_string();
        assert!(printed.len() < 64 * 1024, "{} bytes", printed.len());
        assert!(printed.ends_with("warning: there are 975 more\nnote: there are 975 more\nok\n"));
        let first = printed.lines().next().unwrap();
        assert!(
            first.starts_with("warning: 0 \u{20ac}") && first.ends_with("; remove it"),
            "{first}"
        );
    }

    #[test]
    fn a_finding_is_one_line_and_ok_stands_for_no_error() {
        let mut findings = Findings::default();
        assert_eq!(findings.to_string(), "ok\n");
        findings.note("two\n  lines");
        findings.collect_warnings(|findings| {
            tracing::warn!(size = 7, "too small");
            tracing::info!("of no matter");
            findings.error("too large");
        });
        let expected = "note: two lines\nerror: too large\nwarning: too small size=7\n";
        assert_eq!(findings.to_string(), expected);
        assert!(findings.has_errors());
    }
}
