use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use cvmcache_proto::{ClientMessage, HashAlgorithm, ObjectId, Reply, ReplyBody, Status, frame};
use rustix::net::sockopt::set_socket_send_buffer_size;

use super::*;
use crate::Limits;
use crate::server::accept::Origin;
use crate::server::telemetry::Statistics;
use crate::server::testing;

/// A connection over a socket pair, whose peer the test is. Neither side waits for the other.
struct Fixture {
    service: Arc<Service>,
    statistics: Statistics,
    connection: Connection,
    peer: UnixStream,
    decoder: Decoder,
    /// `None`: callbacks run in the turn.
    jobs: Option<usize>,
    dispatched: Vec<(Job, Ticket)>,
    /// Reads need no worker.
    is_ready: bool,
    /// How long a turn may take.
    time: Duration,
    next_id: u64,
}

struct FakeWorkers<'a> {
    service: &'a Service,
    dispatched: &'a mut Vec<(Job, Ticket)>,
    is_ready: bool,
}

impl Dispatch for FakeWorkers<'_> {
    fn try_handle(&self, open: &OpenSession, request: &Request) -> Option<Reply> {
        let read = matches!(request.operation, Operation::Read { .. });
        (self.is_ready && read).then(|| self.service.handle(open, request.clone()))
    }

    fn dispatch(&mut self, job: Job, ticket: Ticket) {
        self.dispatched.push((job, ticket));
    }
}

impl Fixture {
    fn new(limits: Limits, jobs: Option<usize>) -> Self {
        let service = testing::service_with(limits);
        let (ours, peer) = UnixStream::pair().unwrap();
        for socket in [&ours, &peer] {
            socket.set_nonblocking(true).unwrap();
        }
        let socket = Socket::Unix(mio::net::UnixStream::from_std(ours));
        let counters = Arc::new(SessionCounters::new(Origin::Process(None)));
        let connection = Connection::new(Token(2), socket, Peer::new(None), &service, counters);
        let (decoder, statistics) = (Decoder::new(DecoderLimits::default()), Statistics::default());
        let (dispatched, time, next_id) = (Vec::new(), Duration::from_secs(3600), 0);
        let is_ready = false;
        Self {
            service,
            statistics,
            connection,
            peer,
            decoder,
            jobs,
            dispatched,
            is_ready,
            time,
            next_id,
        }
    }

    /// The same, after the handshake.
    fn with_session(limits: Limits, jobs: Option<usize>) -> Self {
        let mut f = Self::new(limits, jobs);
        f.send(ClientMessage::Handshake { protocol_version: 1, name: None });
        f.turn();
        assert!(matches!(f.received()[..], [ServerMessage::HandshakeAck(_)]));
        f
    }

    fn send(&mut self, message: ClientMessage) {
        let (message, attachment) = message.into_wire();
        let mut bytes = bytes::BytesMut::new();
        frame::encode(message, attachment.len(), &mut bytes).unwrap();
        bytes.extend_from_slice(&attachment);
        self.peer.write_all(&bytes).unwrap();
        self.connection.set_ready(true, false);
    }

    fn session(&self) -> u64 {
        self.connection.session().expect("after the handshake").id()
    }

    fn request(&mut self, operation: Operation) {
        self.next_id += 1;
        let request = Request { session: self.session(), id: self.next_id, operation };
        self.send(ClientMessage::Request(request));
    }

    fn read_request(&mut self, size: u32) {
        let object = ObjectId::new(HashAlgorithm::Sha1, [1; 20]);
        self.request(Operation::Read { object, offset: 0, size });
    }

    fn turn(&mut self) -> Turn {
        let Self { service, statistics, connection, jobs, dispatched, is_ready, time, .. } = self;
        let mut workers = FakeWorkers { service, dispatched, is_ready: *is_ready };
        let mut context = Context {
            service,
            workers: jobs.map(|jobs| WorkerAccess { jobs, workers: &mut workers }),
            recorders: Recorders { statistics, metrics: None },
            clock: Instant::now,
            time: *time,
            memory: service.limits().max_buffered,
        };
        connection.turn(&mut context)
    }

