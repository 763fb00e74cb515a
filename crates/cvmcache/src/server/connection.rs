//! A connection: reads frames, passes requests to the service, and writes replies.
//!
//! A connection does a bounded amount of work in a turn, so that none keeps the others waiting. It
//! takes no more requests while too many of its replies are unread or too many of its requests are
//! in flight: then the bytes wait in the socket, and the client with them (backpressure).
//!
//! It knows neither workers nor other connections. Jobs leave as values through [`Dispatch`], at once and
//! not in a list after the turn: a worker begins with the first while the second is decoded. What comes of
//! them comes back through [`Connection::on_completed`].

mod outbox;
mod shutdown;

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cvmcache_proto::{Decoder, DecoderLimits, Frame, Operation, Reply, Request, ServerMessage};
use mio::{Registry, Token};
use tracing::{debug, error, trace_span};

use super::socket::{Received, Socket};
use super::telemetry::{Answered, Recorders, RequestRecord, SessionCounters, Tally};
use super::workers::{Completed, Job, Outcome, Ticket, TimedOut};
use crate::Session;
use crate::service::{Action, OpenSession, Peer, Service};
use outbox::Outbox;
use shutdown::{CloseReason, Phase};

/// How many reads and frames a turn handles, at most.
const TURN_STEPS: usize = 256;

/// So many bytes of replies are sent before the next request is taken: what they were read into is
/// used again while it is in the processor's cache, and the client need not wait for the rest.
const SENT_AT_ONCE: usize = 64 * 1024;

/// What a connection has in a turn.
pub(crate) struct Context<'a> {
    pub(crate) service: &'a Service,
    /// `None`: callbacks run in the turn.
    pub(crate) workers: Option<WorkerAccess<'a>>,
    pub(crate) recorders: Recorders<'a>,
    /// The time, which passes in a turn: callbacks run in it.
    pub(crate) clock: fn() -> Instant,
    /// How long the turn may take.
    pub(crate) time: Duration,
    /// How much memory the connection may hold before no more of its requests are taken.
    pub(crate) memory: usize,
}

/// How a connection hands jobs over.
pub(crate) struct WorkerAccess<'a> {
    /// How many requests it may still hand over in this turn.
    pub(crate) jobs: usize,
    pub(crate) workers: &'a mut dyn Dispatch,
}

/// Workers, as a connection sees them.
pub(crate) trait Dispatch {
    /// Handles a request at once, if it need not wait.
    fn try_handle(&self, open: &OpenSession, request: &Request) -> Option<Reply>;

    /// Hands a job over.
    fn dispatch(&mut self, job: Job, ticket: Ticket);
}

/// What comes of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is more to do at once.
    Again,
    /// An event has to come first: readiness of the socket, or the completion of a job.
    Wait,
    /// There are requests, and the workers have enough to do.
    WaitForWorker,
    /// The connection is over, and so is its session.
    Over,
}

/// What is known of the bytes that the client sends. `epoll` is edge-triggered: it reports once that
/// there are some, so the socket is read until it is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadHalf {
    /// The last read emptied the socket: `epoll` reports what comes next.
    Drained,
    /// There may be bytes in the socket.
    Readable,
    /// The same, and they end with an end of file. `epoll` has reported that and will not do so again.
    HungUp,
}

/// Whether the client takes replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteHalf {
    Open {
        /// It has taken bytes since [`Connection::take_progress`].
        has_progressed: bool,
    },
    /// It takes no more replies. It may still have sent requests of importance, such as an Ioctl.
    Closed,
}

/// The requests that workers have, or will have.
#[derive(Debug, Default)]
struct Load {
    requests: usize,
    /// The memory that they and their replies take.
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Connection {
    token: Token,
    /// `None` once it is aborted.
    socket: Option<Socket>,
    decoder: Decoder,
    outbox: Outbox,
    peer: Peer,
    in_flight: Load,
    /// A request that waits for a worker. What comes after it waits in the socket.
    waiting: Option<(Job, Ticket)>,
    listing_part: usize,
    /// How much memory it may hold, as of the last turn.
    max_held: usize,
    /// How much it takes, as of [`Connection::count_memory`].
    counted: usize,
    /// It has had a turn since [`Connection::release_if_idle`].
    is_active: bool,
    read_half: ReadHalf,
    write_half: WriteHalf,
    /// `epoll` reports when the socket takes bytes again.
    awaits_writable: bool,
    phase: Phase,
    counters: Arc<SessionCounters>,
}

impl Connection {
    pub(crate) fn new(
        token: Token,
        socket: Socket,
        peer: Peer,
        service: &Service,
        counters: Arc<SessionCounters>,
    ) -> Self {
        let mut limits = DecoderLimits::default();
        limits.max_attachment = service.limits().max_object_size as usize;
        limits.max_message = service.limits().max_message;
        Self {
            token,
            socket: Some(socket),
            decoder: Decoder::new(limits),
            outbox: Outbox::new(limits.max_attachment),
            peer,
            in_flight: Load::default(),
            waiting: None,
            listing_part: service.limits().listing_part,
            max_held: service.limits().max_buffered,
            counted: 0,
            is_active: true,
            read_half: ReadHalf::Drained,
            write_half: WriteHalf::Open { has_progressed: false },
            awaits_writable: false,
            phase: Phase::Open,
            counters,
        }
    }

