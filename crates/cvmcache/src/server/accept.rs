//! Accepting connections: the listening socket, its lock file, and access control. Knows no connection
//! beyond its socket and its token.

mod acceptor;
mod access;
mod errors;
mod inherited_socket;
mod listener;

pub(super) use acceptor::{Acceptor, LISTENER};
pub(super) use access::Access;
pub use access::{AccessError, Networks, Users};
pub use errors::ListenError;
#[cfg(feature = "program")]
pub(crate) use inherited_socket::locator_of;
pub(super) use listener::Listener;
