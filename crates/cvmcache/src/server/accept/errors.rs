//! The errors of listening on a socket.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::Locator;

/// Why a plugin cannot listen.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another process serves this locator: it has the lock, or the TCP address.
    #[error(
        "another process already serves {locator}: clients can connect to it, and `cvmcache info {locator}` shows \
         what it is; for a second plugin, choose another locator"
    )]
    InUse {
        /// The locator in question.
        locator: Locator,
    },
    /// Another process has the lock, but does not listen.
    #[error(
        "a process holds the lock {lock:?} but listens nowhere at {locator}: it serves at most clients that \
         are connected; wait until it has ended, or choose another locator", lock = .lock.display()
    )]
    NotServed {
        /// The locator in question.
        locator: Locator,
        /// The lock file.
        lock: PathBuf,
    },
    /// Something else is where the socket should be; it is left alone.
    #[error("{path:?} exists and is not a socket: remove it, or choose another path", path = .path.display())]
    NotASocket {
        /// The path in question.
        path: PathBuf,
    },
    /// The lock file beside the socket cannot be opened or locked.
    #[error(
        "cannot lock {path:?}: {source}; it has to be a regular file that the plugin's user can write \
         or make, in a directory that exists, with a name of at most 255 bytes", path = .path.display()
    )]
    LockFile {
        /// The lock file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The host has no address.
    #[error(
        "cannot listen on {locator}: the host name does not resolve ({source}); use an address of this machine"
    )]
    Resolve {
        /// The locator in question.
        locator: Locator,
        /// The error of the resolver.
        source: io::Error,
    },
    /// Clients cannot be served on the inherited socket.
    #[error("the inherited socket cannot be used: {problem}")]
    InvalidSocket {
        /// What is wrong with it.
        problem: String,
    },
    /// The inherited socket is not the one that is configured.
    #[error(
        "the inherited socket listens on {actual}, and not on {locator}: let \
         ListenStream= of the socket unit and CVMFS_CACHE_PLUGIN_LOCATOR name the same place"
    )]
    AddressMismatch {
        /// The locator in question.
        locator: Locator,
        /// Where it listens.
        actual: Locator,
    },
    /// The system refuses the address or the path.
    #[error(
        "cannot listen on {locator}: {source}; use a path or an address of this machine that the plugin's user may use"
    )]
    System {
        /// The locator in question.
        locator: Locator,
        /// The error of the system.
        source: io::Error,
    },
}
