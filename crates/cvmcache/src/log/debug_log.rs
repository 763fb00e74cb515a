//! The debug log: a file of all lines, rotated at its maximum size.
//!
//! At its largest, it becomes `FILE.1`, in place of the one that was there, and a new one begins.
//! Processes that write to the same file, as a plugin that ends and the one that follows it, do so
//! together: none of them keeps count of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::files::{self, FileId};

/// How large the file becomes, in bytes. There are two of them.
pub(super) const LARGEST: u64 = 64 * 1024 * 1024;

/// A file that is bounded, or a device such as `/dev/null`.
#[derive(Debug)]
pub(super) struct DebugLog {
    path: PathBuf,
    file: File,
    largest: u64,
}

impl DebugLog {
    /// Opens the file, to append to it.
    pub(super) fn open(path: &Path, largest: u64) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: files::append_to(path)?, largest })
    }

    fn has_room(&self, more: usize) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        let len = metadata.len();
        Ok(!metadata.is_file() || len == 0 || len + more as u64 <= self.largest)
    }

    fn begin_anew(&mut self) -> io::Result<()> {
        // Otherwise another process has moved it away already, and a new one may have begun.
        if self.is_at_its_path()? {
            let mut old: OsString = self.path.clone().into();
            old.push(".1");
            // If it cannot be moved out of the way, it is lost rather than without an end.
            if fs::rename(&self.path, old).is_err() {
                return self.file.set_len(0);
            }
        }
        self.file = files::append_to(&self.path)?;
        Ok(())
    }

    fn is_at_its_path(&self) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        let there = fs::metadata(&self.path);
        Ok(there.is_ok_and(|there| FileId::of(&there) == FileId::of(&ours)))
    }
}

impl Write for DebugLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.has_room(line.len())? {
            self.begin_anew()?;
        }
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_and_the_one_before_it_never_exceed_their_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let old = directory.path().join("log.1");
        fs::write(&path, "before\n").unwrap();
        let mut log = DebugLog::open(&path, 100).unwrap();
        for number in 10..100 {
            log.write_all(format!("line {number}\n").as_bytes()).unwrap();
            assert!(fs::metadata(&path).unwrap().len() <= 100);
            if number == 15 {
                assert!(fs::read_to_string(&path).unwrap().starts_with("before\nline 10\n"));
            }
        }
        let both = fs::read_to_string(old).unwrap() + &fs::read_to_string(path).unwrap();
        assert!(both.ends_with("line 98\nline 99\n") && both.contains("line 85\n"), "{both}");
        assert!(both.len() <= 200);
    }

    #[test]
    fn a_debug_log_that_cannot_be_renamed_is_truncated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::create_dir_all(directory.path().join("log.1/full")).unwrap();
        let mut log = DebugLog::open(&path, 10).unwrap();
        for _ in 0..5 {
            log.write_all(b"8 bytes\n").unwrap();
        }
        assert_eq!(fs::read_to_string(path).unwrap(), "8 bytes\n");
    }

    #[test]
    fn a_debug_log_without_its_directory_loses_lines_and_begins_anew_once_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("logs");
        let path = logs.join("log");
        fs::create_dir(&logs).unwrap();
        let mut log = DebugLog::open(&path, 10).unwrap();
        log.write_all(b"8 bytes\n").unwrap();
        fs::remove_dir_all(&logs).unwrap();
        for _ in 0..2 {
            log.write_all(b"lost\n").unwrap_err();
        }
        fs::create_dir(&logs).unwrap();
        log.write_all(b"anew\n").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "anew\n");
    }

    #[test]
    fn processes_that_write_to_the_same_file_keep_to_its_size_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut logs = [(); 3].map(|()| DebugLog::open(&path, 100).unwrap());
        for number in 10..100 {
            let log = &mut logs[number % 3];
            log.write_all(format!("line {number}\n").as_bytes()).unwrap();
            assert!(fs::metadata(&path).unwrap().len() <= 100);
        }
        let both = fs::read_to_string(directory.path().join("log.1")).unwrap()
            + &fs::read_to_string(path).unwrap();
        let last: String = (82..100).map(|number| format!("line {number}\n")).collect();
        assert!(both.ends_with(&last), "{both}");
    }

    #[test]
    fn a_file_that_was_moved_away_or_removed_begins_anew_when_it_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = DebugLog::open(&path, 16).unwrap();
        for away in ["moved", "log.1"] {
            log.write_all(b"8 bytes\n8 bytes\n").unwrap();
            fs::rename(&path, directory.path().join(away)).unwrap();
            log.write_all(b"anew\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "anew\n");
            assert!(fs::read_to_string(directory.path().join(away)).unwrap().contains("8 bytes"));
        }
    }
}
