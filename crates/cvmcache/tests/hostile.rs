//! Hostile clients: their requests are answered as far as possible, and other clients are served.

mod support;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;
use cvmcache::client::{
    Client, ClientError, ClientMessage, Connection, NewUpload, Operation, ReplyBody, Request,
    ServerMessage, StorePart,
};
use cvmcache::plugin::*;
use cvmcache::{CachePlugin, Limits, Locator, Server, Session};
use cvmcache_proto::{RawMessage, Reply};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::served::{serve, serve_with};
use support::{Fault, id};

fn framed(message: ClientMessage) -> Vec<u8> {
    raw(message).to_frame().expect("a frame")
}

/// A message to be spoilt.
fn raw(message: ClientMessage) -> RawMessage {
    message.into_wire().0.into()
}

#[test]
fn an_invalid_request_is_answered_and_the_connection_stays() {
    let f = serve(0);
    let mut client = f.client("repo:1");
    let session = client.session();
    let request = |operation| ClientMessage::Request(Request { session, id: 9, operation });
    let object = id(1);
    let repository = Bytes::from(vec![b'x'; 9_000_000]);
    let list = Operation::List { listing: 0, object_type: ObjectType::Regular };
    let breadcrumb = Breadcrumb { catalog: object, timestamp: 0, revision: None };
    let crumb = Operation::BreadcrumbStore { repository: Bytes::new(), breadcrumb };
    let spoilt = |operation| raw(request(operation));
    let connection = client.connection_mut();
    for message in [
        spoilt(Operation::Refcount { object, change_by: 0 }).without(3).without(4),
        // An unknown algorithm, and a digest that is too short.
        spoilt(Operation::Read { object, offset: 0, size: 1 }).within(3, |hash| hash.number(1, 4)),
        spoilt(Operation::ObjectInfo { object }).within(3, |hash| hash.bytes(2, &[0; 19])),
        spoilt(list).number(4, 3),
        spoilt(Operation::BreadcrumbLoad { repository }),
        spoilt(crumb).without(3),
        spoilt(Operation::Shrink { target: 0 }).without(3),
    ] {
        connection.send_raw(&message.to_frame().unwrap()).unwrap();
        let reply = connection.receive().unwrap().expect("an answer");
        let ServerMessage::Reply(reply) = reply else { panic!("{reply:?}") };
        assert_eq!(reply.id, 9);
        assert_eq!(reply.body.status(), Err(Status::Malformed));
    }
    // These have no reply.
    let info_reply = ReplyBody::Info(Err(Status::Unknown));
    let info_reply = ServerMessage::Reply(Reply { id: 1, body: info_reply });
    for nonsense in [
        vec![0x01, 3, 0, 0, 0xfa, 0x01, 0],
        vec![0x81, 3, 0, 0, 0, 0, 7],
        RawMessage::from(ServerMessage::Detach.into_wire().0).to_frame().unwrap(),
        RawMessage::from(info_reply.into_wire().0).without(1).without(2).to_frame().unwrap(),
        raw(ClientMessage::Ioctl { session, connection_change: 1 }).without(1).to_frame().unwrap(),
        framed(ClientMessage::Quit { session: session + 1 }),
    ] {
        connection.send_raw(&nonsense).unwrap();
    }
    // A message that is broken inside still has its request id.
    let refcount = Operation::Refcount { object, change_by: 0 };
    let mut broken = spoilt(refcount).without(3).without(4).to_frame().unwrap();
    broken.extend([0x1a, 3, 0xff, 0xff, 0xff]);
    (broken[1], broken[5]) = (broken[1] + 5, broken[5] + 5);
    connection.send_raw(&broken).unwrap();
    let Some(ServerMessage::Reply(reply)) = connection.receive().unwrap() else { panic!() };
    assert_eq!((reply.id, reply.body), (9, ReplyBody::Refcount(Err(Status::Malformed))));
    // So does one that is broken off.
    let mut broken = framed(request(Operation::Info));
    broken.push(0xff);
    broken[1] += 1;
    connection.send_raw(&broken).unwrap();
    let Some(ServerMessage::Reply(reply)) = connection.receive().unwrap() else { panic!() };
    assert_eq!((reply.id, reply.body), (9, ReplyBody::Info(Err(Status::Malformed))));
    // An attachment that is too large is skipped, and answered.
    let too_large = Request {
        session,
        id: 10,
        operation: Operation::Store(StorePart {
            object: id(1),
            number: 1,
            last: true,
            expected_size: None,
            object_type: ObjectType::Regular,
            description: None,
            data_crc32: None,
            data: vec![0; 1 << 20].into(),
        }),
    };
    let ticket = client.submit_request(too_large).unwrap();
    let expected = ReplyBody::Store { result: Err(Status::Malformed), part: 1 };
    assert_eq!(client.wait(ticket).unwrap(), expected);
    assert!(!client.exists(&id(1)).unwrap());
}

