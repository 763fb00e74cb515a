//! Syslog, or the journal where it listens at the same socket.
//!
//! The C library keeps up the connection. It may wait for the other end, so this is for a thread
//! that writes, and for no other thread.

use std::ffi::CString;
use std::io::{self, Write};
use std::path::Path;

use nix::syslog::{Facility, LogFlags, Priority, Severity, openlog, syslog};

/// The socket of syslog.
const SOCKET: &str = "/dev/log";

/// Sends lines that begin with [`Prefix::Syslog`](super::prefix::Prefix::Syslog).
#[derive(Debug)]
pub(super) struct Syslog<S = fn(Severity, &str)> {
    send: S,
}

impl Syslog {
    pub(super) fn is_there() -> bool {
        Path::new(SOCKET).exists()
    }

    /// Logs under the name of the plugin and the number of the process.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let ident = CString::new(format!("cvmcache-{name}"))?;
        // The C library keeps the name, until the process ends.
        openlog(
            Some(Box::leak(ident.into_boxed_c_str())),
            LogFlags::LOG_PID,
            Facility::LOG_DAEMON,
        )?;
        Ok(Self { send })
    }
}

fn send(severity: Severity, line: &str) {
    // It fails for a zero byte only, which a line does not have.
    let _ = syslog(Priority::new(severity, Facility::LOG_DAEMON), line);
}

impl<S: FnMut(Severity, &str)> Write for Syslog<S> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let mut characters = text.trim_end().chars();
        let severity = match characters.next() {
            Some('3') => Severity::LOG_ERR,
            Some('4') => Severity::LOG_WARNING,
            Some('6') => Severity::LOG_INFO,
            _ => Severity::LOG_DEBUG,
        };
        (self.send)(severity, characters.as_str().trim_start());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::super::prefix::Prefix;
    use super::*;

    #[test]
    fn a_line_is_sent_with_the_severity_of_its_level() {
        for (level, severity) in [
            (Level::ERROR, Severity::LOG_ERR),
            (Level::WARN, Severity::LOG_WARNING),
            (Level::INFO, Severity::LOG_INFO),
            (Level::DEBUG, Severity::LOG_DEBUG),
        ] {
            let mut sent = Vec::new();
            let mut syslog =
                Syslog { send: |severity, line: &str| sent.push((severity, line.to_owned())) };
            let line = format!("{} INFO 7 lines\n    and more\n", Prefix::Syslog.first(level));
            syslog.write_all(line.as_bytes()).unwrap();
            assert_eq!(sent, [(severity, "INFO 7 lines\n    and more".to_owned())]);
        }
    }
}
