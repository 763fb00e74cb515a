//! Sanitizing lines: control characters are escaped, and the length is bounded.
//!
//! Texts of clients are escaped where they are logged. This is for texts that were not thought
//! of, such as the message of a panic.

use std::io::{self, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::limiter::Limiter;
use super::prefix::Prefix;

/// How long a line may be, in bytes, before it is cut. Errors may come with a backtrace.
const LONGEST: usize = 2 * 1024;
const LONGEST_ERROR: usize = 32 * 1024;

/// Sanitizes lines for a writer, and begins them with its prefix.
#[derive(Debug)]
pub(super) struct Lines<W> {
    pub(super) writer: W,
    pub(super) prefix: Prefix,
    /// `None`: as many as there are.
    pub(super) limiter: Option<Limiter>,
}

/// Takes one line.
#[derive(Debug)]
pub(super) struct Line<W> {
    /// `None` if it is suppressed.
    writer: Option<W>,
    prefix: Prefix,
    level: Level,
}

impl<W: Write + Clone> MakeWriter<'_> for Lines<W> {
    type Writer = Line<W>;

    fn make_writer(&self) -> Line<W> {
        let writer = Some(self.writer.clone());
        Line { writer, prefix: self.prefix, level: Level::INFO }
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> Line<W> {
        let is_admitted = self.limiter.as_ref().is_none_or(|limiter| limiter.admits(metadata));
        let writer = is_admitted.then(|| self.writer.clone());
        Line { writer, prefix: self.prefix, level: *metadata.level() }
    }
}

/// The layer writes each line at once.
impl<W: Write> Write for Line<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(writer) = &mut self.writer {
            writer.write_all(&sanitize(line, self.prefix, self.level))?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), W::flush)
    }
}

/// The line as the prefix and its level want it.
pub(super) fn sanitize(line: &[u8], prefix: Prefix, level: Level) -> Vec<u8> {
    let longest = if level == Level::ERROR { LONGEST_ERROR } else { LONGEST };
    clean(line, prefix.first(level), prefix.next(level), longest)
}

/// Escapes what controls terminals, indents all but the first line, and cuts the end off.
fn clean(line: &[u8], first: &str, next: &str, longest: usize) -> Vec<u8> {
    let mut clean = first.as_bytes().to_vec();
    let text = String::from_utf8_lossy(line.trim_ascii());
    for character in text.chars() {
        if clean.len() > longest {
            clean.extend_from_slice(b" ...");
            break;
        }
        match character {
            '\n' => clean.extend([b"\n", next.as_bytes(), b"    "].concat()),
            '\t' => clean.push(b'\t'),
            control if control.is_control() => {
                clean.extend(control.escape_default().map(|ascii| ascii as u8));
            }
            other => clean.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    clean.push(b'\n');
    clean
}

#[cfg(test)]
mod tests {
    fn clean(line: &str) -> String {
        String::from_utf8(super::clean(line.as_bytes(), "<6>", "<6>", 30)).unwrap()
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(clean("panic\nINFO fine\n"), "<6>panic\n<6>    INFO fine\n");
        assert_eq!(clean("\x1b[2J\r\u{9b}é"), "<6>\\u{1b}[2J\\r\\u{9b}é\n");
    }

    #[test]
    fn a_long_line_is_cut() {
        assert_eq!(clean(&"x".repeat(1000)), format!("<6>{} ...\n", "x".repeat(28)));
    }
}
