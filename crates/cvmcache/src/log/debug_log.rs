//! The debug log: a file that has everything of late, and an end.
//!
//! At its largest, it becomes `FILE.1`, in place of the one that was there, and a new one begins.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How large the file becomes, in bytes. There are two of them.
pub(super) const LARGEST: u64 = 64 * 1024 * 1024;

/// A file that is bounded. What is no regular file, such as a pipe, is not.
#[derive(Debug)]
pub(super) struct DebugLog {
    path: PathBuf,
    file: File,
    is_regular: bool,
    len: u64,
    largest: u64,
}

impl DebugLog {
    /// Opens the file, to append to it.
    pub(super) fn open(path: &Path, largest: u64) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let metadata = file.metadata()?;
        let (is_regular, len) = (metadata.is_file(), metadata.len());
        Ok(Self { path: path.to_owned(), file, is_regular, len, largest })
    }

    fn begin_anew(&mut self) -> io::Result<()> {
        let mut old: OsString = self.path.clone().into();
        old.push(".1");
        // If it cannot be moved out of the way, it is lost rather than without an end.
        if fs::rename(&self.path, old).is_ok() {
            *self = Self::open(&self.path, self.largest)?;
        }
        if self.len > 0 {
            self.file.set_len(0)?;
            self.len = 0;
        }
        Ok(())
    }
}

impl Write for DebugLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.is_regular && self.len + line.len() as u64 > self.largest && self.len > 0 {
            self.begin_anew()?;
        }
        let written = self.file.write(line)?;
        self.len += written as u64;
        Ok(written)
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
    fn a_file_that_cannot_be_moved_begins_anew_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::create_dir_all(directory.path().join("log.1/full")).unwrap();
        let mut log = DebugLog::open(&path, 10).unwrap();
        for _ in 0..5 {
            log.write_all(b"8 bytes\n").unwrap();
        }
        assert_eq!(fs::read_to_string(path).unwrap(), "8 bytes\n");
    }
}
