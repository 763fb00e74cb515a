//! One client: bytes in, requests to the service, answers out.
//!
//! A connection does a bounded amount of work per turn, so that none keeps the others waiting. It
//! takes no more requests while too many of its answers are unread or too many of its requests
//! are under way: then the bytes wait in the socket, and the client with them.

mod outbox;
mod shutdown;

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cvmcache_proto::{Decoder, DecoderLimits, Frame, Operation, Request, ServerMessage, Status};
use mio::Token;
use tracing::{debug, trace_span};

use crate::Session;
use crate::server::socket::{Received, Socket};
use crate::server::telemetry::request_metrics::{Metrics, Outcome as Answered, RequestMetrics};
use crate::server::workers::in_flight::InFlight;
use crate::server::workers::ordering::OrderingKey;
use crate::server::workers::pool::{Call, Done, Job, Outcome, Work, Workers};
use crate::service::{Action, OpenSession, Peer, Service};
use outbox::Outbox;
use shutdown::{CloseReason, Phase};

/// How many reads and frames a turn handles, at most.
const TURN_STEPS: usize = 256;

/// So many bytes of answers are sent before the next request is taken: what they were read into is
/// used again while the processor still has it at hand, and the client need not wait for the rest.
const SENT_AT_ONCE: usize = 64 * 1024;

/// What a connection works with.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) service: &'a Service,
    /// `None`: callbacks run here and now.
    pub(crate) workers: Option<&'a Workers>,
    /// `None`: nothing is measured.
    pub(crate) meters: Option<&'a Metrics>,
    /// How long a turn may take.
    pub(crate) time: Duration,
    /// How many jobs it may submit.
    pub(crate) jobs: usize,
}

/// What comes of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is more to do at once.
    Again,
    /// Something has to happen first: the socket, or the end of a job.
    Wait,
    /// The workers have enough to do.
    WaitForWorker,
    /// The connection is over, and so is its session.
    Over,
}

#[derive(Debug)]
pub(crate) struct Connection {
    token: Token,
    /// `None` once there is nobody to talk to.
    socket: Option<Socket>,
    decoder: Decoder,
    outbox: Outbox,
    peer: Peer,
    calls: InFlight,
    listing_part: usize,
    /// There may be bytes in the socket.
    readable: bool,
    /// The peer has closed its side: what is readable ends with an end of file.
    hung_up: bool,
    /// The peer takes no more answers. It may still have said something of importance.
    is_deaf: bool,
    has_progressed: bool,
    stage: Phase,
    /// It stands in the event loop's queue.
    pub(crate) is_queued: bool,
    /// It stands in line for the workers.
    pub(crate) is_waiting: bool,
    /// It has come to the front of that line.
    pub(crate) is_granted: bool,
}

impl Connection {
    pub(crate) fn new(token: Token, socket: Socket, peer: Peer, service: &Service) -> Self {
        let mut limits = DecoderLimits::default();
        limits.max_attachment = service.limits().max_object_size as usize;
        limits.max_message = service.limits().max_message;
        Self {
            token,
            socket: Some(socket),
            decoder: Decoder::new(limits),
            outbox: Outbox::new(limits.max_attachment),
            peer,
            calls: InFlight::default(),
            listing_part: service.limits().listing_part,
            readable: false,
            hung_up: false,
            is_deaf: false,
            has_progressed: false,
            stage: Phase::Open,
            is_queued: false,
            is_waiting: false,
            is_granted: false,
        }
    }