    /// True as long as requests are taken.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The client's session, from its handshake on.
    pub(crate) fn open_session(&self) -> Option<&Arc<OpenSession>> {
        self.peer.session()
    }

    /// How many of its requests are in flight.
    pub(crate) fn requests_in_flight(&self) -> usize {
        self.in_flight.requests
    }

    /// How many bytes of replies the client has not taken.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.outbox.len()
    }

    /// How much memory it takes: for what arrives, for requests in flight, and for replies. What an
    /// empty buffer keeps for the next bytes counts, too.
    pub(crate) fn held(&self) -> usize {
        let waiting = self.waiting.as_ref().map_or(0, |(_, ticket)| ticket.weight);
        self.decoder.held() + waiting + self.in_flight.bytes + self.outbox.held()
    }

    /// Corrects the memory of all connections by what has changed in this one.
    pub(crate) fn count_memory(&mut self, all: &mut usize) {
        let held = self.held();
        *all = (*all + held).saturating_sub(mem::replace(&mut self.counted, held));
    }

    /// Publishes what it holds, for other threads.
    pub(crate) fn publish(&self) {
        if let Some(open) = self.peer.session() {
            self.counters.set_session(open);
        }
        self.counters.in_flight.set(self.in_flight.requests as u64);
        self.counters.unsent_bytes.set(self.outbox.len() as u64);
        self.counters.buffered_bytes.set(self.counted as u64);
    }

    /// How much memory it took when that was last counted.
    pub(crate) fn counted(&self) -> usize {
        self.counted
    }

    /// Frees the memory of empty buffers, if there has been no turn since this was last called. True if
    /// there has been one, and this is to be called again.
    pub(crate) fn release_if_idle(&mut self) -> bool {
        let was_active = mem::take(&mut self.is_active);
        if !was_active {
            self.decoder.release();
            self.outbox.release();
        }
        was_active
    }

    /// Notes what `epoll` has reported.
    pub(crate) fn set_ready(&mut self, is_readable: bool, has_hung_up: bool) {
        if has_hung_up {
            self.read_half = ReadHalf::HungUp;
        } else if is_readable && self.read_half == ReadHalf::Drained {
            self.read_half = ReadHalf::Readable;
        }
    }

    /// Has `epoll` report writability for as long as replies wait for it, and no longer: otherwise, each
    /// reply that the client takes would wake the thread.
    pub(crate) fn update_interest(&mut self, registry: &Registry) {
        let is_blocked = !self.outbox.is_empty();
        if is_blocked == self.awaits_writable {
            return;
        }
        let Some(socket) = &mut self.socket else { return };
        match socket.reregister(registry, self.token, is_blocked) {
            Ok(()) => self.awaits_writable = is_blocked,
            Err(error) => error!(%error, connection = self.token.0, "cannot change the interest"),
        }
    }

    /// Asks the client to detach, if it has a session and reads what it is sent.
    pub(crate) fn ask_detach(&mut self, service: &Service) {
        let unread = self.outbox.queued() >= service.limits().max_buffered;
        if self.is_open() && self.peer.session().is_some() && !unread {
            self.outbox.push(ServerMessage::Detach);
        }
    }

    /// True if the client has taken something since this was last called.
    pub(crate) fn take_progress(&mut self) -> bool {
        match &mut self.write_half {
            WriteHalf::Open { has_progressed } => mem::take(has_progressed),
            WriteHalf::Closed => false,
        }
    }

    /// Gives up uploads that are idle.
    pub(crate) fn sweep_uploads(&self, service: &Service) {
        self.peer.session().into_iter().for_each(|open| service.sweep(open));
    }

