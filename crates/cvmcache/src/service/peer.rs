//! The peer: the protocol's state of one connection, by which a frame is interpreted.

use std::sync::Arc;

use bytes::Bytes;
use cvmcache_proto::{ClientMessage, Envelope, Frame, HandshakeAck, Request, ServerMessage};
use tracing::{debug, warn};

use super::{OpenSession, Service};
use crate::plugin::Status;

/// The peer of a connection: before its handshake, or with a session.
#[derive(Debug, Default)]
pub struct Peer {
    session: Option<Arc<OpenSession>>,
    /// Told to the client; only on sockets of this machine.
    pid: Option<u64>,
}

/// What to do about a frame.
#[derive(Debug)]
#[non_exhaustive]
pub enum Action {
    /// Send this.
    Answer(ServerMessage),
    /// Have the service [handle](Service::handle) this request of the session, and send the reply.
    /// The parts of an upload or of a listing, and changes of one reference count, are to be handled
    /// in the order in which they came.
    Handle(Arc<OpenSession>, Request),
    /// End the connection, and with it the session.
    Quit,
    /// Nothing: the message expects no reply.
    Nothing,
}

impl Peer {
    /// A peer that has sent nothing yet. `pid` is this process, if the client shares the
    /// machine with it.
    pub fn new(pid: Option<u64>) -> Self {
        Self { session: None, pid }
    }

    /// The session that the client has opened, from its handshake on.
    pub fn session(&self) -> Option<&Arc<OpenSession>> {
        self.session.as_ref()
    }

    /// Decides what to do about a frame. A message that expects a reply gets one, however malformed:
    /// [`Status::Malformed`] for what makes no sense and for a second handshake, [`Status::Forbidden`] for a
    /// session that is not this peer's, and [`Status::NoSpace`] if there was no memory to receive it in. Calls
    /// no plugin.
    pub fn receive(&mut self, service: &Service, frame: Frame) -> Action {
        if frame.out_of_memory {
            warn!(session = ?self.session, "no memory for the bytes of a request");
            let envelope = frame.message.as_ref().and_then(Envelope::of);
            let answer = |envelope: Envelope| Action::Answer(envelope.fail(Status::NoSpace));
            return envelope.map_or(Action::Nothing, answer);
        }
        let message = match ClientMessage::from_frame(frame) {
            Ok(message) => message,
            Err(bad) => {
                debug!(?bad, session = ?self.session, "malformed message");
                return match bad.envelope {
                    Some(envelope) => Action::Answer(envelope.fail(Status::Malformed)),
                    None => Action::Nothing,
                };
            }
        };
        match message {
            ClientMessage::Handshake { name, .. } => self.handshake(service, name),
            ClientMessage::Request(request) => match self.session_of(service, request.session) {
                Some(session) => Action::Handle(session, request),
                None => {
                    debug!(claimed = request.session, session = ?self.session, "not its session");
                    Action::Answer(request.envelope().fail(Status::Forbidden))
                }
            },
            ClientMessage::Ioctl { session, connection_change } => {
                match self.own(session) {
                    Some(session) => service.ioctl(session, connection_change),
                    None => debug!(claimed = session, session = ?self.session, "not its session"),
                }
                Action::Nothing
            }
            ClientMessage::Quit { session } if self.own(session).is_some() => Action::Quit,
            ClientMessage::Quit { session } => {
                debug!(claimed = session, session = ?self.session, "not its session");
                Action::Nothing
            }
        }
    }

    fn handshake(&mut self, service: &Service, name: Option<Bytes>) -> Action {
        let ack = match &self.session {
            None => {
                let (ack, session) = service.handshake(name, self.pid);
                self.session = Some(session);
                ack
            }
            Some(session) => {
                debug!(session = %session.session(), "a second handshake");
                HandshakeAck::refused(Status::Malformed)
            }
        };
        Action::Answer(ServerMessage::HandshakeAck(ack))
    }

    /// The session that a request names, if it may.
    fn session_of(&self, service: &Service, claimed: u64) -> Option<Arc<OpenSession>> {
        self.own(claimed).cloned().or_else(|| service.foreign_session(claimed))
    }

    /// The session, if it is the one that the client names.
    fn own(&self, claimed: u64) -> Option<&Arc<OpenSession>> {
        self.session.as_ref().filter(|open| open.session().id() == claimed)
    }
}