#[test]
fn descriptions_and_client_names_of_any_length_cost_neither_object_nor_session() {
    let f = serve(0);
    // A message beside an attachment has at most 65,535 bytes.
    let lengths = [4096, 4097, 65_000, 65_536, 9_000_000];
    for (number, len) in (1..).zip(lengths) {
        let name = [&b"repo:"[..], &vec![b'n'; len]].concat();
        let mut client = Client::builder()
            .name(name)
            .timeout(Duration::from_secs(20))
            .connect(&f.locator)
            .unwrap();
        let data = if len < 65_536 { &b"abc"[..] } else { b"" };
        let new = NewUpload::new(id(number)).description(vec![b'd'; len]);
        client.store(new, data).unwrap();
        assert_eq!(client.read(&id(number), 0, 10).unwrap(), data);
        client.close(&id(number)).unwrap();
        client.quit().unwrap();
    }
    let entries = f.client("repo:1").list(ObjectType::Regular).unwrap();
    assert_eq!(entries.len(), lengths.len());
    assert!(entries.iter().all(|entry| entry.description.as_ref().unwrap().len() == 4096));
}

#[test]
fn a_request_without_a_session_of_its_own_is_forbidden() {
    let f = serve(0);
    let mut other = f.client("repo:1");
    other.store(NewUpload::new(id(1)), "abc").unwrap();
    let session = other.session();

    let mut connection = f.connection();
    let close = Operation::Refcount { object: id(1), change_by: -1 };
    let request = Request { session, id: 5, operation: close };
    let forbidden = ReplyBody::Refcount(Err(Status::Forbidden));
    let refuse = |connection: &mut Connection| {
        connection.send(ClientMessage::Request(request.clone())).unwrap();
        match connection.receive().unwrap() {
            Some(ServerMessage::Reply(reply)) => assert_eq!(reply.body, forbidden),
            other => panic!("{other:?}"),
        }
    };
    refuse(&mut connection);
    let handshake = ClientMessage::Handshake { protocol_version: 1, name: Some("evil:1".into()) };
    connection.send(handshake.clone()).unwrap();
    let Some(ServerMessage::HandshakeAck(first)) = connection.receive().unwrap() else { panic!() };
    assert_eq!(first.result, Ok(()));
    refuse(&mut connection);
    // A second handshake changes nothing.
    connection.send(handshake).unwrap();
    let Some(ServerMessage::HandshakeAck(second)) = connection.receive().unwrap() else { panic!() };
    assert_eq!((second.result, second.session), (Err(Status::Malformed), 0));
    connection.send(ClientMessage::Quit { session }).unwrap();
    assert_eq!(f.cache.references(id(1)), 1);
    assert!(other.exists(&id(1)).unwrap());
}