    /// Aborts uploads that were given up, at most so many; returns how many.
    pub(crate) fn abort_idle_uploads(&self, service: &Service, at_most: usize) -> usize {
        self.peer.session().map_or(0, |open| service.abort_idle(open, at_most))
    }

    /// A worker has done a job. The next turn goes on from here.
    pub(crate) fn on_completed(
        &mut self,
        completed: Completed,
        recorders: Recorders<'_>,
        now: Instant,
    ) {
        match completed.outcome {
            Outcome::SessionEnded => self.phase = Phase::Ended,
            Outcome::Reply(reply) => {
                self.release(&completed.ticket);
                if completed.is_late {
                    Outbox::discard(reply);
                } else {
                    self.answer_late(recorders, &completed.ticket, reply, now);
                }
            }
            Outcome::Usage(_) | Outcome::Called => {}
        }
    }

    /// A request took too long.
    pub(crate) fn on_timed_out(
        &mut self,
        timed_out: TimedOut,
        recorders: Recorders<'_>,
        now: Instant,
    ) {
        if timed_out.is_over {
            self.release(&timed_out.ticket);
        }
        self.answer_late(recorders, &timed_out.ticket, timed_out.reply, now);
    }

    /// Answers a request outside of the connection's turn, whose spans the log has for it.
    fn answer_late(
        &mut self,
        recorders: Recorders<'_>,
        ticket: &Ticket,
        reply: ServerMessage,
        now: Instant,
    ) {
        let _connection = trace_span!("connection", number = self.token.0).entered();
        let _session = self.session().map(|session| trace_span!("session", %session).entered());
        let _request = ticket.record.map(|it| trace_span!("request", number = it.number).entered());
        let answered = match (ticket.tally, &reply) {
            (Some(tally), ServerMessage::Reply(reply)) => Some(tally.answered(&reply.body)),
            _ => None,
        };
        self.answer(reply);
        let Some(answered) = answered else { return };
        self.measure(recorders, answered, now.saturating_duration_since(ticket.received));
        if let Some(record) = ticket.record {
            record.record(answered, recorders.metrics, now);
        }
    }

    fn release(&mut self, ticket: &Ticket) {
        self.in_flight.requests -= 1;
        self.in_flight.bytes -= ticket.weight;
    }

    /// Does some work: takes requests, sends replies.
    pub(crate) fn turn(&mut self, context: &mut Context<'_>) -> Turn {
        let _connection = trace_span!("connection", number = self.token.0).entered();
        let _session = self.session().map(|session| trace_span!("session", %session).entered());
        self.is_active = true;
        self.max_held = context.memory;
        let mut turn = Turn::Wait;
        if self.is_open() {
            match self.take_requests(context) {
                Ok(next) => turn = next,
                Err(reason) => self.close(context.service, reason),
            }
        }
        self.send();
        if !self.is_open() {
            let now = (context.clock)();
            return self.poll_shutdown(context, now);
        }
        // Replies that could not be sent hold requests back; `epoll` reports when they can.
        if self.has_backpressure(context.service) { Turn::Wait } else { turn }
    }

    /// Takes requests until there are none, or enough for this turn.
    fn take_requests(&mut self, context: &mut Context<'_>) -> Result<Turn, CloseReason> {
        let mut now = (context.clock)();
        let end = now + context.time;
        let mut send_at = SENT_AT_ONCE;
        for _ in 0..TURN_STEPS {
            if now > end || self.has_backpressure(context.service) {
                return Ok(Turn::Again);
            }
            if !self.dispatch_waiting(context) {
                return Ok(Turn::WaitForWorker);
            }
            match self.decoder.next_frame()? {
                Some(frame) => {
                    let answered = self.take(context, frame, now)?;
                    let received = mem::replace(&mut now, (context.clock)());
                    if let Some(answered) = answered {
                        let latency = now.saturating_duration_since(received);
                        self.measure(context.recorders, answered, latency);
                    }
                    if self.outbox.len() >= send_at {
                        self.send();
                        send_at = self.outbox.len() + SENT_AT_ONCE;
                    }
                }
                None if self.read_half == ReadHalf::Drained => return Ok(Turn::Wait),
                None => {
                    self.read()?;
                    // To empty the socket takes no time that counts; many reads of a large frame do.
                    if self.read_half != ReadHalf::Drained {
                        now = (context.clock)();
                    }
                }
            }
        }
        Ok(Turn::Again)
    }

