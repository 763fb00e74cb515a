//! Messages that no client would build, sent as they are.

use cvmcache::client::{
    ClientError, ClientMessage, Connection, HandshakeAck, Operation, Request, ServerMessage,
};
use cvmcache::plugin::ObjectId;
use cvmcache_proto::wire::{Msg, MsgHandshake, MsgHash};
use cvmcache_proto::{Envelope, RequestKind, frame};

use crate::suite::client::TestClient;
use crate::suite::probe::Probe;
use crate::suite::step::{Checked, Step};

/// The number of a request that is sent as it is. Clients count from 1.
pub(super) const NUMBER: Option<u64> = Some(1 << 40);

/// The bytes of a message without attachment.
pub(super) fn framed(probe: &Probe<'_>, msg: Msg) -> Checked<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoded = frame::encode(msg, 0, &mut bytes);
    let bug = |error| probe.trace.failure("a message", "one that fits into a frame", error);
    encoded.map(|()| bytes).map_err(bug)
}

/// The bytes of a request.
pub(super) fn request(
    probe: &Probe<'_>,
    session: u64,
    id: u64,
    operation: Operation,
) -> Checked<Vec<u8>> {
    let request = ClientMessage::Request(Request { session, id, operation });
    framed(probe, request.into_wire().0)
}

/// The bytes of a handshake.
pub(super) fn handshake(probe: &Probe<'_>) -> Checked<Vec<u8>> {
    let name = Some(b"slow.cern.ch:1".to_vec());
    let handshake = MsgHandshake { protocol_version: Some(1), name, flags: None };
    framed(probe, Msg::Handshake(handshake))
}

/// The name of an object, as it is sent.
pub(super) fn hash(id: ObjectId) -> Option<MsgHash> {
    Some(id.into())
}

/// Sends a request whose number is [`NUMBER`], and waits for the answer.
pub(super) fn ask(probe: &Probe<'_>, client: &mut TestClient, sent: &str, msg: Msg) -> Step<()> {
    let kind = Envelope::of(&msg).map_or(RequestKind::Handshake, |envelope| envelope.kind);
    let connection = client.raw.connection_mut();
    let mut bytes = Vec::new();
    let encoded = frame::encode(msg, 0, &mut bytes).map_err(ClientError::from);
    let sending = encoded.and_then(|()| connection.send_raw(&bytes));
    probe.trace.step(sent, sending.and_then(|()| answer(connection, kind)))
}

/// Waits for the answer to a handshake.
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

/// That a connection ends that will say nothing more, and was not let in.
pub(super) fn ends(probe: &Probe<'_>, mut connection: Connection, sent: &str) -> Checked<()> {
    // It may have ended already.
    let _ = connection.shutdown_write();
    let received = loop {
        match connection.receive() {
            Ok(None) | Err(ClientError::Closed) => return Ok(()),
            Ok(Some(ServerMessage::HandshakeAck(ack))) if ack.result.is_ok() => {
                break "a session".to_owned();
            }
            Ok(Some(_)) => {}
            Err(error) => break error.to_string(),
        }
    };
    let sent = format!("{sent}, and no more");
    Err(probe.trace.failure(sent, "the end of that connection", received))
}

/// The next message that was not sent out of the blue.
pub(super) fn next(connection: &mut Connection) -> Result<ServerMessage, ClientError> {
    loop {
        match connection.receive()?.ok_or(ClientError::Closed)? {
            ServerMessage::Detach => {}
            message => return Ok(message),
        }
    }
}

/// Waits for the answer to the request [`NUMBER`].
pub(super) fn answer(connection: &mut Connection, asked: RequestKind) -> Result<(), ClientError> {
    match next(connection)? {
        ServerMessage::Reply(reply) if Some(reply.id) == NUMBER => Ok(reply.body.status()?),
        _ => Err(no_answer(asked)),
    }
}

fn no_answer(asked: RequestKind) -> ClientError {
    ClientError::Unexpected { asked, reason: "it is the answer to something else" }
}
