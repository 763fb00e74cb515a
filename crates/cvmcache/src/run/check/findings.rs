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
        let one_line: Vec<_> = text.split_whitespace().collect();
        self.0.push((kind, one_line.join(" ")));
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

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, text) in &self.0 {
            let kind = match kind {
                Kind::Error => "error",
                Kind::Warning => "warning",
                Kind::Note => "note",
            };
            writeln!(f, "{kind}: {text}")?;
        }
        if self.has_errors() { Ok(()) } else { f.write_str("ok\n") }
    }
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
