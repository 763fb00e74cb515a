//! Load: many requests, unread replies and many connections.

use std::thread;

use cvmcache::client::{
    Client, ClientMessage, Operation, Reply, ReplyBody, Request, ServerMessage,
};
use cvmcache::plugin::Capabilities;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::raw;
use crate::suite::Case;
use crate::suite::client::TestClient;
use crate::suite::object::TestObject;
use crate::suite::probe::{Probe, skip, start_thread};
use crate::suite::step::Checked;

const STORES: &[Capabilities] = &[Capabilities::WRITE];

pub(super) const CASES: &[Case] = &[
    Case::hostile(
        "load-replies-unread",
        "While a client does not read the replies to its 2000 reads, others are served; when it \
         reads, every reply arrives.",
        replies_unread,
    )
    .needs_all(STORES),
    Case::hostile(
        "load-flood",
        "While four clients send 5000 requests each, another is served, and all requests are \
         answered.",
        flood,
    ),
    Case::hostile(
        "load-idle-connections",
        "Five hundred idle connections keep no other client from connecting.",
        idle_connections,
    ),
    Case::hostile(
        "load-connect-and-close",
        "Two thousand connections that are closed at once keep no other client from connecting.",
        connect_and_close,
    ),
    Case::hostile(
        "load-half-closed",
        "A client that shuts down its write half still gets its replies.",
        half_closed,
    ),
    Case::hostile(
        "load-disconnect-in-reply",
        "Clients that die while a large reply is sent do not affect other clients.",
        disconnect_in_reply,
    )
    .needs_all(STORES),
];

/// An object as large as a part.
fn stored(probe: &Probe<'_>) -> Checked<(TestClient, TestObject)> {
    let mut client = probe.client()?;
    let object = probe.object(probe.part);
    client.store(&object).ok()?;
    Ok((client, object))
}

/// The frames of reads of a whole object.
fn reads(probe: &Probe<'_>, session: u64, object: &TestObject, count: u64) -> Checked<Vec<u8>> {
    let mut frames = Vec::new();
    for id in 0..count {
        let operation =
            Operation::Read { object: object.id, offset: 0, size: object.content.len() as u32 };
        frames.extend(raw::request(probe, session, id, operation)?);
    }
    Ok(frames)
}

fn replies_unread(probe: &Probe<'_>) -> Checked<()> {
    const READS: u64 = 2000;
    let (mut client, object) = stored(probe)?;
    let mut hostile = probe.client_named(&b"test.cern.ch:deaf"[..])?;
    let frames = reads(probe, hostile.raw.session(), &object, READS)?;
    let connection = hostile.raw.connection_mut();
    probe.did("2000 reads of a part, without reading replies", connection.send_raw(&frames))?;
    for _ in 0..20 {
        client.read_all(&object.id).has_content(&object.content)?;
        probe.others_are_served()?;
    }
    let replies: Result<Vec<_>, _> =
        (0..READS).map(|_| raw::next(connection).map(|reply| is_ok(&reply))).collect();
    let step = probe.trace.step("2000 reads of a part, then read the replies", replies);
    step.ok_and("a reply to each that is OK", |replies| replies.iter().all(|good| *good))?;
    hostile.quit()?;
    client.close(&object.id).ok()?;
    client.quit()
}

fn is_ok(message: &ServerMessage) -> bool {
    matches!(
        message,
        ServerMessage::Reply(Reply { body: ReplyBody::Read { result: Ok(_), .. }, .. })
    )
}

fn flood(probe: &Probe<'_>) -> Checked<()> {
    let (locator, timeout, trace) = (probe.locator, probe.timeout, &probe.trace);
    let ids: Vec<_> = (0..4).map(|_| probe.id()).collect();
    let one = |object| -> Checked<()> {
        let builder = Client::builder().name("test.cern.ch:flood").timeout(timeout);
        let mut client = trace.step("handshake", builder.connect(locator)).ok()?;
        let mut in_flight = Vec::new();
        for _ in 0..5000 {
            let queued = client.queue(Operation::ObjectInfo { object });
            in_flight.push(trace.step("one of 5000 requests", queued).ok()?);
        }
        for ticket in in_flight {
            trace.step("5000 requests, in four clients", client.wait(ticket)).ok()?;
        }
        trace.step("Quit", client.quit()).ok()
    };
    let one = &one;
    thread::scope(|scope| {
        let floods = ids.iter().map(|id| start_thread(scope, move || one(*id)));
        let floods = floods.collect::<Checked<Vec<_>>>()?;
        let mut served = probe.others_are_served();
        while served.is_ok() && !floods.iter().all(|flood| flood.is_finished()) {
            served = probe.others_are_served();
        }
        let bug = |_| Err(trace.failure("requests", "a sound case", "a panic in the case"));
        let ended = floods.into_iter().map(|flood| flood.join().unwrap_or_else(bug));
        ended.collect::<Checked<()>>().and(served)
    })
}

/// Lets this process have so many connections; both ends of them may be in it.
fn allow_connections(count: u64) -> Checked<()> {
    let needed = 2 * count + 100;
    let enough = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < needed && needed <= hard {
            setrlimit(Resource::RLIMIT_NOFILE, needed, hard)?;
        }
        Ok(needed <= hard)
    });
    match enough {
        Ok(true) => Ok(()),
        _ => Err(skip(format!("this process may not have {needed} open files (ulimit -n)"))),
    }
}

fn idle_connections(probe: &Probe<'_>) -> Checked<()> {
    allow_connections(500)?;
    let idle = (0..500).map(|_| probe.connection()).collect::<Checked<Vec<_>>>()?;
    for _ in 0..10 {
        probe.others_are_served()?;
    }
    drop(idle);
    probe.others_are_served()
}

fn connect_and_close(probe: &Probe<'_>) -> Checked<()> {
    for _ in 0..2000 {
        drop(probe.connection()?);
    }
    probe.others_are_served()
}

fn half_closed(probe: &Probe<'_>) -> Checked<()> {
    const REQUESTS: u64 = 500;
    let client = probe.client()?;
    let session = client.raw.session();
    let mut connection = client.raw.into_connection();
    let object = probe.id();
    let sending = (0..REQUESTS).try_for_each(|id| {
        let operation = Operation::ObjectInfo { object };
        connection.queue(ClientMessage::Request(Request { session, id, operation }))
    });
    let sent = "500 requests, then no more (shutdown of one half of the connection)";
    probe.did(sent, sending.and_then(|()| connection.shutdown_write()))?;
    let replies: Result<Vec<_>, _> = (0..REQUESTS).map(|_| raw::next(&mut connection)).collect();
    probe.did("wait for the replies", replies.map(drop))?;
    raw::ends(probe, connection, sent)?;
    probe.others_are_served()
}

fn disconnect_in_reply(probe: &Probe<'_>) -> Checked<()> {
    let (mut client, object) = stored(probe)?;
    for _ in 0..10 {
        let mut dying = probe.client_named(&b"test.cern.ch:dying"[..])?;
        let frames = reads(probe, dying.raw.session(), &object, 64)?;
        let connection = dying.raw.connection_mut();
        probe.did("64 reads of a part", connection.send_raw(&frames))?;
        probe.did("receive one reply, and close", raw::next(connection))?;
    }
    client.has(&object)?;
    client.close(&object.id).ok()?;
    client.quit()?;
    probe.others_are_served()
}
