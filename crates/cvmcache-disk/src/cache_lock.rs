//! The lock on a managed cache: of all programs that would evict there, one runs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cvmcache::{Locator, lock_holder};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use thiserror::Error;

/// Why a managed cache cannot be locked.
#[derive(Debug, Error)]
pub(crate) enum CacheLockError {
    #[error(
        "the cache is in use by {holder}, which holds the lock {path:?}: unmount its repositories or stop \
         it, or use another directory", path = .path.display()
    )]
    Held { path: PathBuf, holder: String },
    /// It is a plugin at the locator of this one: clients can connect to that.
    #[error("another process serves {0} and this cache")]
    Served(Locator),
    #[error("cannot lock {path:?}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The lock is held until this is dropped.
#[derive(Debug)]
pub(crate) struct CacheLock {
    _file: File,
}

impl CacheLock {
    /// How long another plugin may take from the lock on the cache to that on its locator.
    const START: Duration = Duration::from_secs(5);

    /// Takes the lock. If another process has it, waits for a moment: two clients may start the plugin for
    /// the same locator at the same time, and the second one is to know that the first serves it.
    pub(crate) fn take(path: &Path, locator: Option<&Locator>) -> Result<Self, CacheLockError> {
        let failed = |source| CacheLockError::Io { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(failed)?;
        let deadline = Instant::now() + Self::START;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(failed(error.into())),
            }
            let holder = lock_holder(path);
            if let Some(locator) = locator
                && is_served(locator, holder)
            {
                return Err(CacheLockError::Served(locator.clone()));
            }
            let may_be_starting = locator.is_some() && holder.is_none_or(is_this_program);
            if !may_be_starting || Instant::now() >= deadline {
                return Err(CacheLockError::Held {
                    path: path.to_owned(),
                    holder: describe(holder),
                });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Which process holds the lock, without trying to take it.
    pub(crate) fn holder(path: &Path) -> Option<String> {
        lock_holder(path).map(|holder| describe(Some(holder)))
    }
}

/// Whether the process that holds the cache's lock serves the locator. A connection would tell, too, but a
/// supervised plugin ends with its last connection.
fn is_served(locator: &Locator, cache_holder: Option<u32>) -> bool {
    match locator {
        Locator::Unix(path) => {
            let mut lock = path.clone().into_os_string();
            lock.push(".lock");
            cache_holder.is_some() && lock_holder(Path::new(&lock)) == cache_holder
        }
        Locator::Tcp { host, port } => {
            let host = if host.is_empty() { "0.0.0.0" } else { host };
            TcpListener::bind((host, *port))
                .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
        }
        // A locator of a kind that is not known yet.
        _ => false,
    }
}

fn is_this_program(process: u32) -> bool {
    name_of(process) == name_of(std::process::id())
}

fn name_of(process: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

fn describe(holder: Option<u32>) -> String {
    match holder {
        Some(process) => {
            let name = name_of(process).unwrap_or_else(|| "unknown".to_owned());
            format!("process {process} ({})", name.escape_debug())
        }
        None => "a process that cannot be seen from here".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_with_the_name_of_the_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock_cachedb");
        let lock = CacheLock::take(&path, None).unwrap();
        let error = CacheLock::take(&path, None).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} (", std::process::id())), "{error}");
        drop(lock);
        assert!(CacheLock::take(&path, None).is_ok());
    }

    #[test]
    fn a_holder_that_serves_the_same_locator_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock_cachedb");
        let _lock = CacheLock::take(&path, None).unwrap();
        let locator = Locator::Unix(directory.path().join("socket"));
        let _listening = CacheLock::take(&directory.path().join("socket.lock"), None).unwrap();
        let error = CacheLock::take(&path, Some(&locator)).unwrap_err();
        assert!(matches!(error, CacheLockError::Served(_)), "{error}");
    }
}
