//! Invalid requests: at the wrong time, without required fields, or out of bounds.

use bytes::Bytes;
use cvmcache::client::{ClientMessage, Operation, Request, RequestKind};
use cvmcache::plugin::{Breadcrumb, Capabilities, ObjectId, ObjectType, Status};
use cvmcache_proto::RawMessage;

use super::raw;
use crate::suite::Case;
use crate::suite::client::{TestClient, part};
use crate::suite::probe::Probe;
use crate::suite::step::{Checked, Step};

const STORES: &[Capabilities] = &[Capabilities::WRITE];

pub(super) const CASES: &[Case] = &[
    Case::hostile(
        "request-before-handshake",
        "A request before the handshake is refused, and a handshake is still possible.",
        before_handshake,
    ),
    Case::hostile(
        "request-quit-before-handshake",
        "A Quit before the handshake closes at most its own connection.",
        quit_before_handshake,
    ),
    Case::hostile(
        "request-second-handshake",
        "A second handshake is answered, and the first session goes on.",
        second_handshake,
    ),
    Case::hostile(
        "request-unknown-version",
        "A handshake with another protocol version is answered.",
        unknown_version,
    ),
    Case::hostile(
        "request-same-id",
        "Of several requests in flight with one request id, each has one reply.",
        same_id,
    ),
    Case::hostile(
        "request-missing-field",
        "A request without a required field is MALFORMED, and the connection stays.",
        missing_field,
    ),
    Case::hostile(
        "request-unknown-algorithm",
        "An object id with an unknown hash algorithm is MALFORMED, and the connection stays.",
        unknown_algorithm,
    ),
    Case::hostile(
        "request-digest-length",
        "A digest that is not 20 bytes long is MALFORMED, and the connection stays.",
        digest_length,
    ),
    Case::hostile(
        "request-unknown-type",
        "A listing of an unknown object type is MALFORMED, and the connection stays.",
        unknown_type,
    )
    .needs_all(&[Capabilities::LIST]),
    Case::hostile(
        "request-read-absent",
        "A read of an absent object is refused, whatever its size and offset are.",
        read_absent,
    ),
    Case::hostile(
        "request-read-too-large",
        "A read of more than the part size is refused or returns at most the rest of the object.",
        read_too_large,
    )
    .needs_all(STORES),
    Case::hostile(
        "request-shrink-above-size",
        "A shrink to more than the size evicts nothing, however large the number is.",
        shrink_above_size,
    )
    .needs_all(&[Capabilities::WRITE, Capabilities::SHRINK]),
    Case::hostile(
        "request-refcount-overflow",
        "A reference count does not overflow: as many references as were counted can be released, \
         and no more.",
        refcount_overflow,
    )
    .needs_all(&[Capabilities::WRITE, Capabilities::REFCOUNT]),
];

/// Checks that this client and others are still served.
fn goes_on(probe: &Probe<'_>, mut client: TestClient) -> Checked<()> {
    client.lacks(&probe.id())?;
    client.quit()?;
    probe.others_are_served()
}

fn before_handshake(probe: &Probe<'_>) -> Checked<()> {
    let mut connection = probe.connection()?;
    for session in [0, 1 << 40] {
        let operation = Operation::ObjectInfo { object: probe.id() };
        let request = ClientMessage::Request(Request { session, id: 1 << 40, operation });
        let sending = connection.send(request);
        let got = sending.and_then(|()| raw::answer(&mut connection, RequestKind::ObjectInfo));
        let sent = format!("object info in session {session}, before the handshake");
        probe.trace.step(sent, got).fails_somehow()?;
    }
    let hello = ClientMessage::Handshake { protocol_version: 1, name: Some("late.cern.ch".into()) };
    probe.did("send a handshake", connection.send(hello))?;
    raw::session(probe, &mut connection).ok()?;
    probe.others_are_served()
}

fn quit_before_handshake(probe: &Probe<'_>) -> Checked<()> {
    for session in [0, 1 << 40] {
        let mut connection = probe.connection()?;
        probe.did("Quit", connection.send(ClientMessage::Quit { session }))?;
        raw::ends(probe, connection, "Quit before the handshake")?;
        probe.others_are_served()?;
    }
    Ok(())
}

fn second_handshake(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let hello = ClientMessage::Handshake { protocol_version: 1, name: Some("x.cern.ch".into()) };
    let connection = client.raw.connection_mut();
    probe.did("a second handshake", connection.send(hello))?;
    raw::session(probe, connection).answered()?;
    goes_on(probe, client)
}

fn unknown_version(probe: &Probe<'_>) -> Checked<()> {
    for protocol_version in [0, 2, u32::MAX] {
        let mut connection = probe.connection()?;
        let hello = ClientMessage::Handshake { protocol_version, name: Some("x.cern.ch:1".into()) };
        let sent = format!("a handshake of protocol version {protocol_version}");
        probe.did(sent, connection.send(hello))?;
        raw::session(probe, &mut connection).answered()?;
    }
    probe.others_are_served()
}

fn same_id(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let session = client.raw.session();
    let mut tickets = Vec::new();
    for _ in 0..10 {
        let operation = Operation::ObjectInfo { object: probe.id() };
        let request = Request { session, id: 1 << 40, operation };
        tickets.push(probe.did("object info", client.raw.submit_request(request))?);
    }
    for ticket in tickets {
        let sent = "ten times object info under one number";
        probe.did(sent, client.raw.wait(ticket))?;
    }
    goes_on(probe, client)
}