#[test]
fn bytes_that_are_no_frame_close_that_connection_alone() {
    let f = serve(0);
    let mut bystander = f.client("repo:1");
    for garbage in [&b"GET / HTTP/1.1\r\n"[..], &[0, 1, 0, 0, 0], &[1, 0, 0, 0], &[1, 1, 0, 0, 7]] {
        let mut connection = f.connection();
        connection.send_raw(garbage).unwrap();
        assert!(matches!(connection.receive(), Ok(None) | Err(ClientError::Closed)));
        bystander.info().unwrap();
    }
}

#[test]
fn half_a_frame_delays_no_other_connection() {
    // Both ends of the connections are in this process.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let f = serve(0);
    let mut bystander = f.client("repo:1");
    let mut slow: Vec<_> = (0..500).map(|_| f.connection()).collect();
    let handshake =
        framed(ClientMessage::Handshake { protocol_version: 1, name: Some("slow:1".into()) });
    for byte in &handshake {
        for connection in &mut slow {
            connection.send_raw(&[*byte]).unwrap();
        }
        bystander.info().unwrap();
    }
    for connection in &mut slow {
        let message = connection.receive().unwrap();
        assert!(matches!(message, Some(ServerMessage::HandshakeAck(ack)) if ack.result.is_ok()));
    }
}

