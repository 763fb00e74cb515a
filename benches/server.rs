//! What a request costs from end to end, next to a bare socket that carries as many bytes in the
//! same run: the difference is what the SDK adds.
//!
//! For figures that compare plugins, with percentiles, there is `cvmcache bench`.

#[path = "support/shelf.rs"]
mod shelf;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use cvmcache::client::Client;
use cvmcache::{Limits, Locator, RunningServer, Server};
use cvmcache_proto::{ClientMessage, Operation, Reply, ReplyBody, Request, ServerMessage, frame};
use shelf::{OBJECT, Shelf, upload};

const LOOK: Operation = Operation::Refcount { object: OBJECT, change_by: 0 };
const READ: Operation = Operation::Read { object: OBJECT, offset: 0, size: 128 * 1024 };

struct Served {
    running: Option<RunningServer>,
    client: Client,
    _directory: tempfile::TempDir,
}

impl Served {
    fn start(backend: Duration, workers: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let locator = Locator::Unix(directory.path().join("socket"));
        let server = Server::builder(Shelf::with_backend(backend)).workers(workers);
        let running = server.listen(&locator).expect("a socket").spawn().expect("a server");
        let client = Client::connect(&locator, "bench:1").expect("a session");
        Self { running: Some(running), client, _directory: directory }
    }

    /// Has so many requests under way, and waits for all of them.
    fn ask(&mut self, operation: &Operation, in_flight: usize) {
        let queue = |_| self.client.queue(operation.clone()).expect("it is queued");
        let tickets: VecDeque<_> = (0..in_flight).map(queue).collect();
        for ticket in tickets {
            self.client.wait(ticket).expect("an answer");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.handle().terminate();
            running.wait().expect("a clean end");
        }
    }
}

/// Two ends of a socket: the other answers as many bytes with as many as a plugin would.
struct Bare {
    socket: Option<UnixStream>,
    request: Vec<u8>,
    reply: Vec<u8>,
    thread: Option<JoinHandle<()>>,
}

impl Bare {
    fn start(operation: &Operation, body: ReplyBody) -> Self {
        let request = Request { session: 1, id: 1000, operation: operation.clone() };
        let (message, attachment) = ClientMessage::Request(request).into_wire();
        let request = framed(message, attachment.len());
        let (message, attachment) = ServerMessage::Reply(Reply { id: 1000, body }).into_wire();
        let reply = framed(message, attachment.len());
        let (socket, mut other) = UnixStream::pair().expect("a pair of sockets");
        let (mut received, sent) = (vec![0; request.len()], reply.clone());
        let thread = thread::spawn(move || {
            while other.read_exact(&mut received).is_ok() && other.write_all(&sent).is_ok() {}
        });
        Self { socket: Some(socket), request, reply, thread: Some(thread) }
    }

    fn ask(&mut self) {
        let socket = self.socket.as_mut().expect("it is there until the end");
        socket.write_all(&self.request).expect("it is sent");
        socket.read_exact(&mut self.reply).expect("an answer");
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.socket = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a clean end");
        }
    }
}

/// The bytes of a frame with an attachment of zeros.
fn framed(message: cvmcache_proto::WireMessage, attachment: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(message, attachment, &mut bytes).expect("it fits into a frame");
    bytes.resize(bytes.len() + attachment, 0);
    bytes
}

fn end_to_end(criterion: &mut Criterion) {
    let mut served = Served::start(Duration::ZERO, 0);
    let mut group = criterion.benchmark_group("end to end");
    let data = vec![0; 128 * 1024];
    let read = ReplyBody::Read { result: Ok(data.into()), data_crc32: None };
    for (name, operation, body) in
        [("look", LOOK, ReplyBody::Refcount(Ok(()))), ("read 128 KiB", READ, read)]
    {
        group.bench_function(name, |b| b.iter(|| served.ask(&operation, 1)));
        let mut bare = Bare::start(&operation, body);
        group.bench_function(format!("{name}, bare socket"), |b| b.iter(|| bare.ask()));
    }
    group.bench_function("32 looks in flight", |b| b.iter(|| served.ask(&LOOK, 32)));
    let part = vec![7; Limits::default().max_object_size as usize];
    let store = upload(part);
    group.bench_function("store 256 KiB", |b| b.iter(|| served.ask(&store, 1)));
    let mut bare = Bare::start(&store, ReplyBody::Store { result: Ok(()), part: 1 });
    group.bench_function("store 256 KiB, bare socket", |b| b.iter(|| bare.ask()));
    group.finish();
}

/// A request after another, of sixteen that are under way all the time and each wait 1 ms for a
/// backend.
fn backend(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("backend of 1 ms, 16 in flight");
    for workers in [1, 16] {
        let mut served = Served::start(Duration::from_millis(1), workers);
        let client = &mut served.client;
        let queue = |client: &mut Client| client.queue(LOOK).expect("it is queued");
        let mut under_way: VecDeque<_> = (0..16).map(|_| queue(client)).collect();
        group.bench_function(format!("{workers} workers"), |b| {
            b.iter(|| {
                let oldest = under_way.pop_front().expect("sixteen are under way");
                client.wait(oldest).expect("an answer");
                under_way.push_back(queue(client));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, end_to_end, backend);
criterion_main!(benches);