fn missing_field(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.id();
    // With the number of the field that is left out.
    let mut requests = vec![
        ("refcount without object", Operation::Refcount { object, change_by: 0 }, 3),
        ("refcount without change", Operation::Refcount { object, change_by: 0 }, 4),
        ("read without size", Operation::Read { object, offset: 0, size: 0 }, 5),
        ("object info without object", Operation::ObjectInfo { object }, 3),
    ];
    if probe.capabilities.contains(Capabilities::WRITE) {
        requests.push(("store without part number", part(object, 1, true, Bytes::new()), 4));
    }
    if probe.capabilities.contains(Capabilities::SHRINK) {
        requests.push(("shrink without size", Operation::Shrink { target: 0 }, 3));
    }
    if probe.capabilities.contains(Capabilities::LIST) {
        requests.push(("list without type", list(), 4));
    }
    if probe.capabilities.contains(Capabilities::BREADCRUMB) {
        let breadcrumb = Breadcrumb { catalog: object, timestamp: 0, revision: None };
        let store = Operation::BreadcrumbStore { repository: Bytes::new(), breadcrumb };
        requests.push(("store without breadcrumb", store, 3));
    }
    for (sent, operation, missing) in requests {
        let answer =
            raw::ask(probe, &mut client, sent, operation, |message| message.without(missing));
        answer.fails(Status::Malformed)?;
    }
    goes_on(probe, client)
}

fn list() -> Operation {
    Operation::List { listing: 0, object_type: ObjectType::Regular }
}

/// Asks for the size of an object whose name `spoil` has changed.
fn info_of(
    probe: &Probe<'_>,
    client: &mut TestClient,
    sent: &str,
    spoil: impl FnOnce(RawMessage) -> RawMessage,
) -> Step<()> {
    let operation = Operation::ObjectInfo { object: probe.id() };
    raw::ask(probe, client, sent, operation, |message| message.within(3, spoil))
}

fn unknown_algorithm(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    for algorithm in [0, 4, 99, -1_i64] {
        let sent = format!("object info under hash algorithm {algorithm}");
        let answer = info_of(probe, &mut client, &sent, |hash| hash.number(1, algorithm as u64));
        answer.fails(Status::Malformed)?;
    }
    goes_on(probe, client)
}

fn digest_length(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    for len in [0, ObjectId::DIGEST_LEN - 1, ObjectId::DIGEST_LEN + 1, 1000] {
        let sent = format!("object info under a digest of {len} bytes");
        let answer = info_of(probe, &mut client, &sent, |hash| hash.bytes(2, &vec![7; len]));
        answer.fails(Status::Malformed)?;
    }
    goes_on(probe, client)
}

fn unknown_type(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    for object_type in [3, 77, -1_i64] {
        let sent = format!("list objects of type {object_type}");
        let answer = raw::ask(probe, &mut client, &sent, list(), |message| {
            message.number(4, object_type as u64)
        });
        answer.fails(Status::Malformed)?;
    }
    goes_on(probe, client)
}

fn read_absent(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    for offset in [0, 1 << 32, u64::MAX] {
        for size in [0, 1, probe.part as u32] {
            client.read(&probe.id(), offset, size).fails(Status::NoEntry)?;
        }
        for size in [probe.part as u32 + 1, 1 << 31, u32::MAX] {
            client.read(&probe.id(), offset, size).fails_somehow()?;
        }
    }
    goes_on(probe, client)
}

fn read_too_large(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(3 * probe.part);
    client.store(&object).ok()?;
    let len = object.content.len();
    for (offset, size) in [(0, u32::MAX), (10, 1 << 31), (0, probe.part as u32 + 1)] {
        let sent = format!("read {size} bytes of {} from {offset} on", object.id);
        if let Some(data) = client.read(&object.id, offset as u64, size).answered()? {
            let end = len.min(offset + (size as usize).min(data.len()));
            let expected = "an error, or the bytes that are there";
            let received = format!("{} bytes, which are not those", data.len());
            probe.check(*data == object.content[offset..end], sent, expected, received)?;
        }
    }
    client.read(&object.id, u64::MAX - 10, u32::MAX).fails_somehow()?;
    client.has(&object)?;
    client.close(&object.id).ok()?;
    goes_on(probe, client)
}

fn shrink_above_size(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(1000);
    client.store_and_close(&object)?;
    for target in [(1 << 63) - 1, 1 << 63, u64::MAX] {
        client.shrink(target).ok()?;
        client.has(&object)?;
    }
    goes_on(probe, client)
}

fn refcount_overflow(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(1000);
    client.store(&object).ok()?;
    client.change_refcount(&object.id, i32::MIN).fails_somehow()?;
    let mut counted = 0;
    for _ in 0..5 {
        counted += client.change_refcount(&object.id, i32::MAX).answered()?.iter().count();
    }
    client.has(&object)?;
    for _ in 0..counted {
        client.change_refcount(&object.id, -i32::MAX).ok()?;
    }
    client.close(&object.id).ok()?;
    client.close(&object.id).fails(Status::BadCount)?;
    goes_on(probe, client)
}
