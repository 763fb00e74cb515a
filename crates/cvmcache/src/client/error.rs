//! The errors of a client.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use cvmcache_proto::frame::TooLarge;
use cvmcache_proto::{FrameError, MAX_MAX_OBJECT_SIZE, MIN_MAX_OBJECT_SIZE, RequestKind, Status};
use nix::unistd::{Uid, User, geteuid};
use thiserror::Error;

use crate::Locator;

/// Why a request of a client fails.
///
/// After [`Status`](Self::Status), [`Timeout`](Self::Timeout), [`Unexpected`](Self::Unexpected),
/// [`TooLarge`](Self::TooLarge) and [`ForeignTicket`](Self::ForeignTicket) the client can go on;
/// after the others the connection is of no more use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no connection.
    #[error("cannot connect to {locator}: {source}; {}", connect_advice(locator, source))]
    Connect {
        /// Where the plugin should listen.
        locator: Locator,
        /// The error of the system.
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
    /// The reply does not match the request.
    #[error("the plugin's answer to a request of kind {asked:?} makes no sense: {reason}")]
    Unexpected {
        /// The request.
        asked: RequestKind,
        /// What is wrong with the reply.
        reason: &'static str,
    },
    /// The plugin refuses the handshake.
    #[error("the plugin refused the handshake: {0}")]
    Refused(Status),
    /// The plugin accepts the handshake, but with a part size that no CernVM-FS client takes.
    #[error(
        "the plugin's max_object_size is {0} bytes, but clients take \
         {MIN_MAX_OBJECT_SIZE} to {MAX_MAX_OBJECT_SIZE}"
    )]
    MaxObjectSize(u32),
    /// The reply has the status of a failure.
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

/// Distinguishes a peer that has closed, and one that exceeds the timeout, from an error of the system.
impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Closed,
            io::ErrorKind::WouldBlock => ClientError::Timeout,
            _ => ClientError::Io(error),
        }
    }
}

/// What to do about a connection that cannot be made.
fn connect_advice(locator: &Locator, source: &io::Error) -> String {
    match (locator, source.kind()) {
        (Locator::Unix(path), io::ErrorKind::PermissionDenied) => {
            let socket = fs::metadata(path).map(|socket| {
                let (mode, owner) = (socket.mode() & 0o7777, user(Uid::from_raw(socket.uid())));
                format!("the socket has mode {mode:04o} and belongs to user {owner}")
            });
            let why = socket.unwrap_or_else(|_| "a directory on the way cannot be searched".into());
            format!(
                "user {} has no permission ({why}): run this as the plugin's user or as root, or let the \
                 user in by CVMFS_CACHE_PLUGIN_ALLOW_USERS",
                user(geteuid())
            )
        }
        _ => "is the plugin running, and does it listen there?".to_owned(),
    }
}

/// The name of a user, or its number.
fn user(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_connection_without_permission_is_told_from_one_without_a_plugin() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = |path, kind: io::ErrorKind| {
            ClientError::Connect { locator: Locator::Unix(path), source: kind.into() }.to_string()
        };
        let denied = error(path, io::ErrorKind::PermissionDenied);
        let me = user(geteuid());
        for expected in
            [&format!("user {me} has no permission"), "mode 0600", &format!("to user {me})")]
        {
            assert!(denied.contains(expected), "{denied} lacks {expected}");
        }
        let denied = error("/nowhere/socket".into(), io::ErrorKind::PermissionDenied);
        assert!(denied.contains("a directory on the way cannot be searched"), "{denied}");
        let refused = error("/nowhere/socket".into(), io::ErrorKind::ConnectionRefused);
        assert!(
            refused.ends_with("; is the plugin running, and does it listen there?"),
            "{refused}"
        );
    }
}
