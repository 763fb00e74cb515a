//! Frames that are invalid, partial or unknown.

use cvmcache::client::{
    ClientError, Connection, Operation, Reply, ReplyBody, RequestKind, ServerMessage,
};

use super::raw::{self, framed};
use crate::suite::Case;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

pub(super) const CASES: &[Case] = &[
    Case::hostile(
        "frame-empty-message",
        "A frame with an empty message is ignored, and the connection stays.",
        empty_message,
    ),
    Case::hostile(
        "frame-unknown-message",
        "A message that the protocol does not define is ignored, and the connection stays.",
        unknown_message,
    ),
    Case::hostile(
        "frame-message-of-a-plugin",
        "A message that only plugins send is ignored, and the connection stays.",
        message_of_a_plugin,
    ),
    Case::hostile(
        "frame-stray-attachment",
        "A request of a kind without attachment is answered even if it has one.",
        stray_attachment,
    ),
    Case::hostile(
        "frame-byte-by-byte",
        "Messages that arrive byte by byte are answered.",
        byte_by_byte,
    ),
    Case::hostile(
        "frame-in-two",
        "Between the halves of a message other clients are served, and then the message is \
         answered.",
        in_two,
    ),
    Case::hostile(
        "frame-half",
        "Two hundred connections with half a message each delay no other client.",
        half,
    ),
    Case::hostile(
        "frame-announced",
        "A frame of 16 MB that is announced and not sent delays no other client.",
        announced,
    ),
    Case::hostile(
        "frame-garbage",
        "Bytes that are no frame close at most their own connection.",
        garbage,
    ),
    Case::hostile(
        "frame-version",
        "A frame of an unknown version opens no session, and closes at most its own connection.",
        version,
    ),
    Case::hostile(
        "frame-length-zero",
        "A frame of length 0 closes at most its own connection.",
        length_zero,
    ),
    Case::hostile(
        "frame-message-too-long",
        "A frame whose message claims to exceed the frame closes at most its own connection.",
        message_too_long,
    ),
    Case::hostile(
        "frame-broken-message",
        "A valid frame with an invalid message closes at most its own connection.",
        broken_message,
    ),
];

/// That a client goes on after it has sent this.
fn is_ignored(probe: &Probe<'_>, what: &str, bytes: &[u8]) -> Checked<()> {
    let mut client = probe.client()?;
    for _ in 0..3 {
        probe.did(what, client.raw.connection_mut().send_raw(bytes))?;
        client.lacks(&probe.id())?;
    }
    client.quit()?;
    probe.others_are_served()
}

/// Checks that this opens no session, and other clients are served.
fn is_refused(probe: &Probe<'_>, what: &str, bytes: &[u8]) -> Checked<()> {
    let mut bystander = probe.client()?;
    let mut connection = probe.connection()?;
    // The plugin may hang up before it has all of it.
    let _ = connection.send_raw(bytes);
    bystander.lacks(&probe.id())?;
    raw::ends(probe, connection, what)?;
    bystander.lacks(&probe.id())?;
    bystander.quit()?;
    probe.others_are_served()
}

fn empty_message(probe: &Probe<'_>) -> Checked<()> {
    let frame = [0x81, 3, 0, 0, 0, 0, 7];
    is_ignored(probe, "a frame with an empty message and an attachment", &frame)
}

fn unknown_message(probe: &Probe<'_>) -> Checked<()> {
    // Field 99 of the envelope, and a message without fields.
    is_ignored(probe, "message 99", &[0x01, 3, 0, 0, 0x9a, 0x06, 0])
}

fn message_of_a_plugin(probe: &Probe<'_>) -> Checked<()> {
    let reply = ServerMessage::Reply(Reply { id: 1, body: ReplyBody::Refcount(Ok(())) });
    let reply = framed(probe, &reply.into_wire().0.into())?;
    is_ignored(probe, "the reply to a refcount", &reply)?;
    let detach = framed(probe, &ServerMessage::Detach.into_wire().0.into())?;
    is_ignored(probe, "a detach message", &detach)
}

