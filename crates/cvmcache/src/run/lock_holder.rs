//! The process that holds the lock of a file, as far as the kernel tells.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::{Lock, LockType};

/// The process that has locked a file with flock(2), from `/proc/locks`; `None` if there is none, or it
/// runs where this process cannot see it.
///
/// It would be a risk to try to lock the file: a plugin that starts at this moment would find it locked,
/// and end. `cvmcache doctor` and `--check` share this.
#[doc(hidden)]
pub fn lock_holder(path: &Path) -> Option<u32> {
    let file = fs::metadata(path).ok()?;
    let locks = procfs::locks().ok()?;
    // Files of two file systems may have the same number, and the kernel's number of a file system is
    // not always the one that stat(2) has. A process of another user does not show its files.
    lockers(&locks, file.ino()).find(|&pid| has_open(pid, &file).unwrap_or(true))
}

fn lockers(locks: &[Lock], inode: u64) -> impl Iterator<Item = u32> {
    let is_it = move |lock: &&Lock| lock.lock_type == LockType::FLock && lock.inode == inode;
    locks.iter().filter(is_it).filter_map(|lock| u32::try_from(lock.pid?).ok())
}

fn has_open(pid: u32, file: &Metadata) -> io::Result<bool> {
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // It may have been closed meanwhile.
        let Ok(open) = fs::metadata(descriptor?.path()) else { continue };
        if (open.dev(), open.ino()) == (file.dev(), file.ino()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process;

    use nix::fcntl::{Flock, FlockArg};
    use procfs::{FromBufRead, Locks};

    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_without_locking() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert_eq!(lock_holder(&path), None);
        let file = File::create(&path).unwrap();
        assert_eq!(lock_holder(&path), None);
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
        assert_eq!(lock_holder(&path), Some(process::id()));
        drop(lock);
        assert_eq!(lock_holder(&path), None);
    }

    #[test]
    fn locks_of_another_kind_or_file_are_not_meant() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1c:42 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 00:1c:43 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 00:1c:42 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 10 00:1c:44 0 EOF\n";
        let locks = Locks::from_buf_read(locks.as_bytes()).unwrap().0;
        assert_eq!(Vec::from_iter(lockers(&locks, 42)), [9]);
        assert_eq!(lockers(&locks, 45).count(), 0);
    }
}