#[test]
fn a_connection_that_takes_no_replies_is_not_read_and_delays_no_other() {
    let mut limits = Limits::default();
    limits.max_buffered = 512 * 1024;
    for workers in [0, 4] {
        let f = serve_with(workers, limits.clone());
        f.cache.insert(id(1), vec![7; 128 * 1024]);
        let mut hostile = f.client("evil:1");
        let mut bystander = f.client("repo:1");
        let session = hostile.session();
        let read = |number| {
            let operation = Operation::Read { object: id(1), offset: 0, size: 128 * 1024 };
            ClientMessage::Request(Request { session, id: number, operation })
        };
        const READS: u64 = 1000;
        let connection = hostile.connection_mut();
        let reads = || f.cache.state().calls.iter().filter(|call| **call == "read").count();
        let mut frames = Vec::new();
        for number in 0..READS {
            frames.extend(framed(read(number)));
        }
        connection.send_raw(&frames).unwrap();
        for _ in 0..100 {
            bystander.info().unwrap();
        }
        // What the socket holds and the limit allows for, of 125 MiB in all.
        assert!(reads() < 100, "{} reads were answered to nobody", reads());
        for _ in 0..READS {
            match connection.receive().unwrap() {
                Some(ServerMessage::Reply(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn connections_that_take_no_replies_stay_below_the_total_and_a_small_client_is_served() {
    const SIZE: u32 = 16 * 1024;
    const CONNECTIONS: usize = 100;
    const READS: u64 = 300;
    let mut limits = Limits::default();
    limits.max_object_size = SIZE;
    limits.max_buffered_total = Some(32 << 20);
    for workers in [0, 4] {
        let f = serve_with(workers, limits.clone());
        f.cache.insert(id(1), vec![7; SIZE as usize]);
        let mut hostile: Vec<_> = (0..CONNECTIONS).map(|_| f.client("evil:1")).collect();
        let mut bystander = f.client("repo:1");
        for client in &mut hostile {
            let session = client.session();
            let read = |id| {
                let operation = Operation::Read { object: self::id(1), offset: 0, size: SIZE };
                framed(ClientMessage::Request(Request { session, id, operation }))
            };
            let frames: Vec<u8> = (0..READS).flat_map(read).collect();
            client.connection_mut().send_raw(&frames).unwrap();
            bystander.info().unwrap();
        }
        let mut ours = 0;
        for byte in 10..110 {
            bystander.store(NewUpload::new(id(byte)), vec![byte; SIZE as usize]).unwrap();
            assert_eq!(bystander.read(&id(byte), 0, SIZE).unwrap().len(), SIZE as usize);
            ours += 1;
        }
        let reads = f.cache.state().calls.iter().filter(|call| **call == "read").count() - ours;
        let socket = 256 * 1024;
        let most = ((32 << 20) + CONNECTIONS * socket) / SIZE as usize;
        assert!(reads <= most, "{reads} of {most}");
        for client in &mut hostile {
            for _ in 0..READS {
                let message = client.connection_mut().receive().unwrap();
                assert!(matches!(message, Some(ServerMessage::Reply(_))));
            }
        }
    }
}

#[test]
fn the_session_of_a_connection_closed_without_quit_ends() {
    let f = serve(0);
    for _ in 0..200 {
        drop(UnixStream::connect(&f.socket).unwrap());
    }
    let mut half = UnixStream::connect(&f.socket).unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(half.read(&mut [0; 1]).unwrap(), 0);
    f.client("repo:1").info().unwrap();
}
#[test]
fn a_panic_in_a_callback_is_answered_over_the_wire() {
    for workers in [0, 2] {
        let f = serve(workers);
        f.cache.insert(id(1), "abc");
        let mut client = f.client("repo:1");
        f.cache.upset("read", Fault::Panic);
        let error = client.read(&id(1), 0, 3).unwrap_err();
        assert_eq!(error.status(), Some(Status::IoErr));
        assert_eq!(client.read(&id(1), 0, 3).unwrap(), "abc");
    }
}

#[test]
fn a_small_reply_that_is_not_read_keeps_no_large_object_in_memory() {
    let f = serve(0);
    f.cache.insert(id(1), vec![7; 128 * 1024]);
    let data = Bytes::from(vec![7; 256 * 1024]);
    f.cache.insert(id(2), data.clone());
    let mut hostile = f.client("evil:1");
    let mut read = |byte, size| hostile.queue_read(&id(byte), 0, size).unwrap();
    // The first ones fill the socket.
    let large: Vec<_> = (0..10).map(|_| read(1, 128 * 1024)).collect();
    let small: Vec<_> = (0..20).map(|_| read(2, 1)).collect();
    hostile.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads == 30);
    // The last of them has only been counted; on one thread, a reply sent now comes after it.
    f.client("bystander:1").info().unwrap();
    f.cache.change(|state| state.objects.clear());
    assert!(data.is_unique());
    for ticket in large {
        hostile.wait(ticket).unwrap();
    }
    for ticket in small {
        assert_eq!(hostile.wait(ticket).unwrap().into_bytes(), [7][..]);
    }
}

#[test]
fn requests_before_the_end_of_a_connection_are_handled() {
    for workers in [0, 4] {
        let f = serve(workers);
        let client = f.client("repo:1");
        let session = client.session();
        let mut connection = client.into_connection();
        let mut ask = |id, operation| {
            let request = Request { session, id, operation };
            connection.queue(ClientMessage::Request(request)).unwrap();
        };
        (0..2000).for_each(|number| ask(number, Operation::Info));
        let breadcrumb = Breadcrumb { catalog: id(1), timestamp: 1, revision: None };
        ask(2000, Operation::BreadcrumbStore { repository: "repo".into(), breadcrumb });
        connection.flush().unwrap();
        // From now on, no reply can be sent.
        drop(connection);
        f.cache.wait_until(|state| state.breadcrumbs.contains_key(&b"repo"[..]));
    }
}

#[test]
fn with_workers_a_flood_of_requests_does_not_starve_other_connections() {
    let f = serve(2);
    f.cache.insert(id(1), "abc");
    f.cache.change(|state| state.hold_reads = true);
    let mut hostile = f.client("evil:1");
    let mut bystander = f.client("repo:1");
    let flood: Vec<_> = (0..500).map(|_| hostile.queue_read(&id(1), 0, 3).unwrap()).collect();
    hostile.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads == 2);
    let info = bystander.submit(Operation::Info).unwrap();
    f.cache.change(|state| state.hold_reads = false);
    bystander.wait(info).unwrap();
    for ticket in flood {
        hostile.wait(ticket).unwrap();
    }
    let state = f.cache.state();
    let place = state.calls.iter().position(|call| *call == "info").expect("it was called");
    assert!(place < 100, "{place} requests of the flood went before");
}

#[test]
fn without_workers_a_flood_of_requests_does_not_starve_other_connections() {
    let f = serve(0);
    let mut hostile = f.client("evil:1");
    let mut bystander = f.client("repo:1");
    bystander.exists(&id(1)).unwrap();
    let flood: Vec<_> = (0..20_000).map(|_| hostile.queue(Operation::Info).unwrap()).collect();
    hostile.flush().unwrap();
    bystander.exists(&id(1)).unwrap();
    let before = f.cache.state().calls.iter().filter(|call| **call == "info").count();
    for ticket in flood {
        hostile.wait(ticket).unwrap();
    }
    // The client has sent them all, and the socket holds far fewer than that.
    assert!(before < 19_000, "{before} requests of the flood went before");
}

#[test]
fn a_callback_that_never_returns_blocks_only_its_worker() {
    let mut limits = Limits::default();
    limits.request_deadline = Some(Duration::from_millis(50));
    limits.shutdown_timeout = Duration::from_millis(50);
    let f = serve_with(2, limits);
    f.cache.insert(id(1), "abc");
    f.cache.change(|state| state.hold_reads = true);
    let mut client = f.client("repo:1");
    // As many as there are workers, and as may be on their way to them.
    let stuck: Vec<_> = (0..4).map(|_| client.queue_read(&id(1), 0, 3).unwrap()).collect();
    for ticket in stuck {
        let error = client.wait(ticket).unwrap_err();
        assert_eq!(error.status(), Some(Status::Timeout));
    }
    // Others have taken their places.
    for _ in 0..10 {
        client.info().unwrap();
    }
    f.cache.change(|state| state.hold_reads = false);
    assert_eq!(client.read(&id(1), 0, 3).unwrap(), "abc");
    assert_eq!(client.unclaimed_replies(), 0, "nothing is answered twice");
}

#[test]
fn a_request_answered_with_a_timeout_never_runs() {
    let mut limits = Limits::default();
    limits.request_deadline = Some(Duration::from_millis(50));
    let f = serve_with(1, limits);
    f.cache.insert(id(1), "abc");
    let mut client = f.client("repo:1");
    let part = vec![7; client.max_object_size()];
    f.cache.change(|state| state.hold_writes = true);
    let mut upload = client.begin_upload(NewUpload::new(id(2)));
    let first = upload.submit(&mut client, part, false).unwrap();
    let second = upload.submit(&mut client, "end", true).unwrap();
    for ticket in [first, second] {
        assert_eq!(client.wait(ticket).unwrap_err().status(), Some(Status::Timeout));
    }
    f.cache.change(|state| state.hold_writes = false);
    // The second part was waiting for the first one.
    client.quit().unwrap();
    f.cache.wait_until(|state| state.open_uploads == 0);
    assert!(!f.cache.state().objects.contains_key(&id(2)));
}

/// A plugin whose answers panic when they are dropped.
struct Bomb;

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        &[0; 8192]
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("panic on purpose");
    }
}

impl CachePlugin for Bomb {
    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
        Err(Status::NoEntry)
    }

    fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
        Ok(Bytes::from_owner(Bomb).into())
    }
}

#[test]
fn a_reply_that_panics_when_it_is_dropped_ends_no_connection() {
    let directory = tempfile::tempdir().unwrap();
    let locator = Locator::Unix(directory.path().join("socket"));
    // The server would drop the plugin, too.
    let running = Server::builder(Bomb).listen(&locator).unwrap().spawn().unwrap();
    let mut bystander = Client::connect(&locator, "repo:1").unwrap();
    let mut client = Client::connect(&locator, "evil:1").unwrap();
    for _ in 0..2 {
        assert_eq!(client.read(&id(1), 0, 8192).unwrap().len(), 8192);
    }
    assert!(!bystander.exists(&id(1)).unwrap());
    drop(running);
}
