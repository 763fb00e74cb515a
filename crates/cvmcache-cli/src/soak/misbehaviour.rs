//! What no client should do. Requests that make no sense are answered; a connection that makes no
//! sense may be closed, and nobody else may notice.

use cvmcache::client::{
    Client, ClientError, ClientMessage, Connection, Operation, ReplyBody, Request, ServerMessage,
};
use cvmcache::plugin::{ObjectType, Status};
use fastrand::Rng;

use super::broken::{Broken, Expect, Kept, ensure};
use super::client::{Actor, TIMEOUT};

/// How many requests a flood is.
const FLOOD: u64 = 2000;

/// Asks for something that cannot be, in the client's own session.
pub(super) fn ask_nonsense(actor: &mut Actor) -> Kept {
    let nothing = actor.nothing();
    let id = nothing.id;
    actor.tally.add("nonsense", 1);
    let client = &mut actor.client;
    match actor.rng.u8(..8) {
        0 => client.open(&id).must_be(&[Status::NoEntry], "an object that nobody stored"),
        1 => client.read(&id, 0, 100).must_be(&[Status::NoEntry], "a read of no object"),
        2 => match actor.rng.choice(&actor.held) {
            Some(held) => {
                let read = client.read(&held.id, held.size + 1, 100);
                read.must_be(&[Status::OutOfBounds], "a read behind the end")
            }
            None => Ok(()),
        },
        3 => {
            let listing = actor.rng.u64(1 << 32..);
            let part = client.list_part(listing, ObjectType::Regular);
            part.must_be(&[Status::Malformed], "a listing that was never started")
        }
        4 => client.close(&id).must_be(&[Status::NoEntry], "a close of no object"),
        5 => {
            let session = client.session().wrapping_add(actor.rng.u64(1..100));
            let operation = Operation::Refcount { object: id, change_by: -1 };
            let request = Request { session, id: u64::MAX, operation };
            let ticket = client.submit_request(request).or_broken("to send a request")?;
            let body = client.wait(ticket).or_broken("an answer to a foreign session's request")?;
            let forbidden = body == ReplyBody::Refcount(Err(Status::Forbidden));
            ensure(forbidden, "FORBIDDEN for a foreign session", format_args!("it is {body:?}"))
        }
        _ => upload_badly(actor),
    }
}

/// Sends parts that are out of order, of a wrong size or too many. The upload is none the worse.
fn upload_badly(actor: &mut Actor) -> Kept {
    let part = actor.client.max_object_size();
    let object = actor.nothing().with_size(3 * part as u64);
    let client = &mut actor.client;
    let wrong = [Status::Malformed];
    let mut upload = client.begin_upload(object.new_upload().expected_size(object.size));
    upload.set_next_part(actor.rng.u64(2..));
    upload.write(client, object.content(0, part)).must_be(&wrong, "a part of no upload")?;
    upload.set_next_part(1);
    upload.write(client, "too short").must_be(&wrong, "a short part that is not the last")?;
    upload.set_next_part(1);
    let first = upload.write(client, object.content(0, part));
    if first.unless(Status::NoSpace, "to begin an upload")?.is_none() {
        return Ok(());
    }
    upload.set_next_part(if actor.rng.bool() { 1 } else { 3 });
    upload.write(client, object.content(0, part)).must_be(&wrong, "a part out of order")?;
    upload.set_next_part(2);
    upload.commit(client, "").must_be(&wrong, "an end before the announced size")?;
    if actor.rng.bool() {
        return upload.abort(client).or_broken("to abort an upload");
    }
    upload.set_next_part(2);
    for number in 1..3 {
        let data = object.content(number * part as u64, part);
        let result =
            if number < 2 { upload.write(client, data) } else { upload.commit(client, data) };
        if result.unless(Status::NoSpace, "the parts to come in order")?.is_none() {
            return upload.abort(client).or_broken("to abort a refused upload");
        }
    }
    actor.verify(&object)?;
    actor.close(&object)
}

/// Opens another connection and does with it what nobody should.
pub(super) fn connect_badly(actor: &mut Actor) -> Kept {
    actor.tally.add("bad-connection", 1);
    let mut connection = Connection::connect(&actor.locator).or_broken("a connection")?;
    connection.set_read_timeout(Some(TIMEOUT)).or_broken("a timeout")?;
    let rng = &mut actor.rng;
    match rng.u8(..5) {
        0 => return Ok(()),
        1 => {
            let mut garbage = vec![0; rng.usize(1..5000)];
            rng.fill(&mut garbage);
            // Neither of the versions there are.
            garbage[0] = 0x47;
            // The plugin may hang up before it has all of it.
            let _ = connection.send_raw(&garbage);
            return expect_end(connection);
        }
        2 => return send_half(rng, &mut connection),
        3 => {
            // Sound frames of nonsense. What cannot be told apart from no message may end the
            // connection, now or when the plugin gets to it.
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
    connection.send(handshake).or_broken("a handshake to be taken")?;
    if actor.rng.bool() {
        return Ok(());
    }
    let session = loop {
        match connection.receive().or_broken("an answer to the handshake")? {
            Some(ServerMessage::HandshakeAck(ack)) => break ack.session,
            Some(ServerMessage::Detach) => {}
            Some(other) => {
                let seen = format_args!("it is {other:?}");
                return Err(Broken::new("an answer to the handshake", seen));
            }
            None => return Err(Broken::new("an answer to the handshake", "the connection ended")),
        }
    };
    // Asks for much and goes.
    for id in 0..FLOOD {
        let request = Request { session, id, operation: Operation::Info };
        connection.queue(ClientMessage::Request(request)).or_broken("requests to be taken")?;
    }
    connection.flush().or_broken("requests to be taken")
}

/// Leaves in the midst of a frame, with requests under way.
pub(super) fn break_off(rng: &mut Rng, client: &mut Client) -> Kept {
    for _ in 0..rng.u8(..50) {
        let ticket = client.queue(Operation::Info).or_broken("to send a request")?;
        client.forget(ticket);
    }
    send_half(rng, client.connection_mut())
}

/// The beginning of a frame of 10,000 bytes, or less than that.
fn send_half(rng: &mut Rng, connection: &mut Connection) -> Kept {
    let half = [0x81, 0x10, 0x27, 0, 0x40, 0, 1, 2, 3];
    let half = &half[..rng.usize(1..=half.len())];
    connection.send_raw(half).or_broken("half a frame to be taken")
}

fn expect_end(mut connection: Connection) -> Kept {
    match connection.receive() {
        Ok(None) | Err(ClientError::Closed) => Ok(()),
        other => {
            let seen = format_args!("it is {other:?}");
            Err(Broken::new("the end of a connection that sends no frames", seen))
        }
    }
}
