//! What several commands print alike: sizes, bars, texts of plugins, and JSON.
//!
//! Styles are always written; the stream drops them where nobody would see colours.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use bytesize::ByteSize;
use cvmcache::plugin::ObjectType;
use serde::Serialize;

use crate::error::{Error, Result};

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

/// A number with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The name of an object type, on the command line and in listings.
pub(crate) fn object_type(object_type: ObjectType) -> &'static str {
    match object_type {
        ObjectType::Regular => "regular",
        ObjectType::Catalog => "catalog",
        ObjectType::Volatile => "volatile",
        _ => "unknown",
    }
}

/// A text that came from a plugin, such that no terminal can be upset by it, and no two texts
/// look alike: what is not UTF-8, not to be seen, or a backslash, is escaped as in Rust.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\'' => text.push(c),
                _ => text.extend(c.escape_debug()),
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// An output that goes on when nobody reads any more: for commands whose exit status is a verdict,
/// which `| head` is not to change.
pub(crate) struct Tireless<'a>(pub(crate) &'a mut dyn Write);

impl Write for Tireless<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}

/// A file for results that are still to come.
#[derive(Debug)]
pub(crate) struct ResultFile<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> ResultFile<'a> {
    /// Better to learn now that it cannot be written than when there is something to write.
    pub(crate) fn create(path: &'a Path) -> Result<Self> {
        match File::create(path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(Error::File { path: path.to_owned(), source }),
        }
    }

    pub(crate) fn write(mut self, text: io::Result<String>) -> Result<()> {
        let written = text.and_then(|text| self.file.write_all(text.as_bytes()));
        written.map_err(|source| Error::File { path: self.path.to_owned(), source })
    }
}

/// Says something that does not belong to the output.
pub(crate) fn note(text: &str) {
    // Nobody may be there to read it, and that is no reason to fail.
    let _ = writeln!(anstream::stderr(), "{text}");
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
    fn thousands_are_apart() {
        let counts = [0, 999, 1000, 123_456, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn texts_of_plugins_can_do_nothing_to_a_terminal() {
        for (bytes, shown) in [
            (&b"/sw/it's \"fine\" "[..], "/sw/it's \"fine\" "),
            ("/caf\u{e9}/\u{65e5}\u{672c}".as_bytes(), "/caf\u{e9}/\u{65e5}\u{672c}"),
            (b"caf\xe9", "caf\\xe9"),
            (b"\x1b[2J\r\n\0\x7f", "\\u{1b}[2J\\r\\n\\0\\u{7f}"),
            ("\u{9b}2J\u{202e}\u{200b}".as_bytes(), "\\u{9b}2J\\u{202e}\\u{200b}"),
            (b"\\x1b", "\\\\x1b"),
        ] {
            assert_eq!(text(bytes), shown);
        }
    }

    #[test]
    fn a_fraction_is_never_more_than_one() {
        assert_eq!((fraction(1, 0), fraction(1, 2), fraction(9, 2)), (0.0, 0.5, 1.0));
    }
}
