//! Accepting connections: the listening socket, its lock file, and access control. Knows no connection
//! beyond its socket and its token.

mod acceptor;
mod access;
mod errors;
mod inherited_socket;
mod listener;
mod lock_file;
mod named_listener;
mod socket_file;
mod watch;

pub(super) use acceptor::{Acceptor, LISTENER};
pub(super) use access::{Access, Origin};
pub use access::{AccessError, Networks, Users};
pub use errors::ListenError;
#[cfg(feature = "program")]
pub(crate) use inherited_socket::locator_of;
pub(super) use listener::Listener;
#[cfg(feature = "program")]
pub(crate) use named_listener::{LOCK_STEP, LOCK_STEPS};
#[cfg(feature = "program")]
pub(crate) use socket_file::{Found as FoundSocket, find as find_socket};

/// Where the lock file of a unix socket is.
#[cfg(feature = "program")]
pub(crate) fn lock_path(socket: &std::path::Path) -> std::path::PathBuf {
    lock_file::LockFile::path_of(socket)
}
