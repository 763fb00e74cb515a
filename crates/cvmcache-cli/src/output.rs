//! Output that several commands share: sizes, bars, texts of plugins, and JSON.
//!
//! Styles are always written; the stream drops them where colours are off.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanCount;
use serde::Serialize;
use thiserror::Error;

use crate::error::{self, Result};

/// For what is as it should be.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// For warnings.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// For what is wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// For what matters least.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// For headings.
pub(crate) const TITLE: Style = Style::new().bold();

/// The columns of the terminal on standard output; `None` if it is none.
pub(crate) fn terminal_width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(io::stdout())?;
    Some(width.0.into())
}

/// A size as people write it, in powers of 1024.
pub(crate) fn bytes(size: u64) -> String {
    ByteSize(size).display().iec().to_string()
}

/// The fraction of `whole` that `part` is, from 0 to 1; 0 if `whole` is 0.
pub(crate) fn fraction(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

/// A bar of `width` characters, filled by `fraction`.
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

/// A number with a comma before each three digits.
pub(crate) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// The name of a plugin; those with the library of CernVM-FS have none.
pub(crate) fn plugin_name(name: &str) -> &str {
    if name.is_empty() { "a plugin without a name" } else { name }
}

/// A text from a plugin, without terminal control sequences and unambiguous: bytes that are not
/// UTF-8, invisible characters and backslashes are escaped as in Rust.
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

/// A line in which control characters are escaped.
pub(crate) fn escaped(line: &str) -> String {
    let escaped = |character: char| match character {
        character if character.is_control() => character.escape_default().to_string(),
        character => character.to_string(),
    };
    line.chars().map(escaped).collect()
}

/// Lines in which other control characters are escaped.
pub(crate) fn escaped_lines(text: &str) -> String {
    text.lines().map(escaped).collect::<Vec<_>>().join("\n")
}

/// An output that discards what is written to a broken pipe: for commands whose exit status is a
/// verdict, which `| head` must not change.
pub(crate) struct IgnoreBrokenPipe<'a>(pub(crate) &'a mut dyn Write);

impl Write for IgnoreBrokenPipe<'_> {
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

/// A file of results cannot be written.
#[derive(Debug, Error)]
#[error("cannot write {path:?}: {source}; name a file in a directory that you can write to")]
pub(crate) struct FileError {
    path: PathBuf,
    source: io::Error,
}

impl From<FileError> for error::Error {
    fn from(error: FileError) -> Self {
        Self::failed(error)
    }
}

/// A file for results that are still to come.
#[derive(Debug)]
pub(crate) struct ResultFile<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> ResultFile<'a> {
    /// Creates the file before there are results, so that a wrong path is reported first.
    pub(crate) fn create(path: &'a Path) -> Result<Self, FileError> {
        match File::create(path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(FileError { path: path.to_owned(), source }),
        }
    }

    pub(crate) fn write(mut self, text: io::Result<String>) -> Result<(), FileError> {
        let written = text.and_then(|text| self.file.write_all(text.as_bytes()));
        written.map_err(|source| FileError { path: self.path.to_owned(), source })
    }
}

/// Writes a table: texts to the left in the first columns, figures to the right in the others.
pub(crate) fn table(
    out: &mut dyn Write,
    header: &[&str],
    rows: Vec<Vec<String>>,
    texts: usize,
) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if number >= texts {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for (number, line) in table.lines().enumerate() {
        let line = line.trim_end();
        match number {
            0 => writeln!(out, "{TITLE}{line}{TITLE:#}")?,
            _ => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}

/// A part of a whole in percent, without a digit that means nothing; `-` if there is none.
pub(crate) fn percent(ratio: Option<f64>) -> String {
    match ratio {
        // What is not all does not look like all.
        Some(ratio) if ratio < 1.0 => format!("{:.0} %", (ratio * 100.0).min(99.0)),
        Some(_) => "100 %".to_owned(),
        None => "-".to_owned(),
    }
}

/// An age in the largest unit that it has one of.
pub(crate) fn age(seconds: f64) -> String {
    match seconds as u64 {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// A time in microseconds, to two digits, which is as exact as a histogram is.
pub(crate) fn latency(micros: Option<f64>) -> String {
    match micros {
        None => "-".to_owned(),
        Some(us) if us < 10.0 => format!("{us:.1} us"),
        Some(us) if us < 1e3 => format!("{us:.0} us"),
        Some(us) if us < 1e4 => format!("{:.1} ms", us / 1e3),
        Some(us) if us < 1e6 => format!("{:.0} ms", us / 1e3),
        Some(us) => format!("{:.1} s", us / 1e6),
    }
}

/// A name in so many columns: its ends tell names apart.
pub(crate) fn shortened(name: &str, room: usize) -> String {
    let len = name.chars().count();
    if len <= room {
        return name.to_owned();
    }
    let (before, after) = (room / 2, room.saturating_sub(room / 2 + 1));
    let (begin, end) = (name.chars().take(before), name.chars().skip(len - after));
    begin.chain(['…']).chain(end).collect()
}

/// Writes a line to standard error.
pub(crate) fn note(text: &str) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// What a command prints, for people or for programs.
pub(crate) trait Document: Serialize {
    /// Writes it for people.
    fn print(&self, out: &mut dyn Write) -> Result<()>;
}

/// Writes a document for programs or for people.
pub(crate) fn document(out: &mut dyn Write, document: &impl Document, as_json: bool) -> Result<()> {
    if as_json { json(out, document) } else { document.print(out) }
}

/// Writes a JSON document, indented.
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
    fn a_bar_has_the_given_width() {
        assert_eq!(plain(&bar(0.0, 4)), "░░░░");
        assert_eq!(plain(&bar(0.5, 4)), "██░░");
        assert_eq!(plain(&bar(1.0, 4)), "████");
    }

    #[test]
    fn a_text_of_a_plugin_has_no_terminal_control_sequence() {
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
    fn a_name_is_shortened_in_its_middle() {
        let shown = [8, 5, 2, 1].map(|room| shortened("abcdefgh", room));
        assert_eq!(shown, ["abcdefgh", "ab…gh", "a…", "…"]);
    }

    #[test]
    fn a_ratio_that_is_not_all_does_not_look_like_all() {
        let shown = [None, Some(0.0), Some(0.994), Some(0.9999), Some(1.0)].map(percent);
        assert_eq!(shown, ["-", "0 %", "99 %", "99 %", "100 %"]);
    }

    #[test]
    fn an_age_is_in_its_largest_unit() {
        let shown = [0.4, 59.9, 60.0, 7200.0, 259_200.0].map(age);
        assert_eq!(shown, ["0s", "59s", "1m", "2h", "3d"]);
    }

    #[test]
    fn a_fraction_is_never_more_than_one() {
        assert_eq!((fraction(1, 0), fraction(1, 2), fraction(9, 2)), (0.0, 0.5, 1.0));
    }
}
