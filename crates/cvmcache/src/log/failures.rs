//! Lines that could not be written, as on a full disk. The thread that writes cannot log, so
//! they are counted here, and reported as lost on another log target.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use parking_lot::Mutex;

/// How many lines could not be written since this was last taken, and why. Clones share it.
///
/// Invariant: nothing is written or logged under the lock, so that a writer waits for no more than one
/// access.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures(Arc<Mutex<Option<Failed>>>);

/// What was lost.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) lines: u64,
    /// Why the last of them was.
    pub(super) error: io::Error,
}

/// A writer whose failures are counted: one for each line, as a line that fails is not tried again.
#[derive(Debug)]
pub(super) struct Counted<W> {
    pub(super) writer: W,
    pub(super) failures: Failures,
}

impl Failures {
    pub(super) fn take(&self) -> Option<Failed> {
        self.0.lock().take()
    }

    fn add(&self, error: &io::Error) {
        let mut failed = self.0.lock();
        let lines = failed.as_ref().map_or(0, |failed| failed.lines) + 1;
        let error = match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => error.kind().into(),
        };
        *failed = Some(Failed { lines, error });
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(line);
        if let Err(error) = &written
            && error.kind() != ErrorKind::Interrupted
        {
            self.failures.add(error);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn lines_on_a_full_disk_are_counted_once_each() {
        let failures = Failures::default();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut log = Counted { writer: full, failures: failures.clone() };
        for _ in 0..3 {
            log.write_all(b"a line\n").unwrap_err();
        }
        let failed = failures.take().unwrap();
        assert_eq!((failed.lines, failed.error.kind()), (3, ErrorKind::StorageFull));
        assert!(failures.take().is_none());
    }
}
