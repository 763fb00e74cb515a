//! What several commands print alike: sizes, bars, marks and JSON.
//!
//! Styles are always written; the stream drops them where nobody would see colours.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use bytesize::ByteSize;
use serde::Serialize;

use crate::error::Result;

/// For what is as it should be.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// For what deserves a look.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// For what is wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// For what is there to be skipped by the eye.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// For what everything below belongs to.
pub(crate) const TITLE: Style = Style::new().bold();

/// A size as people write it, in powers of 1024.
pub(crate) fn bytes(size: u64) -> String {
    ByteSize(size).display().iec().to_string()
}

/// What part of `whole` a `part` is, from 0 to 1; 0 of nothing.
pub(crate) fn fraction(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

/// A bar of `width` characters, as full as `fraction` says.
pub(crate) fn bar(fraction: f64, width: usize) -> String {
    let full = (fraction * width as f64).round() as usize;
    let style = match fraction {
        f if f >= 0.95 => BAD,
        f if f >= 0.8 => WARN,
        _ => GOOD,
    };
    let (full, empty) = ("█".repeat(full), "░".repeat(width - full));
    format!("{style}{full}{style:#}{FAINT}{empty}{FAINT:#}")
}

/// Writes a JSON document for people, too.
pub(crate) fn json(out: &mut dyn Write, document: &impl Serialize) -> Result<()> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    writeln!(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(styled: &str) -> String {
        anstream::adapter::strip_str(styled).to_string()
    }

    #[test]
    fn sizes_are_in_powers_of_1024() {
        assert_eq!([0, 1023, 1 << 20, 3 << 29].map(bytes), ["0 B", "1023 B", "1.0 MiB", "1.5 GiB"]);
    }

    #[test]
    fn a_bar_is_as_wide_as_it_is_told_to_be() {
        assert_eq!(plain(&bar(0.0, 4)), "░░░░");
        assert_eq!(plain(&bar(0.5, 4)), "██░░");
        assert_eq!(plain(&bar(1.0, 4)), "████");
    }

    #[test]
    fn a_fraction_is_never_more_than_one() {
        assert_eq!((fraction(1, 0), fraction(1, 2), fraction(9, 2)), (0.0, 0.5, 1.0));
    }
}
