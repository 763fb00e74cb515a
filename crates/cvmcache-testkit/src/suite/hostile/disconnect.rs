//! Clients that disconnect, with or without a Quit, leave nothing behind.

use std::thread;
use std::time::{Duration, Instant};

use cvmcache::client::{ClientError, ClientMessage, Operation, Request};
use cvmcache::plugin::{Capabilities, Status};

use crate::suite::Case;
use crate::suite::client::TestClient;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

const TELLS: &[Capabilities] = &[Capabilities::WRITE, Capabilities::REFCOUNT, Capabilities::INFO];

pub(super) const CASES: &[Case] = &[
    Case::hostile(
        "disconnect-references",
        "The references of clients that died are released.",
        references,
    )
    .needs_all(TELLS)
    .alone(),
    Case::hostile(
        "disconnect-references-quit",
        "The references of clients that quit are released.",
        references_quit,
    )
    .needs_all(TELLS)
    .alone(),
    Case::hostile(
        "disconnect-references-in-flight",
        "The references of a client that dies within a message, with requests in flight, are \
         released.",
        references_in_flight,
    )
    .needs_all(TELLS)
    .alone(),
    Case::hostile(
        "disconnect-uploads",
        "Uploads of clients that disconnected, larger than the cache in total, leave space for \
         others.",
        uploads,
    )
    .needs_all(TELLS)
    .alone(),
    Case::hostile(
        "disconnect-in-flight",
        "A client that quits or dies with a thousand requests in flight does not affect other \
         clients.",
        in_flight,
    ),
];

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(5);

/// The size of the objects that fill a cache, in bytes.
const LARGE: usize = 1024 * 1024;

/// Has a client open objects and disconnect, and waits until its references are released.
fn leaves_nothing_open(
    probe: &Probe<'_>,
    how: &str,
    go: impl Fn(TestClient) -> Checked<()>,
) -> Checked<()> {
    let mut bystander = probe.client()?;
    let before = bystander.info().ok()?.pinned_bytes;
    let objects = probe.objects(20, 10_000);
    for _ in 0..3 {
        let mut client = probe.client_named(&b"test.cern.ch:gone"[..])?;
        for object in &objects {
            client.store(object).ok()?;
            client.change_refcount(&object.id, 3).ok()?;
        }
        go(client)?;
    }
    let expected = format!("pinned = {before}, as before");
    eventually(probe, &format!("info, after clients that {how}"), expected, || {
        match bystander.raw.info() {
            Ok(info) if info.pinned_bytes <= before => Ok(Ok(())),
            Ok(info) => Ok(Err(format!("pinned = {}", info.pinned_bytes))),
            Err(error) => probe.did("info", Err(error)),
        }
    })?;
    bystander.quit()
}

/// Looks again and again, until what is seen is as expected.
fn eventually(
    probe: &Probe<'_>,
    sent: &str,
    expected: String,
    mut look: impl FnMut() -> Checked<Result<(), String>>,
) -> Checked<()> {
    let deadline = Instant::now() + probe.timeout;
    loop {
        match look()? {
            Ok(()) => return Ok(()),
            Err(seen) if Instant::now() >= deadline => {
                return Err(probe.trace.failure(sent, expected, seen));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn references(probe: &Probe<'_>) -> Checked<()> {
    leaves_nothing_open(probe, "closed their connections without Quit", |client| {
        drop(client);
        Ok(())
    })
}

fn references_quit(probe: &Probe<'_>) -> Checked<()> {
    leaves_nothing_open(probe, "have quit", TestClient::quit)
}

fn references_in_flight(probe: &Probe<'_>) -> Checked<()> {
    let how = "closed their connections in the midst of a message";
    leaves_nothing_open(probe, how, |mut client| {
        let object = probe.object(100);
        client.store(&object).ok()?;
        for _ in 0..50 {
            let open = Operation::Refcount { object: object.id, change_by: 1 };
            let queued = client.raw.queue(open).map(|ticket| client.raw.forget(ticket));
            probe.did("refcount +1, without waiting", queued)?;
        }
        let half = [0x81, 0x10, 0x27, 0, 0x40, 0, 1, 2, 3];
        probe.did("half of a part", client.raw.connection_mut().send_raw(&half))
    })
}

fn uploads(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let size = probe.fillable(&mut client)?.size_bytes;
    // A twentieth of the cache each, and more than all of it together.
    let parts = size / 20 / probe.part as u64;
    let part = probe.content(probe.part);
    for number in 0..24 {
        let mut gone = probe.client_named(&b"test.cern.ch:gone"[..])?;
        let id = probe.id();
        let mut upload = gone.begin(id, id);
        for _ in 0..parts {
            // The uploads of earlier clients may not be dropped yet.
            if upload.write(&mut gone, part.clone()).answered()?.is_none() {
                break;
            }
        }
        if number % 2 == 0 {
            gone.quit()?;
        }
    }
    let sent = "store objects for half of the cache and keep them open, after uploads of more \
                than its size whose clients are gone";
    eventually(probe, sent, "room for them".to_owned(), || {
        let mut open = Vec::new();
        let mut refused = Ok(());
        for object in probe.objects((size / 2) as usize / LARGE, LARGE) {
            match client.raw.store(object.id, object.content) {
                Ok(()) => open.push(object.id),
                Err(ClientError::Status(Status::NoSpace)) => {
                    refused = Err(format!("room for {} objects of 1 MiB", open.len()));
                    break;
                }
                Err(error) => return probe.did("store an object of 1 MiB", Err(error)),
            }
        }
        let closed = open.iter().try_for_each(|id| client.raw.close(id));
        match closed {
            Ok(()) => Ok(refused),
            Err(error) => probe.did("close what could be stored", Err(error)),
        }
    })?;
    client.quit()
}

fn in_flight(probe: &Probe<'_>) -> Checked<()> {
    for quits in [true, false] {
        for _ in 0..5 {
            let client = probe.client_named(&b"test.cern.ch:gone"[..])?;
            let session = client.raw.session();
            let mut connection = client.raw.into_connection();
            let object = probe.id();
            let queued = (0..1000).try_for_each(|id| {
                let operation = Operation::ObjectInfo { object };
                connection.queue(ClientMessage::Request(Request { session, id, operation }))
            });
            probe.did("a thousand requests", queued)?;
            if quits {
                probe.did("Quit", connection.send(ClientMessage::Quit { session }))?;
            } else {
                probe.did("no more", connection.flush())?;
            }
        }
        probe.others_are_served()?;
    }
    Ok(())
}
