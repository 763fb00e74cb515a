//! The errors of a server.

use std::io;

use thiserror::Error;

use super::accept::ListenError;
use crate::limits::InvalidLimit;

/// Why a server cannot start, or has failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A limit is out of its bounds.
    #[error(transparent)]
    Limit(#[from] InvalidLimit),
    /// The server's name is too long for the protocol.
    #[error("the name of the server has {len} bytes, but must have at most 61440")]
    NameTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The [`ServerHandle`](crate::ServerHandle) belongs to another server.
    #[error("the handle belongs to another server: give each server one of its own")]
    HandleInUse,
    /// The plugin has panicked before there was a client.
    #[error("the plugin has panicked in {callback}: please report it with what it has logged")]
    PluginPanicked {
        /// In which of its methods.
        callback: &'static str,
    },
    /// The socket cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system refuses something else.
    #[error("the server cannot run: {0}")]
    Io(#[from] io::Error),
    /// The I/O thread has panicked, which is a bug in this crate.
    #[error("the server has failed by a bug in cvmcache: please report it with what it has logged")]
    Panicked,
}

impl ServerError {
    /// True if another process serves the locator: clients find that one there.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Listen(ListenError::InUse { .. }))
    }
}
