//! Raw messages, which no client would build.

use cvmcache::client::{
    ClientError, ClientMessage, Connection, HandshakeAck, Operation, Request, ServerMessage,
};
use cvmcache_proto::{RawMessage, RequestKind};

use crate::suite::client::TestClient;
use crate::suite::probe::Probe;
use crate::suite::step::{Checked, Step};

/// The number of a request that is sent as it is. Clients count from 1.
pub(super) const NUMBER: u64 = 1 << 40;

/// The bytes of a message without attachment.
pub(super) fn framed(probe: &Probe<'_>, message: &RawMessage) -> Checked<Vec<u8>> {
    let bug = |error| probe.trace.failure("a message", "one that fits into a frame", error);
    message.to_frame().map_err(bug)
}

/// The bytes of a request.
pub(super) fn request(
    probe: &Probe<'_>,
    session: u64,
    id: u64,
    operation: Operation,
) -> Checked<Vec<u8>> {
    let request = ClientMessage::Request(Request { session, id, operation });
    framed(probe, &request.into_wire().0.into())
}

/// The bytes of a handshake.
pub(super) fn handshake(probe: &Probe<'_>) -> Checked<Vec<u8>> {
    let name = Some("slow.cern.ch:1".into());
    let handshake = ClientMessage::Handshake { protocol_version: 1, name };
    framed(probe, &handshake.into_wire().0.into())
}

/// Sends a request under [`NUMBER`] after `spoil` has changed its fields, and waits for the answer.
pub(super) fn ask(
    probe: &Probe<'_>,
    client: &mut TestClient,
    sent: &str,
    operation: Operation,
    spoil: impl FnOnce(RawMessage) -> RawMessage,
) -> Step<()> {
    let kind = operation.kind().request();
    let request = Request { session: client.raw.session(), id: NUMBER, operation };
    let (message, _) = ClientMessage::Request(request).into_wire();
    let connection = client.raw.connection_mut();
    let frame = spoil(message.into()).to_frame().map_err(ClientError::from);
    let sending = frame.and_then(|bytes| connection.send_raw(&bytes));
    probe.trace.step(sent, sending.and_then(|()| answer(connection, kind)))
}

/// Waits for the acknowledgement of a handshake.
pub(super) fn session(probe: &Probe<'_>, connection: &mut Connection) -> Step<HandshakeAck> {
    let got = next(connection).and_then(|message| match message {
        ServerMessage::HandshakeAck(ack) => match ack.result {
            Ok(()) => Ok(ack),
            Err(status) => Err(ClientError::Status(status)),
        },
        _ => Err(no_answer(RequestKind::Handshake)),
    });
    probe.trace.step("handshake", got)
}

/// Checks that a connection without a session ends after its write half was shut down.
pub(super) fn ends(probe: &Probe<'_>, mut connection: Connection, sent: &str) -> Checked<()> {
    // It may have ended already.
    let _ = connection.shutdown_write();
    let session = connection.receive_first(|message| match message {
        ServerMessage::HandshakeAck(ack) if ack.result.is_ok() => Some("a session"),
        _ => None,
    });
    let received = match session {
        Ok(None) | Err(ClientError::Closed) => return Ok(()),
        Ok(Some(session)) => session.to_owned(),
        Err(error) => error.to_string(),
    };
    let sent = format!("{sent}, and no more");
    Err(probe.trace.failure(sent, "the end of that connection", received))
}

/// The next message that was not sent out of the blue.
pub(super) fn next(connection: &mut Connection) -> Result<ServerMessage, ClientError> {
    let message = connection.receive_first(|message| match message {
        ServerMessage::Detach => None,
        message => Some(message),
    });
    message?.ok_or(ClientError::Closed)
}

/// Waits for the answer to the request [`NUMBER`].
pub(super) fn answer(connection: &mut Connection, asked: RequestKind) -> Result<(), ClientError> {
    match next(connection)? {
        ServerMessage::Reply(reply) if reply.id == NUMBER => Ok(reply.body.status()?),
        _ => Err(no_answer(asked)),
    }
}

fn no_answer(asked: RequestKind) -> ClientError {
    ClientError::Unexpected { asked, reason: "it is the reply to another request" }
}
