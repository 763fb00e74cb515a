//! A server and its clients over real sockets, in one process.

mod support;

use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use bytes::Bytes;
use cvmcache::client::{
    Client, ClientMessage, Connection, NewUpload, Operation, ReplyBody, Request, ServerMessage,
};
use cvmcache::plugin::*;
use cvmcache::service::Trust;
use cvmcache::{CachePlugin, Locator, Server, Session};
use support::served::serve;
use support::{TestCache, id};

#[test]
fn objects_are_stored_and_read_on_every_kind_of_socket() {
    for locator in ["tcp=127.0.0.1:0", "tcp=[::1]:0", "tcp=localhost:0", "unix"] {
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
            running.handle().terminate();
            running.wait().unwrap();
        }
    }
}

#[test]
fn requests_before_an_end_of_file_are_answered() {
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
fn uploads_listings_and_references_end_with_the_connection() {
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
fn all_sessions_are_asked_to_detach() {
    let f = serve(0);
    let mut clients = [f.client("a:1"), f.client("b:1")];
    let mut silent = f.connection();
    f.running().handle().ask_detach();
    for client in &mut clients {
        client.wait_for_detach().unwrap();
    }
    // A connection without a handshake gets no detach.
    silent.send(ClientMessage::Handshake { protocol_version: 1, name: None }).unwrap();
    let first = silent.receive().unwrap();
    assert!(matches!(first, Some(ServerMessage::HandshakeAck(_))), "{first:?}");
    // The plugin has the same handle.
    f.cache.state().handle.ask_detach();
    clients[0].wait_for_detach().unwrap();
}

#[test]
fn with_workers_a_slow_callback_delays_no_other_request() {
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

/// A plugin whose reads wait for a message of the test.
struct Told(Mutex<Receiver<()>>);

impl CachePlugin for Told {
    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
        Ok(ObjectInfo::new(100_000, ObjectType::Regular))
    }

    fn read(&self, _: &Session, _: &ObjectId, _: u64, len: u32) -> PluginResult<Data> {
        let told = self.0.lock().map_err(|_| Status::IoErr)?.recv_timeout(Duration::from_secs(30));
        told.map_err(|_| Status::Timeout)?;
        Ok(vec![7; len as usize].into())
    }
}

#[test]
fn a_large_reply_does_not_wait_for_the_next_request() {
    let directory = tempfile::tempdir().unwrap();
    let locator = Locator::Unix(directory.path().join("socket"));
    let (tell, told) = mpsc::channel();
    let plugin = Told(Mutex::new(told));
    let running = Server::builder(plugin).workers(0).listen(&locator).unwrap().spawn().unwrap();
    let mut client = Client::builder().timeout(Duration::from_secs(20)).connect(&locator).unwrap();
    let first = client.queue_read(&id(1), 0, 100_000).unwrap();
    let second = client.queue_read(&id(1), 0, 100_000).unwrap();
    client.flush().unwrap();
    tell.send(()).unwrap();
    assert_eq!(client.wait(first).unwrap().len(), 100_000);
    tell.send(()).unwrap();
    assert_eq!(client.wait(second).unwrap().len(), 100_000);
    running.handle().terminate();
    running.wait().unwrap();
}

/// A plugin that requests workers. The size of its objects is 1 if the callback runs on a worker.
struct Waiting;

impl CachePlugin for Waiting {
    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
        let on_worker = std::thread::current().name() != Some("io");
        Ok(ObjectInfo::new(on_worker.into(), ObjectType::Regular))
    }

    fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
        Err(Status::NoEntry)
    }

    fn workers(&self) -> usize {
        2
    }
}

#[test]
fn the_workers_of_the_plugin_apply_unless_the_builder_sets_them() {
    for (workers, on_worker) in [(None, 1), (Some(1), 1), (Some(0), 0)] {
        let directory = tempfile::tempdir().unwrap();
        let locator = Locator::Unix(directory.path().join("socket"));
        let mut builder = Server::builder(Waiting);
        if let Some(count) = workers {
            builder = builder.workers(count);
        }
        let running = builder.listen(&locator).unwrap().spawn().unwrap();
        let mut client = Client::connect(&locator, "repo:1").unwrap();
        assert_eq!(client.object_info(&id(1)).unwrap().size, on_worker, "{workers:?}");
        running.handle().terminate();
        running.wait().unwrap();
    }
}

#[test]
fn with_workers_requests_with_one_ordering_key_run_in_order() {
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
fn with_relaxed_isolation_a_connection_uses_the_session_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let locator = Locator::Unix(directory.path().join("socket"));
    let cache = TestCache::default();
    cache.insert(id(1), "abc");
    let mut trust = Trust::default();
    trust.foreign_sessions = true;
    for workers in [0, 2] {
        let builder = Server::builder(cache.clone()).workers(workers).trust(trust);
        let running = builder.listen(&locator).unwrap().spawn().unwrap();
        let client = Client::connect(&locator, "repo:1").unwrap();
        let mut other = Connection::connect(&locator).unwrap();
        let operation = Operation::Refcount { object: id(1), change_by: 1 };
        let request = Request { session: client.session(), id: 7, operation };
        other.send(ClientMessage::Request(request)).unwrap();
        let Some(ServerMessage::Reply(reply)) = other.receive().unwrap() else { panic!() };
        assert_eq!(reply.body, ReplyBody::Refcount(Ok(())));
        assert_eq!(cache.references(id(1)), 1);
        // It is the session's, and ends with it.
        client.quit().unwrap();
        cache.wait_until(|state| state.objects[&id(1)].references == 0);
        running.handle().terminate();
        running.wait().unwrap();
    }
}