fn stray_attachment(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let session = client.raw.session();
    let operation = Operation::ObjectInfo { object: probe.id() };
    let plain = raw::request(probe, session, 1 << 40, operation)?;
    let (message, attachment) = (&plain[4..], [7; 100]);
    let len = 2 + message.len() + attachment.len();
    let header = [0x81, len as u8, 0, 0, message.len() as u8, 0];
    let frame = [&header, message, &attachment].concat();
    let connection = client.raw.connection_mut();
    let sending = connection.send_raw(&frame);
    let got = sending.and_then(|()| raw::answer(connection, RequestKind::ObjectInfo));
    probe.trace.step("object info with an attachment of 100 bytes", got).answered()?;
    client.lacks(&probe.id())?;
    client.quit()
}

fn byte_by_byte(probe: &Probe<'_>) -> Checked<()> {
    let mut connection = probe.connection()?;
    let hello = raw::handshake(probe)?;
    probe.did("a handshake, byte by byte", send_bytes(&mut connection, &hello))?;
    let session = raw::session(probe, &mut connection).ok()?.session;
    let operation = Operation::ObjectInfo { object: probe.id() };
    let bytes = raw::request(probe, session, 1, operation)?;
    for _ in 0..3 {
        probe.did("object info, byte by byte", send_bytes(&mut connection, &bytes))?;
        probe.did("wait for the reply", raw::next(&mut connection))?;
    }
    Ok(())
}

fn send_bytes(connection: &mut Connection, bytes: &[u8]) -> Result<(), ClientError> {
    bytes.iter().try_for_each(|byte| connection.send_raw(&[*byte]))
}

fn in_two(probe: &Probe<'_>) -> Checked<()> {
    let hello = raw::handshake(probe)?;
    for end in [1, 4, 5, hello.len() - 1] {
        let mut connection = probe.connection()?;
        let what = format!("the first {end} bytes of a handshake");
        probe.did(what, connection.send_raw(&hello[..end]))?;
        probe.others_are_served()?;
        probe.did("the rest of the handshake", connection.send_raw(&hello[end..]))?;
        raw::session(probe, &mut connection).ok()?;
    }
    Ok(())
}

fn half(probe: &Probe<'_>) -> Checked<()> {
    let hello = raw::handshake(probe)?;
    let mut halves = Vec::new();
    for _ in 0..200 {
        let end = 1 + probe.below(hello.len() as u64 - 1) as usize;
        let mut connection = probe.connection()?;
        probe.did("half of a handshake", connection.send_raw(&hello[..end]))?;
        halves.push(connection);
    }
    for _ in 0..10 {
        probe.others_are_served()?;
    }
    drop(halves);
    probe.others_are_served()
}

fn announced(probe: &Probe<'_>) -> Checked<()> {
    for header in [&[0x01, 0xff, 0xff, 0xff][..], &[0x81, 0xff, 0xff, 0xff, 0x10, 0]] {
        let mut connection = probe.connection()?;
        let what = "the header of a frame of 16 MB, and nothing more";
        probe.did(what, connection.send_raw(header))?;
        probe.others_are_served()?;
        drop(connection);
        probe.others_are_served()?;
    }
    Ok(())
}

fn garbage(probe: &Probe<'_>) -> Checked<()> {
    is_refused(probe, "an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    is_refused(probe, "a hundred bytes 0xff", &[0xff; 100])?;
    let mut chance = probe.content(5000).to_vec();
    chance[0] = 0x47;
    is_refused(probe, "5000 bytes by chance", &chance)
}

fn version(probe: &Probe<'_>) -> Checked<()> {
    let mut hello = raw::handshake(probe)?;
    for version in [0, 2, 0x7f] {
        hello[0] = version;
        is_refused(probe, &format!("a handshake in a frame of version {version}"), &hello)?;
    }
    Ok(())
}

fn length_zero(probe: &Probe<'_>) -> Checked<()> {
    is_refused(probe, "a frame of length 0", &[0x01, 0, 0, 0])?;
    is_refused(probe, "a frame with an attachment, of length 0", &[0x81, 0, 0, 0])?;
    is_refused(probe, "a frame with an attachment, of length 1", &[0x81, 1, 0, 0, 0])
}

fn message_too_long(probe: &Probe<'_>) -> Checked<()> {
    let what = "a frame of 10 bytes with a message of 65535";
    is_refused(probe, what, &[0x81, 10, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn broken_message(probe: &Probe<'_>) -> Checked<()> {
    for len in [1, 2, 3, 10, 200] {
        let header = [0x01, len as u8, 0, 0];
        let frame = [&header, &*probe.content(len)].concat();
        is_refused(probe, &format!("a frame with {len} bytes by chance in it"), &frame)?;
    }
    Ok(())
}
