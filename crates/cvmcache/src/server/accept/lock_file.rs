//! The lock file beside a unix socket, which keeps a second plugin away.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::files::{self, FileId};

/// How often a lock file is opened that is replaced between open(2) and flock(2).
const TRIES: usize = 10;

/// A lock that is held.
#[derive(Debug)]
pub(crate) struct LockFile {
    path: PathBuf,
    id: FileId,
    _file: Flock<File>,
}

/// Why a lock is not held.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process holds it.
    Held,
    System(io::Error),
}

impl LockFile {
    /// Where the lock file of a socket is.
    pub(crate) fn path_of(socket: &Path) -> PathBuf {
        let mut path = OsString::from(socket);
        path.push(".lock");
        path.into()
    }

    /// Locks the file beside a socket, and makes it if it is not there. Does not wait.
    pub(crate) fn acquire(socket: &Path) -> Result<Self, LockError> {
        let path = Self::path_of(socket);
        for _ in 0..TRIES {
            let mut options = File::options();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = files::open_regular(&mut options, &path).map_err(LockError::System)?;
            let id = FileId::of(&file.metadata().map_err(LockError::System)?);
            let file = Flock::lock(file, FlockArg::LockExclusiveNonblock);
            let file = file.map_err(|(_, errno)| match errno {
                nix::Error::EWOULDBLOCK => LockError::Held,
                errno => LockError::System(errno.into()),
            })?;
            // The lock of a file that was removed meanwhile keeps no process away.
            if is_at(&path, id) {
                return Ok(Self { path, id, _file: file });
            }
        }
        Err(LockError::System(io::Error::other("it is replaced again and again")))
    }

    /// True if other processes that look for the lock find this one.
    pub(crate) fn is_in_place(&self) -> bool {
        is_at(&self.path, self.id)
    }

    pub(crate) fn place(&self) -> (PathBuf, FileId) {
        (self.path.clone(), self.id)
    }
}

fn is_at(path: &Path, id: FileId) -> bool {
    fs::metadata(path).is_ok_and(|metadata| FileId::of(&metadata) == id)
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn a_lock_is_held_once_and_noticed_to_be_removed() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let lock = LockFile::acquire(&socket).unwrap();
        assert!(lock.is_in_place());
        assert!(matches!(LockFile::acquire(&socket), Err(LockError::Held)));
        fs::remove_file(LockFile::path_of(&socket)).unwrap();
        assert!(!lock.is_in_place());
        let second = LockFile::acquire(&socket).unwrap();
        assert!(second.is_in_place() && !lock.is_in_place());
    }

    #[test]
    fn what_is_no_regular_file_is_no_lock_file_even_if_it_could_be_locked() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let path = LockFile::path_of(&socket);
        let refused = || match LockFile::acquire(&socket) {
            Err(LockError::System(error)) => error.to_string(),
            other => panic!("{other:?}"),
        };
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert!(refused().contains("it is a FIFO"));
        let _reader = File::options().read(true).write(true).open(&path).unwrap();
        assert!(refused().contains("it is a FIFO"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(refused().contains("it is a device"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refused().contains("is a directory"));
    }
}