    /// Hands over the request that waits for a worker, if there is one. False if it goes on to wait.
    fn dispatch_waiting(&mut self, context: &mut Context<'_>) -> bool {
        let Some(access) = &mut context.workers else { return true };
        let Some((job, ticket)) = self.waiting.take_if(|_| access.jobs > 0) else {
            return self.waiting.is_none();
        };
        access.jobs -= 1;
        self.in_flight.requests += 1;
        self.in_flight.bytes += ticket.weight;
        access.workers.dispatch(job, ticket);
        true
    }

    /// True if the client has to wait before more of its requests are taken.
    ///
    /// Invariant: then there are requests in flight or replies to send, so that a completion or an event
    /// ends the wait. What the decoder holds does not count here: a part that is half received is
    /// received to its end, since it takes its memory until then.
    fn has_backpressure(&self, service: &Service) -> bool {
        self.in_flight.requests >= service.limits().max_in_flight
            || self.outbox.queued() + self.in_flight.bytes >= self.max_held
    }

    fn read(&mut self) -> Result<(), CloseReason> {
        let socket = self.socket.as_ref().ok_or(CloseReason::Eof)?;
        match socket.receive(self.decoder.buffer())? {
            Received::Eof => return Err(CloseReason::Eof),
            Received::Full(_) => {}
            // A short read means that the socket is empty. `epoll` reports what comes next, but
            // an end of file only once.
            Received::Drained(len) if len > 0 && self.read_half == ReadHalf::HungUp => {}
            Received::Drained(_) => self.read_half = ReadHalf::Drained,
        }
        Ok(())
    }

    /// Takes a message of the client. Returns what is to be measured of it, if it is answered now.
    fn take(
        &mut self,
        context: &mut Context<'_>,
        frame: Frame,
        now: Instant,
    ) -> Result<Option<Answered>, CloseReason> {
        let recorders = context.recorders;
        let is_recorded = RequestRecord::is_wanted(recorders.metrics);
        match self.peer.receive(context.service, frame) {
            Action::Answer(message) => {
                let record = is_recorded.then(|| RequestRecord::of_answer(&message, now));
                let answered = Answered::by(&message);
                self.answer(message);
                if let Some(record) = record {
                    record.record(answered, recorders.metrics, (context.clock)());
                }
                Ok(Some(answered))
            }
            Action::Handle(open, request) => {
                // The record is made within this span, which its line in the log has.
                let _request = trace_span!("request", number = request.id).entered();
                let tally = Tally::of(&request);
                let record = is_recorded.then(|| RequestRecord::of(&request, now));
                let reply = match &context.workers {
                    None => context.service.handle(&open, request),
                    Some(access) => match access.workers.try_handle(&open, &request) {
                        Some(reply) => reply,
                        None => {
                            let weight = self.weight(&request);
                            let tally = Some(tally);
                            let ticket = Ticket { received: now, weight, tally, record };
                            self.waiting = Some((Job::Handle(open, request), ticket));
                            return Ok(None);
                        }
                    },
                };
                let answered = tally.answered(&reply.body);
                self.answer(ServerMessage::Reply(reply));
                if let Some(record) = record {
                    record.record(answered, recorders.metrics, (context.clock)());
                }
                Ok(Some(answered))
            }
            Action::Quit => Err(CloseReason::Quit),
            Action::Nothing => Ok(None),
        }
    }

    /// Counts a request that was answered. Each one pays for a call otherwise.
    #[inline(always)]
    fn measure(&self, recorders: Recorders<'_>, answered: Answered, latency: Duration) {
        recorders.statistics.record(answered, latency);
        self.counters.record(answered);
    }

    fn answer(&mut self, message: ServerMessage) {
        match self.write_half {
            WriteHalf::Open { .. } => self.outbox.push(message),
            WriteHalf::Closed => Outbox::discard(message),
        }
    }

    /// Sends what the socket takes.
    fn send(&mut self) {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.outbox.is_empty()) else { return };
        match self.outbox.flush(socket) {
            Ok(true) => self.write_half = WriteHalf::Open { has_progressed: true },
            Ok(false) => {}
            Err(error) => {
                debug!(%error, session = ?self.session(), "cannot send");
                self.close_write_half();
            }
        }
    }

    /// The memory that a request and the largest reply to it take.
    fn weight(&self, request: &Request) -> usize {
        match &request.operation {
            Operation::Store(part) => part.data.len(),
            Operation::Read { size, .. } => *size as usize,
            Operation::List { .. } => self.listing_part,
            _ => 0,
        }
    }

    fn session(&self) -> Option<&Session> {
        self.peer.session().map(|open| open.session())
    }
}

#[cfg(test)]
mod tests;
