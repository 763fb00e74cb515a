//! Many requests in flight, and many clients.

use std::collections::VecDeque;
use std::thread;

use cvmcache::client::Client;
use cvmcache::plugin::{Capabilities, Data, ObjectId, ObjectInfo, ObjectType, Status};
use cvmcache_proto::{Operation, ReplyBody};

use crate::suite::Case;
use crate::suite::client::TestClient;
use crate::suite::object::TestObject;
use crate::suite::probe::{Probe, start_thread};
use crate::suite::step::Checked;

const STORES: &[Capabilities] = &[Capabilities::WRITE];

pub(super) const CASES: &[Case] = &[
    Case::new(
        "pipeline-replies",
        "Of a thousand requests in flight, each gets exactly one reply, its own, in any order.",
        replies,
    )
    .needs_all(STORES),
    Case::new("pipeline-reads", "64 reads of the maximum size can be in flight at once.", reads)
        .needs_all(STORES),
    Case::new(
        "concurrent-clients",
        "Eight clients that store and read at the same time read what they stored.",
        clients,
    )
    .needs_all(STORES),
    Case::new(
        "concurrent-uploads",
        "Eight clients that store one object at the same time all succeed.",
        uploads,
    )
    .needs_all(STORES),
];

fn replies(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let objects: Vec<_> = (1..=20).map(|number| probe.object(100 * number)).collect();
    for object in &objects {
        client.store(object).ok()?;
    }
    let absent = probe.id();
    let mut in_flight = VecDeque::new();
    for number in 0..1000 {
        let object = &objects[number % objects.len()];
        let (operation, expected) = request(number, object, absent);
        let ticket = probe.did("queue a request", client.raw.queue(operation.clone()))?;
        in_flight.push_back((ticket, operation, expected));
    }
    for (ticket, operation, expected) in in_flight {
        let got = probe.did(format!("wait for {operation:?}"), client.raw.wait(ticket))?;
        probe.check(
            plain(got.clone()) == expected,
            format!("{operation:?}, among a thousand requests in flight"),
            format!("{expected:?}"),
            format!("{got:?}"),
        )?;
    }
    for object in &objects {
        client.close(&object.id).ok()?;
    }
    client.quit()
}

/// One of four requests, and its only valid reply.
fn request(number: usize, object: &TestObject, absent: ObjectId) -> (Operation, ReplyBody) {
    let (id, size) = (object.id, object.content.len() as u64);
    match number % 4 {
        0 => (Operation::Refcount { object: id, change_by: 0 }, ReplyBody::Refcount(Ok(()))),
        1 => {
            let info = ObjectInfo::new(size, ObjectType::Regular);
            (Operation::ObjectInfo { object: id }, ReplyBody::ObjectInfo(Ok(info)))
        }
        2 => {
            let read = Operation::Read { object: id, offset: 50, size: 4096 };
            let result = Ok(object.content.slice(50..).into());
            (read, ReplyBody::Read { result, data_crc32: None })
        }
        _ => {
            let refused = ReplyBody::ObjectInfo(Err(Status::NoEntry));
            (Operation::ObjectInfo { object: absent }, refused)
        }
    }
}

/// Without what a plugin may add as it likes: a checksum, and how it cuts its data in pieces.
fn plain(body: ReplyBody) -> ReplyBody {
    match body {
        ReplyBody::Read { result, .. } => {
            let result = result.map(|data| data.into_bytes().into());
            ReplyBody::Read { result, data_crc32: None }
        }
        body => body,
    }
}

fn reads(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(64 * probe.part);
    client.store(&object).ok()?;
    let mut in_flight = Vec::new();
    for number in 0..64 {
        let offset = (number * probe.part) as u64;
        let queued = client.raw.queue_read(&object.id, offset, probe.part as u32);
        in_flight.push((offset as usize, probe.did("queue a read", queued)?));
    }
    for (offset, ticket) in in_flight {
        let data = client.raw.wait(ticket).map(Data::into_bytes);
        let sent = format!("read a part of {} from {offset} on, with 63 others", object.id);
        let step = probe.trace.step(sent, data);
        step.has_content(&object.content[offset..offset + probe.part])?;
    }
    client.close(&object.id).ok()?;
    client.quit()
}

fn clients(probe: &Probe<'_>) -> Checked<()> {
    let sizes = [1, 1000, probe.part, 2 * probe.part + 1];
    let objects = || sizes.iter().cycle().take(12).map(|size| probe.object(*size)).collect();
    at_once(probe, (0..8).map(|_| objects()).collect(), |client, objects| {
        for object in objects {
            client.store(object).ok()?;
            client.has(object)?;
        }
        for object in objects {
            client.has(object)?;
            client.close(&object.id).ok()?;
        }
        Ok(())
    })
}

fn uploads(probe: &Probe<'_>) -> Checked<()> {
    let objects = probe.objects(20, 3 * probe.part + 1);
    at_once(probe, vec![objects; 8], |client, objects| {
        for object in objects {
            client.store(object).ok()?;
            client.has(object)?;
            client.close(&object.id).ok()?;
        }
        Ok(())
    })
}

/// Runs the same in several clients at once, each with its own objects; the first failure counts.
fn at_once(
    probe: &Probe<'_>,
    objects: Vec<Vec<TestObject>>,
    run: fn(&mut TestClient, &[TestObject]) -> Checked<()>,
) -> Checked<()> {
    let (locator, timeout, trace) = (probe.locator, probe.timeout, &probe.trace);
    let one = |number: usize, objects: &[TestObject]| -> Checked<()> {
        let name = format!("test.cern.ch:{number}");
        let connected = Client::builder().name(name).timeout(timeout).connect(locator);
        let raw = trace.step("handshake, with seven others", connected).ok()?;
        let mut client = TestClient::new(raw, trace.clone());
        run(&mut client, objects)?;
        client.quit()
    };
    let one = &one;
    let ended: Vec<Checked<()>> = thread::scope(|scope| {
        let numbered = objects.iter().enumerate();
        let threads: Vec<_> = numbered
            .map(|(number, objects)| start_thread(scope, move || one(number, objects)))
            .collect();
        let bug = |_| Err(trace.failure("requests", "a sound case", "a panic in the case"));
        threads.into_iter().map(|thread| thread?.join().unwrap_or_else(bug)).collect()
    });
    ended.into_iter().collect()
}
