//! Hostile behaviour: what the protocol forbids to clients. Invalid requests are answered; a
//! connection that sends no valid frames may be closed, without any effect on other clients.

use cvmcache::client::{
    Client, ClientError, ClientMessage, Connection, Operation, ReplyBody, Request, ServerMessage,
};
use cvmcache::plugin::{ObjectType, Status};
use fastrand::Rng;

use super::actor::Actor;
use super::plugin::TIMEOUT;
use super::violation::{CheckResult, Expect, Violation, ensure};

/// How many requests a flood is.
const FLOOD: u64 = 2000;

/// Sends an invalid request in the client's own session.
pub(super) fn send_invalid_request(actor: &mut Actor) -> CheckResult {
    let id = actor.absent_object().id;
    actor.counter.add("nonsense", 1);
    let client = &mut actor.client;
    match actor.rng.u8(..8) {
        0 => client.open(&id).expect_status(&[Status::NoEntry], "an object that no client stored"),
        1 => client.read(&id, 0, 100).expect_status(&[Status::NoEntry], "a read of no object"),
        2 => match actor.rng.choice(&actor.held) {
            Some(held) => {
                let read = client.read(&held.id, held.size + 1, 100);
                read.expect_status(&[Status::OutOfBounds], "a read behind the end")
            }
            None => Ok(()),
        },
        3 => {
            let listing = actor.rng.u64(1 << 32..);
            let part = client.list_part(listing, ObjectType::Regular);
            part.expect_status(&[Status::Malformed], "a listing that was never started")
        }
        4 => client.close(&id).expect_status(&[Status::NoEntry], "a close of no object"),
        5 => {
            let session = client.session().wrapping_add(actor.rng.u64(1..100));
            let operation = Operation::Refcount { object: id, change_by: -1 };
            let request = Request { session, id: u64::MAX, operation };
            let ticket = client.submit_request(request).expect_ok("to send a request")?;
            let body = client.wait(ticket).expect_ok("a reply to a foreign session's request")?;
            let forbidden = body == ReplyBody::Refcount(Err(Status::Forbidden));
            ensure(forbidden, "FORBIDDEN for a foreign session", format_args!("it is {body:?}"))
        }
        _ => send_invalid_parts(actor),
    }
}

/// Sends parts that are out of order or of a wrong size. The upload goes on unharmed.
fn send_invalid_parts(actor: &mut Actor) -> CheckResult {
    let part = actor.client.max_object_size();
    let object = actor.absent_object().with_size(3 * part as u64);
    let client = &mut actor.client;
    let wrong = [Status::Malformed];
    let mut upload = client.begin_upload(object.new_upload().expected_size(object.size));
    upload.set_next_part(actor.rng.u64(2..));
    upload.write(client, object.content(0, part)).expect_status(&wrong, "a part of no upload")?;
    upload.set_next_part(1);
    upload.write(client, "too short").expect_status(&wrong, "a short part that is not the last")?;
    upload.set_next_part(1);
    let first = upload.write(client, object.content(0, part));
    if first.allow(Status::NoSpace, "to begin an upload")?.is_none() {
        return Ok(());
    }
    upload.set_next_part(if actor.rng.bool() { 1 } else { 3 });
    upload.write(client, object.content(0, part)).expect_status(&wrong, "a part out of order")?;
    upload.set_next_part(2);
    upload.commit(client, "").expect_status(&wrong, "an end before the announced size")?;
    if actor.rng.bool() {
        return upload.abort(client).expect_ok("to abort an upload");
    }
    upload.set_next_part(2);
    for number in 1..3 {
        let data = object.content(number * part as u64, part);
        let result =
            if number < 2 { upload.write(client, data) } else { upload.commit(client, data) };
        if result.allow(Status::NoSpace, "the parts to come in order")?.is_none() {
            return upload.abort(client).expect_ok("to abort a refused upload");
        }
    }
    actor.verify(&object)?;
    actor.close(&object)
}

/// Opens another connection, and breaks the protocol on it.
pub(super) fn break_protocol(actor: &mut Actor) -> CheckResult {
    actor.counter.add("bad-connection", 1);
    let mut connection = Connection::connect(&actor.locator).expect_ok("a connection")?;
    connection.set_read_timeout(Some(TIMEOUT)).expect_ok("a timeout")?;
    let rng = &mut actor.rng;
    match rng.u8(..5) {
        0 => return Ok(()),
        1 => {
            let mut garbage = vec![0; rng.usize(1..5000)];
            rng.fill(&mut garbage);
            // Neither version of the frame header: 0x01 and 0x81.
            garbage[0] = 0x47;
            // The plugin may close the connection before it has read all of it.
            let _ = connection.send_raw(&garbage);
            return expect_end(connection);
        }
        2 => return send_partial_frame(rng, &mut connection),
        3 => {
            // Valid frames with random messages, which may end the connection.
            for _ in 0..rng.u8(1..20) {
                let mut message = vec![0; rng.usize(1..200)];
                rng.fill(&mut message);
                let frame = [&[0x01, message.len() as u8, 0, 0], &*message].concat();
                let _ = connection.send_raw(&frame);
            }
            return Ok(());
        }
        _ => {}
    }
    let name = Some("soak.cern.ch:bad".into());
    let handshake = ClientMessage::Handshake { protocol_version: 1, name };
    connection.send(handshake).expect_ok("a handshake to be taken")?;
    if actor.rng.bool() {
        return Ok(());
    }
    let answer = connection.receive_first(|message| match message {
        ServerMessage::Detach => None,
        message => Some(message),
    });
    let session = match answer.expect_ok("a reply to the handshake")? {
        Some(ServerMessage::HandshakeAck(ack)) => ack.session,
        Some(other) => {
            let seen = format_args!("it is {other:?}");
            return Err(Violation::new("a reply to the handshake", seen));
        }
        None => {
            return Err(Violation::new("a reply to the handshake", "the connection ended"));
        }
    };
    // Floods the plugin with requests, and disconnects.
    for id in 0..FLOOD {
        let request = Request { session, id, operation: Operation::Info };
        connection.queue(ClientMessage::Request(request)).expect_ok("requests to be taken")?;
    }
    connection.flush().expect_ok("requests to be taken")
}

/// Disconnects in the middle of a frame, with requests in flight.
pub(super) fn disconnect_mid_frame(rng: &mut Rng, client: &mut Client) -> CheckResult {
    for _ in 0..rng.u8(..50) {
        let ticket = client.queue(Operation::Info).expect_ok("to send a request")?;
        client.forget(ticket);
    }
    send_partial_frame(rng, client.connection_mut())
}

/// Sends at most the first bytes of a frame of 10,000 bytes.
fn send_partial_frame(rng: &mut Rng, connection: &mut Connection) -> CheckResult {
    let half = [0x81, 0x10, 0x27, 0, 0x40, 0, 1, 2, 3];
    let half = &half[..rng.usize(1..=half.len())];
    connection.send_raw(half).expect_ok("half a frame to be taken")
}

fn expect_end(mut connection: Connection) -> CheckResult {
    match connection.receive() {
        Ok(None) | Err(ClientError::Closed) => Ok(()),
        other => {
            let seen = format_args!("it is {other:?}");
            Err(Violation::new("the end of a connection that sends no frames", seen))
        }
    }
}
