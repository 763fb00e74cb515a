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
use cvmcache::{CachePlugin, Locator, Server, Session};
use cvmcache_proto::{RawMessage, Reply};
use support::served::serve;
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
