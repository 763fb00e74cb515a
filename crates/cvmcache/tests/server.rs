//! A server and its clients over real sockets, in one process.

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use cvmcache::client::{
    Client, ClientError, ClientMessage, Connection, NewUpload, Operation, ReplyBody, Request,
    ServerMessage,
};
use cvmcache::plugin::*;
use cvmcache::{Limits, ListenError, Locator, Running, Server, ServerError};
use cvmcache_proto::frame;
use cvmcache_proto::wire::{self, Msg, MsgHash};
use support::{Fault, TestCache, id};

/// A cache with a server, on a unix socket of its own.
struct Fixture {
    cache: TestCache,
    running: Option<Running>,
    locator: Locator,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

fn serve(workers: usize) -> Fixture {
    serve_with(workers, Limits::default())
}

fn serve_with(workers: usize, limits: Limits) -> Fixture {
    let cache = TestCache::default();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("socket");
    let locator = Locator::Unix(socket.clone());
    let builder = Server::builder(cache.clone()).workers(workers).limits(limits);
    let running = builder.listen(&locator).expect("a socket").spawn().expect("a server");
    Fixture { cache, running: Some(running), locator, socket, _directory: directory }
}

impl Fixture {
    fn client(&self, name: &'static str) -> Client {
        let builder = Client::builder().name(name).timeout(Duration::from_secs(20));
        builder.connect(&self.locator).expect("a session")
    }