    /// What has arrived at the peer.
    fn received(&mut self) -> Vec<ServerMessage> {
        let mut bytes = [0; 4096];
        let mut messages = Vec::new();
        while let Ok(len @ 1..) = self.peer.read(&mut bytes) {
            let mut rest = &bytes[..len];
            while !rest.is_empty() {
                let buffer = self.decoder.buffer();
                let part = rest.len().min(buffer.capacity() - buffer.len());
                buffer.extend_from_slice(&rest[..part]);
                rest = &rest[part..];
                while let Some(frame) = self.decoder.next_frame().unwrap() {
                    messages.push(ServerMessage::from_frame(frame).unwrap());
                }
            }
        }
        messages
    }

    fn replies(&mut self) -> Vec<u64> {
        let id = |message| match message {
            ServerMessage::Reply(Reply { id, .. }) => id,
            other => panic!("{other:?}"),
        };
        self.received().into_iter().map(id).collect()
    }

    fn take_job(&mut self) -> (Job, Ticket) {
        self.dispatched.remove(0)
    }

    /// Completes the job that was dispatched first.
    fn complete(&mut self, is_late: bool) {
        let (job, ticket) = self.take_job();
        let outcome = match job {
            Job::Handle(open, request) => {
                Outcome::Reply(ServerMessage::Reply(self.service.handle(&open, request)))
            }
            Job::EndSession(open) => {
                assert!(self.service.end(&open, usize::MAX));
                Outcome::SessionEnded
            }
            Job::Usage | Job::Call(_) => panic!("a job of the server"),
        };
        let completed = Completed { token: Some(Token(2)), ticket, outcome, is_late };
        let recorders = Recorders { statistics: &self.statistics, metrics: None };
        self.connection.on_completed(completed, recorders, Instant::now());
    }
}

#[test]
fn without_workers_a_request_is_answered_in_the_turn() {
    let mut f = Fixture::with_session(Limits::default(), None);
    f.read_request(3);
    f.read_request(3);
    assert_eq!(f.turn(), Turn::Wait);
    assert_eq!(f.replies(), [1, 2]);
    assert_eq!(f.connection.read_half, ReadHalf::Drained);
}

#[test]
fn with_workers_a_request_leaves_as_a_job_and_its_reply_comes_back() {
    let mut f = Fixture::with_session(Limits::default(), Some(5));
    f.read_request(3);
    assert_eq!(f.turn(), Turn::Wait);
    assert_eq!(f.connection.requests_in_flight(), 1);
    assert_eq!(f.connection.in_flight.bytes, 3);
    assert!(f.replies().is_empty());
    f.complete(false);
    assert_eq!(f.connection.requests_in_flight(), 0);
    assert_eq!(f.turn(), Turn::Wait);
    assert_eq!(f.replies(), [1]);
    assert_eq!(f.connection.in_flight.bytes, 0);
}

#[test]
fn a_turn_dispatches_no_more_jobs_than_it_is_granted() {
    let mut f = Fixture::with_session(Limits::default(), Some(2));
    (0..3).for_each(|_| f.read_request(3));
    assert_eq!(f.turn(), Turn::WaitForWorker);
    assert_eq!(f.dispatched.len(), 2);
    f.jobs = Some(0);
    assert_eq!(f.turn(), Turn::WaitForWorker);
    assert_eq!(f.dispatched.len(), 2);
    f.jobs = Some(1);
    f.turn();
    assert_eq!(f.dispatched.len(), 3);
}

#[test]
fn a_request_that_is_handled_at_once_takes_no_job_and_ends_a_turn_in_its_time() {
    let mut f = Fixture::with_session(Limits::default(), Some(1));
    f.is_ready = true;
    (0..3).for_each(|_| f.read_request(3));
    assert_eq!(f.turn(), Turn::Wait);
    assert_eq!((f.replies(), f.connection.requests_in_flight()), (vec![1, 2, 3], 0));
    (0..100).for_each(|_| f.read_request(3));
    f.time = Duration::ZERO;
    assert_eq!(f.turn(), Turn::Again);
    assert!(f.replies().len() <= 1);
}

#[test]
fn requests_that_need_no_worker_are_answered_while_workers_have_no_room() {
    let mut f = Fixture::with_session(Limits::default(), Some(0));
    f.is_ready = true;
    f.read_request(3);
    assert_eq!(f.turn(), Turn::Wait);
    assert_eq!(f.replies(), [1]);
    let before = f.connection.held();
    f.request(Operation::Info);
    f.read_request(3);
    assert_eq!((f.turn(), f.turn()), (Turn::WaitForWorker, Turn::WaitForWorker));
    assert!(f.replies().is_empty() && f.dispatched.is_empty());
    assert_eq!(f.connection.held(), before, "the request waits, and its reply is small");
    f.jobs = Some(1);
    assert_eq!(f.turn(), Turn::Wait);
    assert_eq!((f.replies(), f.dispatched.len()), (vec![3], 1));
}