    /// True as long as requests are taken.
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Phase::Open
    }

    /// The client's session, how many of its requests are under way, and how many bytes of
    /// answers it has not taken.
    pub(crate) fn session_and_load(&self) -> Option<(&Arc<OpenSession>, usize, usize)> {
        self.peer.session().map(|open| (open, self.calls.len(), self.unsent()))
    }

    pub(crate) fn unsent(&self) -> usize {
        self.outbox.held()
    }

    /// Notes what the poll has seen.
    pub(crate) fn notice(&mut self, readable: bool, hung_up: bool) {
        self.readable |= readable;
        self.hung_up |= hung_up;
    }

    /// Looks for bytes that the poll has not told of. True if there is something for a turn.
    pub(crate) fn look(&mut self, service: &Service) -> bool {
        // Who waits for workers has requests in the decoder, and needs no more.
        if !self.is_open() || self.is_waiting || self.is_backed_up(service) {
            return false;
        }
        let Some(socket) = &self.socket else { return false };
        match socket.receive(self.decoder.buffer()) {
            Ok(Received::Drained(len)) => len > 0,
            // The turn finds the rest, or the end.
            _ => {
                self.readable = true;
                true
            }
        }
    }

    /// Asks the client to detach, if it is one and reads what it is sent.
    pub(crate) fn ask_detach(&mut self, service: &Service) {
        let unread = self.outbox.held() >= service.limits().max_buffered;
        if self.is_open() && self.peer.session().is_some() && !unread {
            self.outbox.push(ServerMessage::Detach);
        }
    }

    /// True if the client has taken something since this was last asked.
    pub(crate) fn has_progressed(&mut self) -> bool {
        mem::take(&mut self.has_progressed)
    }

    /// A worker has finished a job. The next turn goes on from here.
    pub(crate) fn done(&mut self, workers: &Workers, meters: Option<&Metrics>, done: Done) {
        match done.outcome {
            Outcome::SessionEnded => self.stage = Phase::Ended,
            Outcome::Replied { serial, reply } => match self.calls.done(serial) {
                Some(subject) => self.answer_measured(meters, subject, reply),
                None => workers.recovered(),
            },
            Outcome::Usage(_) => {}
        }
        if let Some((call, lane)) = done.lane.and_then(|lane| self.calls.next_in(lane)) {
            self.submit(workers, call, lane);
        }
    }

    /// Gives up uploads that no part has come for.
    pub(crate) fn sweep(&self, service: &Service) {
        self.peer.session().into_iter().for_each(|open| service.sweep(open));
    }

    /// Answers requests that have been under way for longer than `deadline`.
    pub(crate) fn expire_calls(
        &mut self,
        workers: &Workers,
        meters: Option<&Metrics>,
        deadline: Duration,
    ) {
        for overdue in self.calls.expire(deadline) {
            if overdue.is_submitted {
                workers.replace();
            }
            let answer = overdue.envelope.fail(Status::Timeout);
            self.answer_measured(meters, overdue.subject, answer);
        }
    }

    /// Does some work: takes requests, sends answers.
    pub(crate) fn turn(&mut self, context: &Context<'_>) -> Turn {
        let _connection = trace_span!("connection", number = self.token.0).entered();
        let _session = self.session().map(|session| trace_span!("session", %session).entered());
        let mut turn = Turn::Wait;
        if self.is_open() {
            match self.take_requests(context) {
                Ok(next) => turn = next,
                Err(end) => self.end_of_input(context.service, end),
            }
        }
        self.send();
        if !self.is_open() {
            return self.wind_up(context);
        }
        // Answers that could not be sent hold requests back; the socket tells when it can.
        if self.is_backed_up(context.service) { Turn::Wait } else { turn }
    }

    /// Takes requests until there are none, or enough for this turn.
    fn take_requests(&mut self, context: &Context<'_>) -> Result<Turn, CloseReason> {
        let begun = Instant::now();
        let calls_before = self.calls.len();
        let mut send_at = SENT_AT_ONCE;
        for _ in 0..TURN_STEPS {
            if self.is_backed_up(context.service) || begun.elapsed() > context.time {
                return Ok(Turn::Again);
            }
            // Without a session there is nothing for workers to do, but to let a client in.
            let has_session = self.peer.session().is_some();
            if context.workers.is_some()
                && has_session
                && self.calls.len() - calls_before >= context.jobs
            {
                return Ok(Turn::WaitForWorker);
            }
            match self.decoder.next_frame()? {
                Some(frame) => {
                    self.take(context, frame)?;
                    if self.outbox.len() >= send_at {
                        self.send();
                        send_at = self.outbox.len() + SENT_AT_ONCE;
                    }
                }
                None if !self.readable => return Ok(Turn::Wait),
                None => self.read()?,
            }
        }
        Ok(Turn::Again)
    }

    /// True if the client has to wait before more of its requests are taken.
    fn is_backed_up(&self, service: &Service) -> bool {
        let limits = service.limits();
        self.calls.len() >= limits.max_in_flight
            || self.outbox.held() + self.calls.bytes() >= limits.max_buffered
    }

    fn read(&mut self) -> Result<(), CloseReason> {
        let socket = self.socket.as_ref().ok_or(CloseReason::Eof)?;
        match socket.receive(self.decoder.buffer())? {
            Received::Eof => return Err(CloseReason::Eof),
            Received::Full(_) => {}
            // Less than asked for means that there is no more, and that the poll tells of what
            // comes; but not again of an end of file that it has told of.
            Received::Drained(len) => self.readable = self.hung_up && len > 0,
        }
        Ok(())
    }

    fn take(&mut self, context: &Context<'_>, frame: Frame) -> Result<(), CloseReason> {
        let measured = context.meters.map(|meters| (meters, Instant::now()));
        match self.peer.receive(context.service, frame) {
            Action::Answer(message) => {
                let subject = measured.map(|(_, since)| RequestMetrics::of_answer(&message, since));
                self.answer_measured(context.meters, subject, message);
            }
            Action::Handle(open, request) => {
                let _request = trace_span!("request", number = request.id).entered();
                match (context.workers, measured) {
                    // Where nobody looks at them, request and reply are moved less often.
                    (None, None) => {
                        let reply = context.service.handle(&open, request);
                        self.answer(ServerMessage::Reply(reply));
                    }
                    (None, Some((meters, since))) => {
                        let subject = RequestMetrics::of(&request, since);
                        let answer = ServerMessage::Reply(context.service.handle(&open, request));
                        self.answer_measured(Some(meters), Some(subject), answer);
                    }
                    (Some(workers), _) => {
                        let subject =
                            measured.map(|(_, since)| RequestMetrics::of(&request, since));
                        self.call(workers, open, request, subject);
                    }
                }
            }
            Action::Quit => return Err(CloseReason::Quit),
            Action::Nothing => {}
        }
        Ok(())
    }

    /// Hands a request to the workers, in its turn.
    fn call(
        &mut self,
        workers: &Workers,
        open: Arc<OpenSession>,
        request: Request,
        subject: Option<RequestMetrics>,
    ) {
        let bytes = self.weight(&request);
        if let Some((call, lane)) = self.calls.begin(open, request, bytes, subject) {
            self.submit(workers, call, lane);
        }
    }

    fn submit(&self, workers: &Workers, call: Call, lane: Option<OrderingKey>) {
        workers.submit(Job { token: self.token, work: Work::Call(call), lane });
    }

    #[inline(never)]
    fn answer_measured(
        &mut self,
        meters: Option<&Metrics>,
        subject: Option<RequestMetrics>,
        message: ServerMessage,
    ) {
        // The answer is large: it is looked at before it goes, and moved once.
        let measured = meters.zip(subject).map(|it| (it, Answered::of(&message)));
        self.answer(message);
        if let Some(((meters, subject), outcome)) = measured {
            meters.answered(subject, outcome);
        }
    }

    fn answer(&mut self, message: ServerMessage) {
        if !self.is_deaf {
            self.outbox.push(message);
        }
    }

    /// Sends what the socket takes.
    fn send(&mut self) {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.outbox.is_empty()) else { return };
        match self.outbox.flush(socket) {
            Ok(has_progressed) => self.has_progressed |= has_progressed,
            Err(error) => {
                debug!(%error, session = ?self.session(), "cannot send");
                self.turn_deaf();
            }
        }
    }

    /// The memory that a request and the largest answer to it take.
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
