//! The door: lets clients in who may come in, a few at a time, and is shut once for all when the
//! server ends.

use std::io;
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use tracing::warn;

use super::access::Access;
use super::listener::Listener;
use crate::server::socket::Socket;

pub(crate) const LISTENER: Token = Token(1);
const FIRST_CONNECTION: usize = 2;

/// How many connections are accepted before the others get their turn.
const ACCEPT_AT_ONCE: usize = 64;
/// When to try again after the system had no descriptor or no memory left for a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Acceptor {
    /// `None` once the door is shut.
    listener: Option<Listener>,
    access: Access,
    /// How many have been at the door: what their tokens are made of.
    opened: usize,
    /// There may be somebody.
    is_called: bool,
    again_at: Option<Instant>,
}

impl Acceptor {
    pub(crate) fn new(listener: Listener, access: Access) -> Self {
        Self { listener: Some(listener), access, opened: 0, is_called: false, again_at: None }
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.listener.is_none()
    }

    /// Lets nobody in any more.
    pub(crate) fn shut(&mut self) {
        self.listener = None;
    }

    /// Notes that there is somebody.
    pub(crate) fn call(&mut self) {
        self.is_called = true;
    }

    /// True if there is somebody to be let in at once.
    pub(crate) fn is_waited_at(&self) -> bool {
        self.is_called && self.again_at.is_none()
    }

    /// When to try again, if nobody can be let in before.
    pub(crate) fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// Notes that a connection has ended, and left a descriptor.
    pub(crate) fn has_room(&mut self) {
        self.again_at = None;
    }

    /// Lets in who is there, under a token that is never used again. Somebody who may not come in
    /// is turned away.
    pub(crate) fn accept(&mut self, registry: &Registry, mut admit: impl FnMut(Token, Socket)) {
        if self.again_at.is_some_and(|again| again <= Instant::now()) {
            self.again_at = None;
        }
        let Some(listener) = &self.listener else { return };
        for _ in 0..ACCEPT_AT_ONCE {
            if !self.is_called || self.again_at.is_some() {
                return;
            }
            let token = Token(FIRST_CONNECTION + self.opened);
            let accepted = listener.accept().and_then(|(mut socket, origin)| {
                socket.register(registry, token).map(|()| (socket, origin))
            });
            match accepted {
                Ok((_, origin)) if !self.access.admits(origin) => {
                    warn!(%origin, "connection refused");
                }
                Ok((socket, _)) => {
                    self.opened += 1;
                    admit(token, socket);
                }
                Err(error) => match error.kind() {
                    // The latter is for one that is about to close.
                    io::ErrorKind::WouldBlock | io::ErrorKind::InvalidInput => {
                        self.is_called = false;
                    }
                    // One connection that came to nothing.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        warn!(%error, "cannot accept a connection: it waits until there is room");
                        self.again_at = Some(Instant::now() + ACCEPT_AGAIN);
                    }
                },
            }
        }
    }

    /// Closes the door to whoever comes from now on; who is there already can still be let in.
    pub(crate) fn close(&mut self) {
        self.listener.iter().for_each(Listener::close);
        self.is_called = true;
    }

    /// Opens it again after [`Acceptor::close`].
    pub(crate) fn reopen(&mut self, registry: &Registry) {
        let reopened = self.listener.as_mut().map(|listener| listener.reopen(registry, LISTENER));
        if let Some(Err(error)) = reopened {
            warn!(%error, "cannot listen again: only the clients that are here are served");
        }
    }
}