#[test]
fn a_request_that_waits_for_a_worker_ends_with_its_connection() {
    let mut f = Fixture::with_session(Limits::default(), Some(0));
    f.read_request(1000);
    assert_eq!(f.turn(), Turn::WaitForWorker);
    let waiting = f.connection.held();
    f.connection.drain(&f.service);
    assert_eq!(f.connection.held(), waiting - 1000);
    f.turn();
    assert!(matches!(f.dispatched[..], [(Job::EndSession(_), _)]));
}

#[test]
fn a_turn_ends_in_its_time_while_a_large_frame_is_received() {
    let mut f = Fixture::with_session(Limits::default(), None);
    // The beginning of a frame of 16 MiB, which is skipped in pieces.
    f.peer.write_all(&[0x01, 0xff, 0xff, 0xff]).unwrap();
    f.peer.write_all(&[0; 100_000]).unwrap();
    f.connection.set_ready(true, false);
    f.time = Duration::ZERO;
    assert_eq!(f.turn(), Turn::Again);
    f.time = Duration::from_secs(3600);
    assert_eq!(f.turn(), Turn::Wait, "all of it has arrived");
}

#[test]
fn a_connection_over_its_limit_on_requests_in_flight_is_not_read() {
    let limits = Limits { max_in_flight: 2, ..Limits::default() };
    let mut f = Fixture::with_session(limits, Some(100));
    (0..3).for_each(|_| f.read_request(3));
    assert_eq!(f.turn(), Turn::Wait);
    assert_eq!(f.dispatched.len(), 2);
    f.complete(false);
    f.turn();
    assert_eq!(f.dispatched.len(), 2, "the third one");
}

#[test]
fn a_connection_over_its_limit_on_memory_is_not_read() {
    let limits = Limits { max_buffered: 1, ..Limits::default() };
    let mut f = Fixture::with_session(limits, Some(100));
    (0..2).for_each(|_| f.read_request(3));
    assert_eq!(f.turn(), Turn::Wait);
    assert_eq!(f.dispatched.len(), 1, "one may exceed it");
}

#[test]
fn a_request_that_timed_out_is_answered_once_and_counts_until_its_worker_is_done() {
    let mut f = Fixture::with_session(Limits::default(), Some(5));
    f.read_request(3);
    f.turn();
    let (job, ticket) = &f.dispatched[0];
    let (Job::Handle(_, request), ticket) = (job, *ticket) else { panic!("a request") };
    let reply = request.envelope().fail(Status::Timeout);
    let timed_out = TimedOut { token: Token(2), ticket, reply, is_over: false };
    let recorders = Recorders { statistics: &f.statistics, metrics: None };
    f.connection.on_timed_out(timed_out, recorders, Instant::now());
    assert_eq!(f.connection.requests_in_flight(), 1);
    f.turn();
    let received = f.received();
    let [ServerMessage::Reply(reply)] = &received[..] else { panic!("{received:?}") };
    assert_eq!(reply.body, ReplyBody::Read { result: Err(Status::Timeout), data_crc32: None });
    f.complete(true);
    assert_eq!(f.connection.requests_in_flight(), 0);
    f.turn();
    assert!(f.replies().is_empty());
}

#[test]
fn after_an_end_of_file_requests_in_flight_are_waited_for_and_the_session_ends() {
    let mut f = Fixture::with_session(Limits::default(), Some(5));
    f.read_request(3);
    f.turn();
    f.peer.shutdown(std::net::Shutdown::Write).unwrap();
    f.connection.set_ready(true, true);
    assert_eq!(f.turn(), Turn::Wait);
    assert_eq!(f.connection.phase, Phase::Draining);
    f.complete(false);
    assert_eq!(f.turn(), Turn::Wait);
    assert_eq!(f.connection.phase, Phase::EndingSession);
    assert_eq!(f.replies(), [1], "it is still answered");
    f.complete(false);
    assert_eq!(f.turn(), Turn::Over);
}