    fn connection(&self) -> Connection {
        Connection::connect(&self.locator).expect("a connection")
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    fn end(&mut self) {
        let running = self.running.take().expect("it runs");
        running.control().terminate();
        running.wait().expect("a clean end");
    }
}

fn framed(msg: Msg) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(msg, 0, &mut bytes).expect("a frame");
    bytes
}

fn hash(byte: u8) -> Option<MsgHash> {
    Some(id(byte).into())
}

#[test]
fn objects_are_stored_and_read_on_every_kind_of_socket() {
    for locator in ["tcp=127.0.0.1:0", "tcp=[::1]:0", "tcp=localhost:0", "tcp=:0", "unix"] {
        for workers in [0, 4] {
            let directory = tempfile::tempdir().unwrap();
            let locator = match locator {
                "unix" => Locator::Unix(directory.path().join("socket")),
                tcp => tcp.parse().unwrap(),
            };
            let builder = Server::builder(TestCache::default()).workers(workers);
            let listening = builder.listen(&locator).unwrap();
            let locator = listening.locator().unwrap();
            let running = listening.spawn().unwrap();
            let mut client = Client::connect(&locator, "repo:1").unwrap();
            let data = Bytes::from_iter((0..700_000u32).map(|i| (i / 7) as u8));
            client.store(NewUpload::new(id(1)), data.clone()).unwrap();
            assert_eq!(client.read_all(&id(1)).unwrap(), data, "{locator}");
            client.close(&id(1)).unwrap();
            let is_local = matches!(locator, Locator::Unix(_));
            assert_eq!(client.plugin_pid(), is_local.then(|| std::process::id().into()));
            client.quit().unwrap();
            running.control().terminate();
            running.wait().unwrap();
        }
    }
}

#[test]
fn what_makes_no_sense_is_answered_and_the_connection_stays() {
    let f = serve(0);
    let mut client = f.client("repo:1");
    let session = client.session();
    let (session_id, req_id) = (Some(session), Some(9));
    let unknown_algorithm = MsgHash { algorithm: Some(4), digest: Some(vec![0; 20]) };
    let short_digest = MsgHash { algorithm: Some(1), digest: Some(vec![0; 19]) };
    let connection = client.connection_mut();
    for msg in [
        Msg::RefcountReq(wire::MsgRefcountReq { session_id, req_id, ..Default::default() }),
        Msg::ReadReq(wire::MsgReadReq {
            session_id,
            req_id,
            object_id: Some(unknown_algorithm),
            offset: Some(0),
            size: Some(1),
        }),
        Msg::ObjectInfoReq(wire::MsgObjectInfoReq {
            session_id,
            req_id,
            object_id: Some(short_digest),
        }),
        Msg::ListReq(wire::MsgListReq {
            session_id,
            req_id,
            listing_id: Some(0),
            object_type: Some(3),
        }),
        Msg::StoreReq(wire::MsgStoreReq {
            session_id,
            req_id,
            object_id: hash(1),
            part_nr: Some(1),
            last_part: Some(true),
            description: Some(vec![b'x'; 9_000_000]),
            ..Default::default()
        }),
        Msg::BreadcrumbStoreReq(wire::MsgBreadcrumbStoreReq {
            session_id,
            req_id,
            breadcrumb: None,
        }),
        Msg::ShrinkReq(wire::MsgShrinkReq { session_id, req_id, shrink_to: None }),
    ] {
        connection.send_raw(&framed(msg.clone())).unwrap();
        let reply = connection.receive().unwrap().expect("an answer");
        let ServerMessage::Reply(reply) = reply else { panic!("{reply:?}") };
        assert_eq!(reply.id, 9);
        let status = match reply.body {
            ReplyBody::Refcount(result) => result,
            ReplyBody::Read { result, .. } => result.map(|_| ()),
            ReplyBody::ObjectInfo(result) => result.map(|_| ()),
            ReplyBody::List { result, .. } | ReplyBody::Shrink { result, .. } => result,
            ReplyBody::Store { result, part } => {
                assert_eq!(part, 1);
                result
            }
            ReplyBody::Breadcrumb(result) => result.map(|_| ()),
            other => panic!("{other:?}"),
        };
        assert_eq!(status, Err(Status::Malformed));
    }
    // Nobody waits for an answer to these.
    for nonsense in [
        vec![0x01, 3, 0, 0, 0xfa, 0x01, 0],
        vec![0x81, 3, 0, 0, 0, 0, 7],
        framed(Msg::Detach(wire::MsgDetach {})),
        framed(Msg::InfoReply(wire::MsgInfoReply::default())),
        framed(Msg::Ioctl(wire::MsgIoctl::default())),
        framed(Msg::Quit(wire::MsgQuit { session_id: Some(session + 1) })),
    ] {
        connection.send_raw(&nonsense).unwrap();
    }
    // A message that is broken off inside still says who asked.
    let mut broken =
        framed(Msg::InfoReq(wire::MsgInfoReq { session_id, req_id, ..Default::default() }));
    broken.push(0xff);
    broken[1] += 1;
    connection.send_raw(&broken).unwrap();
    let Some(ServerMessage::Reply(reply)) = connection.receive().unwrap() else { panic!() };
    assert_eq!((reply.id, reply.body), (9, ReplyBody::Info(Err(Status::Malformed))));
    // An attachment that is too large is skipped, and answered.
    let too_large = Request {
        session,
        id: 10,
        operation: Operation::Store(cvmcache_proto::StorePart {
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
fn half_a_frame_keeps_nobody_waiting() {
    let f = serve(0);
    let mut bystander = f.client("repo:1");
    let mut slow: Vec<_> = (0..100).map(|_| f.connection()).collect();
    let handshake = framed(Msg::Handshake(wire::MsgHandshake {
        protocol_version: Some(1),
        name: Some(b"slow:1".to_vec()),
        flags: None,
    }));
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
fn a_client_that_does_not_read_is_not_read_from_and_harms_nobody() {
    let mut limits = Limits::default();
    limits.max_unsent = 512 * 1024;
    let f = serve_with(0, limits);
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
        let (msg, _) = read(number).into_wire();
        frames.extend(framed(msg));
    }
    connection.send_raw(&frames).unwrap();
    for _ in 0..100 {
        bystander.info().unwrap();
    }
    // What the socket holds and the limit allows for, of 125 MiB in all.
    assert!(reads() < 100, "{} reads were answered to nobody", reads());
    for number in 0..READS {
        match connection.receive().unwrap() {
            Some(ServerMessage::Reply(reply)) => assert_eq!(reply.id, number),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_was_asked_before_the_end_of_the_input_is_answered() {
    for workers in [0, 4] {
        let f = serve(workers);
        f.cache.insert(id(1), vec![7; 100_000]);
        let client = f.client("repo:1");
        let session = client.session();
        let mut connection = client.into_connection();
        for number in 0..500 {
            let operation = Operation::Read { object: id(1), offset: 0, size: 100_000 };
            connection
                .queue(ClientMessage::Request(Request { session, id: number, operation }))
                .unwrap();
        }
        connection.shutdown_write().unwrap();
        let mut answered = 0;
        while let Some(message) = connection.receive().unwrap() {
            assert!(matches!(message, ServerMessage::Reply(_)));
            answered += 1;
        }
        assert_eq!(answered, 500);
    }
}

#[test]
fn the_end_of_a_connection_ends_what_its_session_held() {
    for workers in [0, 4] {
        let f = serve(workers);
        let mut client = f.client("repo:1");
        client.store(NewUpload::new(id(1)), "abc").unwrap();
        let part = vec![0; client.max_object_size()];
        let mut upload = client.begin_upload(NewUpload::new(id(2)));
        upload.write(&mut client, part).unwrap();
        assert_eq!(f.cache.left_open(), (1, 0));
        drop(client);
        f.cache.wait_until(|state| {
            state.open_uploads == 0 && state.objects.values().all(|object| object.references == 0)
        });
    }
}

#[test]
fn with_workers_a_slow_request_does_not_hold_up_others() {
    let f = serve(2);
    f.cache.insert(id(1), "abc");
    f.cache.change(|state| state.hold_reads = true);
    let mut client = f.client("repo:1");
    let slow = client.queue_read(&id(1), 0, 3).unwrap();
    client.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads == 1);
    client.info().unwrap();
    f.cache.change(|state| state.hold_reads = false);
    assert_eq!(client.wait(slow).unwrap().into_bytes(), "abc");
}

#[test]
fn as_many_callbacks_run_at_once_as_there_are_workers() {
    let f = serve(8);
    f.cache.insert(id(1), "abc");
    f.cache.change(|state| state.hold_reads = true);
    let mut client = f.client("repo:1");
    let tickets: Vec<_> = (0..8).map(|_| client.queue_read(&id(1), 0, 3).unwrap()).collect();
    client.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads == 8);
    f.cache.change(|state| state.hold_reads = false);
    for ticket in tickets {
        client.wait(ticket).unwrap();
    }
}

#[test]
fn with_workers_what_builds_on_each_other_keeps_its_order() {
    let f = serve(4);
    f.cache.insert(id(1), "abc");
    let mut client = f.client("repo:1");
    let tickets: Vec<_> = (0..1000)
        .map(|number| {
            let change_by = if number % 2 == 0 { 1 } else { -1 };
            client.queue(Operation::Refcount { object: id(1), change_by }).unwrap()
        })
        .collect();
    for ticket in tickets {
        assert_eq!(client.wait(ticket).unwrap(), ReplyBody::Refcount(Ok(())));
    }
    // The parts of an upload, sent without waiting for each other.
    let part = client.max_object_size();
    let mut upload = client.begin_upload(NewUpload::new(id(2)));
    let parts: Vec<_> = (0..20)
        .map(|number| upload.submit(&mut client, vec![number; part], false).unwrap())
        .collect();
    for ticket in parts {
        client.wait(ticket).unwrap();
    }
    upload.commit(&mut client, Bytes::new()).unwrap();
    let data = client.read_all(&id(2)).unwrap();
    assert!(data.chunks(part).enumerate().all(|(n, part)| part.iter().all(|b| *b == n as u8)));
}

#[test]
fn all_sessions_are_asked_to_detach() {
    let f = serve(0);
    let mut clients = [f.client("a:1"), f.client("b:1")];
    let mut silent = f.connection();
    f.running().control().ask_detach();
    for client in &mut clients {
        client.wait_for_detach().unwrap();
    }
    // Who has not shaken hands is not ready for it.
    silent.send(ClientMessage::Handshake { protocol_version: 1, name: None }).unwrap();
    let first = silent.receive().unwrap();
    assert!(matches!(first, Some(ServerMessage::HandshakeAck(_))), "{first:?}");
    // The plugin has a handle of its own.
    let control = f.cache.state().control.clone().expect("it was handed over");
    control.ask_detach();
    clients[0].wait_for_detach().unwrap();
}

#[test]
fn the_end_answers_what_is_under_way_and_removes_the_socket() {
    let mut f = serve(2);
    f.cache.insert(id(1), "abc");
    f.cache.change(|state| state.hold_reads = true);
    let mut client = f.client("repo:1");
    client.open(&id(1)).unwrap();
    let slow = client.queue_read(&id(1), 0, 3).unwrap();
    client.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads == 1);
    f.running().control().terminate();
    // Nobody new gets in, although it has not ended yet.
    while UnixStream::connect(&f.socket).is_ok() {}
    f.cache.change(|state| state.hold_reads = false);
    assert_eq!(client.wait(slow).unwrap().into_bytes(), "abc");
    assert!(matches!(client.info(), Err(ClientError::Closed)));
    f.end();
    assert!(!f.socket.exists());
    assert_eq!(f.cache.references(id(1)), 0);
    // Handles do no harm any more.
    f.cache.state().control.clone().expect("it was handed over").terminate();
}

#[test]
fn the_end_does_not_wait_for_ever_for_a_callback() {
    let mut limits = Limits::default();
    limits.shutdown_grace = Duration::from_millis(100);
    let mut f = serve_with(1, limits);
    f.cache.insert(id(1), "abc");
    f.cache.change(|state| state.hold_reads = true);
    let mut client = f.client("repo:1");
    let _ticket = client.queue_read(&id(1), 0, 3).unwrap();
    client.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads > 0);
    f.end();
    f.cache.change(|state| state.hold_reads = false);
}

#[test]
fn the_end_does_not_wait_for_ever_for_a_client() {
    let mut limits = Limits::default();
    limits.shutdown_grace = Duration::from_millis(100);
    let mut f = serve_with(0, limits);
    f.cache.insert(id(1), vec![0; 128 * 1024]);
    let mut client = f.client("repo:1");
    let tickets: Vec<_> =
        (0..100).map(|_| client.queue_read(&id(1), 0, 128 * 1024).unwrap()).collect();
    client.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads > tickets.len() / 4);
    f.end();
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
fn a_supervised_server_ends_with_its_last_client() {
    let directory = tempfile::tempdir().unwrap();
    let locator = Locator::Unix(directory.path().join("socket"));
    let cache = TestCache::default();
    let builder = Server::builder(cache.clone()).supervised(true);
    let running = builder.listen(&locator).unwrap().spawn().unwrap();
    let first = Client::connect(&locator, "repo:1").unwrap();
    let mut second = Client::connect(&locator, "repo:2").unwrap();
    second.store(NewUpload::new(id(1)), "abc").unwrap();
    first.quit().unwrap();
    // While a client is away, nobody is connected, and the server stays.
    let reload = second.announce_reload().unwrap();
    let mut second = Client::finish_reload(reload).unwrap();
    second.close(&id(1)).unwrap();
    assert_eq!(cache.references(id(1)), 0);
    second.quit().unwrap();
    running.wait().unwrap();
    assert!(!directory.path().join("socket").exists());
}

#[test]
fn the_socket_belongs_to_one_server_and_one_user() {
    let mut f = serve(0);
    let mode = fs::metadata(&f.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = Server::builder(TestCache::default()).listen(&f.locator);
    let error = second.unwrap_err();
    assert!(matches!(&error, ServerError::Listen(ListenError::InUse { .. })), "{error}");
    assert!(error.to_string().contains("stop it, or choose another locator"));
    f.client("repo:1").info().unwrap();
    f.end();
    // Now it is free again.
    let listening = Server::builder(TestCache::default()).listen(&f.locator).unwrap();
    assert!(f.socket.exists());
    drop(listening);
    assert!(!f.socket.exists());
}

#[test]
fn a_port_belongs_to_one_server() {
    let first = Server::builder(TestCache::default()).listen(&"tcp=127.0.0.1:0".parse().unwrap());
    let locator = first.as_ref().unwrap().locator().unwrap();
    let error = Server::builder(TestCache::default()).listen(&locator).unwrap_err();
    assert!(matches!(error, ServerError::Listen(ListenError::InUse { .. })), "{error}");
}

#[test]
fn what_a_killed_plugin_left_behind_is_replaced_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let locator = Locator::Unix(path.clone());
    // Nobody removes this one.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listening = Server::builder(TestCache::default()).listen(&locator).unwrap();
    drop(listening);
    fs::write(&path, "precious").unwrap();
    let error = Server::builder(TestCache::default()).listen(&locator).unwrap_err();
    assert!(matches!(&error, ServerError::Listen(ListenError::NotASocket { .. })), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn paths_that_fit_into_no_address_work() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("d".repeat(200));
    fs::create_dir(&long).unwrap();
    for path in [long.join("s"), long.join("n".repeat(250)), directory.path().join("n".repeat(120))]
    {
        let locator = Locator::Unix(path.clone());
        let listening = Server::builder(TestCache::default()).listen(&locator).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let running = listening.spawn().unwrap();
        Client::connect(&locator, "repo:1").unwrap().info().unwrap();
        running.control().terminate();
        running.wait().unwrap();
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        let sockets = left.iter().filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            !name.to_string_lossy().ends_with(".lock") && name.len() < 200
        });
        assert_eq!(sockets.count(), 0, "{left:?}");
    }
}

#[test]
fn a_limit_out_of_bounds_is_named() {
    for size in [0, 4095, 512 * 1024 + 1] {
        let mut limits = Limits::default();
        limits.max_object_size = size;
        let builder = Server::builder(TestCache::default()).limits(limits);
        let error = builder.listen(&"unix=/nowhere/socket".parse().unwrap()).unwrap_err();
        let expected = format!("max_object_size is {size}, but must be from 4096 to 524288");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_place_where_nobody_can_listen_is_named() {
    let error = |locator: &str| {
        let listening = Server::builder(TestCache::default()).listen(&locator.parse().unwrap());
        listening.unwrap_err().to_string()
    };
    let nowhere = error("unix=/nowhere/at/all/socket");
    assert!(nowhere.contains("unix=/nowhere/at/all/socket"), "{nowhere}");
    assert!(nowhere.contains("lock file"), "{nowhere}");
    let unknown = error("tcp=no-such-host.invalid:1");
    assert!(unknown.contains("does not resolve"), "{unknown}");
}

#[test]
fn a_connection_that_is_closed_without_a_word_is_forgotten() {
    let f = serve(0);
    for _ in 0..200 {
        drop(UnixStream::connect(&f.socket).unwrap());
    }
    let mut half = UnixStream::connect(&f.socket).unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(half.read(&mut [0; 1]).unwrap(), 0);
    f.client("repo:1").info().unwrap();
}
