//! The severity at the beginning of a line, as its log target expects it.

use std::env;
use std::io;

use nix::sys::stat::fstat;
use tracing::Level;

/// The prefix of a log target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    /// A terminal or a file: the level is in the line.
    None,
    /// A [`Syslog`](super::syslog::Syslog), which replaces one character by the severity.
    Syslog,
    /// The journal, through standard error: `<N>` in front of every line, as in `sd-daemon(3)`.
    Journal,
}

impl Prefix {
    /// The prefix for standard error: the journal's, if `JOURNAL_STREAM` names it as the journal's stream.
    /// It may have been redirected since.
    pub(super) fn of_stderr() -> Self {
        let stream = fstat(io::stderr()).map(|file| format!("{}:{}", file.st_dev, file.st_ino));
        match (env::var("JOURNAL_STREAM"), stream) {
            (Ok(journal), Ok(stream)) if journal == stream => Self::Journal,
            _ => Self::None,
        }
    }

    /// For the first line.
    pub(super) fn first(self, level: Level) -> &'static str {
        match self {
            Self::None => "",
            Self::Syslog => match level {
                Level::ERROR => "3",
                Level::WARN => "4",
                Level::INFO => "6",
                _ => "7",
            },
            Self::Journal => match level {
                Level::ERROR => "<3>",
                Level::WARN => "<4>",
                Level::INFO => "<6>",
                _ => "<7>",
            },
        }
    }

    /// For those that belong to it.
    pub(super) fn next(self, level: Level) -> &'static str {
        match self {
            Self::Journal => self.first(level),
            Self::None | Self::Syslog => "",
        }
    }
}