#[test]
fn bytes_before_an_end_of_file_are_read_although_epoll_reports_it_once() {
    let mut f = Fixture::with_session(Limits::default(), None);
    f.read_request(3);
    f.peer.shutdown(std::net::Shutdown::Write).unwrap();
    f.connection.set_ready(true, true);
    assert_eq!(f.turn(), Turn::Over);
    assert_eq!(f.replies(), [1]);
}

#[test]
fn a_connection_whose_client_takes_no_replies_is_over_only_after_they_are_sent_or_it_is_aborted() {
    let mut f = Fixture::with_session(Limits::default(), None);
    let socket = f.connection.socket.as_ref().unwrap();
    set_socket_send_buffer_size(socket, 4096).unwrap();
    let quit = ClientMessage::Quit { session: f.session() };
    for _ in 0..2000 {
        f.read_request(3);
        f.turn();
    }
    f.send(quit);
    assert!(f.connection.unsent_bytes() > 0);
    assert!(f.connection.take_progress());
    assert!(!f.connection.take_progress());
    assert_eq!(f.turn(), Turn::Wait);
    assert_eq!(f.connection.phase, Phase::Ended);
    f.connection.abort(&f.service);
    assert_eq!(f.connection.unsent_bytes(), 0);
    assert_eq!(f.turn(), Turn::Over);
}

#[test]
fn a_client_that_has_closed_its_read_half_is_still_read() {
    let mut f = Fixture::with_session(Limits::default(), None);
    f.peer.shutdown(std::net::Shutdown::Read).unwrap();
    f.read_request(3);
    assert_eq!(f.turn(), Turn::Wait);
    assert_eq!(f.connection.write_half, WriteHalf::Closed);
    assert!(f.connection.is_open());
    f.send(ClientMessage::Quit { session: f.session() });
    assert_eq!(f.turn(), Turn::Over);
}

#[test]
fn bytes_that_are_no_frame_end_the_connection() {
    let mut f = Fixture::new(Limits::default(), None);
    f.peer.write_all(b"GET / HTTP/1.1").unwrap();
    f.connection.set_ready(true, false);
    assert_eq!(f.turn(), Turn::Over);
}

#[test]
fn a_detach_is_sent_only_to_a_connection_with_a_session() {
    let mut f = Fixture::new(Limits::default(), None);
    f.connection.ask_detach(&f.service);
    f.turn();
    assert!(f.received().is_empty());
    let mut f = Fixture::with_session(Limits::default(), None);
    f.connection.ask_detach(&f.service);
    f.turn();
    assert_eq!(f.received(), [ServerMessage::Detach]);
}

#[test]
fn after_a_burst_a_connection_holds_no_more_than_one_buffer_each_way() {
    let mut f = Fixture::with_session(Limits::default(), None);
    let socket = f.connection.socket.as_ref().unwrap();
    set_socket_send_buffer_size(socket, 4096).unwrap();
    let mut taken = 0;
    for _ in 0..15 {
        (0..100).for_each(|_| f.read_request(4096));
        f.turn();
    }
    assert!(f.connection.held() > 4 << 20, "{}", f.connection.held());
    while taken < 1500 {
        taken += f.replies().len();
        f.turn();
    }
    assert!(f.connection.held() <= 96 * 1024, "{}", f.connection.held());
    assert!(f.connection.release_if_idle(), "it has just been active");
    assert!(!f.connection.release_if_idle());
    assert_eq!(f.connection.held(), 0);
    f.read_request(3);
    f.turn();
    assert_eq!(f.replies().len(), 1);
}

#[test]
fn an_idle_connection_keeps_of_half_a_frame_what_was_received() {
    let mut f = Fixture::with_session(Limits::default(), None);
    let hello = ClientMessage::Handshake { protocol_version: 1, name: Some("a".into()) };
    let mut bytes = bytes::BytesMut::new();
    frame::encode(hello.into_wire().0, 0, &mut bytes).unwrap();
    let half = bytes.len() / 2;
    f.peer.write_all(&bytes[..half]).unwrap();
    f.connection.set_ready(true, false);
    f.turn();
    f.connection.release_if_idle();
    f.connection.release_if_idle();
    assert!(f.connection.held() < bytes.len(), "{}", f.connection.held());
    f.peer.write_all(&bytes[half..]).unwrap();
    f.connection.set_ready(true, false);
    f.turn();
    assert!(matches!(f.received()[..], [ServerMessage::HandshakeAck(_)]), "the frame is whole");
}
