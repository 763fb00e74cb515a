//! The errors of a client.

use std::io;

use cvmcache_proto::frame::TooLarge;
use cvmcache_proto::{FrameError, MAX_MAX_OBJECT_SIZE, MIN_MAX_OBJECT_SIZE, RequestKind, Status};
use thiserror::Error;

use crate::Locator;

/// Why a client does not get what it asked for.
///
/// After [`Status`](Self::Status), [`Timeout`](Self::Timeout), [`Unexpected`](Self::Unexpected),
/// [`TooLarge`](Self::TooLarge) and [`ForeignTicket`](Self::ForeignTicket) the client can go on;
/// after the others the connection is of no more use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no connection.
    #[error(
        "cannot connect to {locator}: {source}; is the plugin running, and does it listen there?"
    )]
    Connect {
        /// Where the plugin should listen.
        locator: Locator,
        /// What the system says.
        source: io::Error,
    },
    /// The connection fails.
    #[error("the connection to the plugin failed: {0}")]
    Io(#[source] io::Error),
    /// The plugin closed the connection.
    #[error("the plugin closed the connection; its log or crash dump may tell why")]
    Closed,
    /// The plugin sent bytes that are no frame.
    #[error("the plugin sent what is no answer: {0}")]
    Frame(#[from] FrameError),
    /// The plugin sent a message that is none of a plugin, lacks a required field, or is larger
    /// than any client takes.
    #[error("the plugin sent a message that a client cannot understand")]
    BadMessage,
    /// The answer does not go with the request.
    #[error("the plugin's answer to a request of kind {asked:?} makes no sense: {reason}")]
    Unexpected {
        /// What was asked.
        asked: RequestKind,
        /// What is wrong with the answer.
        reason: &'static str,
    },
    /// The plugin does not let the client in.
    #[error("the plugin refused the handshake: {0}")]
    Refused(Status),
    /// The plugin let the client in, but with an offer that no CernVM-FS client takes.
    #[error(
        "the plugin's max_object_size is {0} bytes, but clients take \
         {MIN_MAX_OBJECT_SIZE} to {MAX_MAX_OBJECT_SIZE}"
    )]
    MaxObjectSize(u32),
    /// The plugin answered that the request failed.
    #[error("the plugin answered: {0}")]
    Status(#[from] Status),
    /// The plugin has not let the client in, not taken what was sent, or not answered within the client's
    /// timeout.
    #[error(
        "no answer from the plugin within the timeout: it is busy or stuck, or has lost the request"
    )]
    Timeout,
    /// The request fits into no frame.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The ticket was handed out by another client. The reply stays there, and cannot be had any
    /// more.
    #[error("the ticket is not from this client")]
    ForeignTicket,
}

impl ClientError {
    /// The status with which the plugin answered a request, if that is the error; not the one of a
    /// [refused](Self::Refused) handshake.
    pub fn status(&self) -> Option<Status> {
        match self {
            ClientError::Status(status) => Some(*status),
            _ => None,
        }
    }
}

/// Tells a peer that is gone, and one that takes too long, from a system that fails.
impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Closed,
            io::ErrorKind::WouldBlock => ClientError::Timeout,
            _ => ClientError::Io(error),
        }
    }
}
