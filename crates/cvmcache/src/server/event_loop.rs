//! The I/O thread: waits for sockets and workers, and gives every connection its turn.
//!
//! A connection goes by a token that is never used again, so that nothing that comes late, be it
//! an event or a worker's answer, can reach another one. The poll is edge-triggered: a connection
//! that has more to do than one turn allows stands in the queue, and everybody in the queue gets
//! one turn between two looks at the poll.

mod overview;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use tracing::{debug, error, info, warn};

use super::connection::{Connection, Context, Turn};
use super::door::{Door, LISTENER};
use super::heartbeat::Pulse;
use super::mailbox::{Inbox, Note};
use super::meters::Meters;
use super::polling::Polling;
use super::workers::{Outcome, Workers};
use crate::server_handle::{Command, ServerHandle};
use crate::service::{Peer, Service};
use overview::Overview;

pub(super) const WAKER: Token = Token(0);

/// How long a round of turns takes, at most: everybody gets an equal part of it. One more callback
/// may be under way when a turn is over.
const ROUND: Duration = Duration::from_millis(20);
const LONGEST_TURN: Duration = Duration::from_millis(2);
const SHORTEST_TURN: Duration = Duration::from_micros(100);

pub(super) struct EventLoop {
    pub(super) poll: Poll,
    pub(super) inbox: Inbox,
    pub(super) handle: ServerHandle,
    /// Shut once the server is about to end.
    pub(super) door: Door,
    /// This process, for clients on the same machine.
    pub(super) pid: Option<u64>,
    pub(super) service: Arc<Service>,
    pub(super) workers: Option<Workers>,
    /// Ends with the last client.
    pub(super) supervised: bool,
    pub(super) polling: Polling,
    pub(super) pulse: Pulse,
    /// `None`: nothing is measured.
    pub(super) meters: Option<Meters>,
    /// What clients are told, escaped.
    pub(super) name: String,
    pub(super) begun: Instant,
    pub(super) state: State,
}

/// What changes as the loop goes on.
#[derive(Debug, Default)]
pub(super) struct State {
    connections: HashMap<Token, Connection>,
    /// Who wants a turn. A token may outlive its connection here.
    queue: VecDeque<Token>,
    /// Who had the last turn.
    latest: Option<Token>,
    /// Who has requests when the workers have enough to do; first come, first served.
    waiting: VecDeque<Token>,
    /// Who gets no more than a grace, and until when; the earliest first.
    closing: VecDeque<(Instant, Token)>,
    /// When to look for uploads without parts, and for requests that take too long.
    next_sweep: Option<Instant>,
    next_check: Option<Instant>,
    overview: Overview,
    /// When to end, whoever is still there.
    deadline: Option<Instant>,
}

impl State {
    /// Lets a connection know of something, and puts it in the queue. It may have gone meanwhile.
    fn call(&mut self, token: Token, tell: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.connections.get_mut(&token) {
            tell(connection);
            if !mem::replace(&mut connection.is_queued, true) {
                self.queue.push_back(token);
            }
        }
    }

    fn call_all(&mut self, mut tell: impl FnMut(&mut Connection)) {
        let everybody: Vec<_> = self.connections.keys().copied().collect();
        everybody.into_iter().for_each(|token| self.call(token, &mut tell));
    }
}

impl EventLoop {
    pub(super) fn run(mut self) -> io::Result<()> {
        let result = self.serve();
        // On the way out after a failure, clients must not find a socket with nobody behind it.
        self.door.shut();
        let all_idle = self.state.connections.is_empty();
        if !all_idle {
            warn!(left = self.state.connections.len(), "ended before all callbacks had");
        }
        self.state.connections.clear();
        if let Some(workers) = self.workers.take() {
            workers.stop(all_idle && !self.state.overview.is_asking());
        }
        result
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !self.is_over() {
            self.wait(&mut events)?;
            for event in &events {
                match event.token() {
                    WAKER => {}
                    LISTENER => self.door.call(),
                    token => {
                        let hung_up = event.is_read_closed() || event.is_error();
                        let readable = event.is_readable() || hung_up;
                        self.state.call(token, |connection| connection.notice(readable, hung_up));
                    }
                }
            }
            self.read_notes();
            self.expire();
            self.accept();
            self.grant();
            self.take_turns();
            self.sweep_uploads();
            self.check_calls();
            self.pulse.beat(self.state.connections.len());
            self.measure();
        }
        Ok(())
    }

    /// Waits for events, or until there is something else to do.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = self.timeout();
        if timeout != Some(Duration::ZERO)
            && let Some(until) = self.polling.begin()
        {
            while Instant::now() < until {
                if self.look() {
                    self.polling.paid();
                    events.clear();
                    return Ok(());
                }
                poll(&mut self.poll, events, Some(Duration::ZERO))?;
                if !events.is_empty() {
                    self.polling.paid();
                    return Ok(());
                }
            }
            self.polling.in_vain();
        }
        poll(&mut self.poll, events, timeout)
    }

    /// Looks whether the connection that had the last turn has something for another: a client that
    /// waits for its answers is the next to ask, and the poll need not be asked about it.
    fn look(&mut self) -> bool {
        let State { latest: Some(token), connections, .. } = &mut self.state else { return false };
        let token = *token;
        let found = connections.get_mut(&token).is_some_and(|c| c.look(&self.service));
        if found {
            self.state.call(token, |_| {});
        }
        found
    }

    fn is_over(&self) -> bool {
        let state = &self.state;
        self.door.is_shut()
            && (state.connections.is_empty()
                || state.deadline.is_some_and(|deadline| deadline <= Instant::now()))
    }

    /// How long to wait for events: not at all if there is work, else to the next deadline.
    fn timeout(&self) -> Option<Duration> {
        let state = &self.state;
        let can_grant = !state.waiting.is_empty() && self.room() > 0;
        if !state.queue.is_empty() || can_grant || self.door.is_waited_at() {
            return Some(Duration::ZERO);
        }
        let closing = state.closing.front().map(|(deadline, _)| *deadline);
        let timers = [self.door.again_at(), state.next_sweep, state.next_check, state.deadline];
        let beats = [closing, self.pulse.next(), state.overview.next()];
        let next = timers.into_iter().chain(beats).flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn read_notes(&mut self) {
        let (mut usage, mut report) = (None, false);
        // Drained first: a command that comes from now on wakes this thread again.
        for note in self.inbox.drain() {
            match note {
                Note::Done(done) => {
                    if let Some(workers) = &self.workers {
                        workers.done();
                        let meters = self.meters.as_ref();
                        match done.outcome {
                            Outcome::Usage(learned) => usage = Some(learned),
                            _ => self.state.call(done.token, |c| c.done(workers, meters, done)),
                        }
                    }
                }
            }
        }
        for command in self.handle.take() {
            match command {
                Command::AskDetach => {
                    info!(clients = self.state.connections.len(), "asking clients to detach");
                    self.state.call_all(|connection| connection.ask_detach(&self.service));
                }
                Command::Report => report = true,
                Command::Terminate if self.state.deadline.is_none() => {
                    info!(clients = self.state.connections.len(), "ending");
                    self.pulse.end();
                    self.door.shut();
                    self.state.deadline = Some(self.service.limits().shutdown_deadline());
                    self.state.call_all(|connection| connection.finish(&self.service));
                }
                Command::Terminate => {}
            }
        }
        if let Some(usage) = usage {
            self.learn_usage(usage);
        }
        if report {
            self.report();
        }
    }

    /// Gives up on clients that have not taken their last answers in time.
    fn expire(&mut self) {
        let state = &mut self.state;
        while let Some(&(deadline, token)) = state.closing.front() {
            if deadline > Instant::now() {
                break;
            }
            state.closing.pop_front();
            let Some(connection) = state.connections.get_mut(&token) else { continue };
            if connection.has_progressed() {
                state.closing.push_back((self.service.limits().shutdown_deadline(), token));
            } else {
                state.call(token, |connection| connection.abandon(&self.service));
            }
        }
    }

    /// Looks for uploads without parts, twice in the time that they are given.
    fn sweep_uploads(&mut self) {
        let state = &mut self.state;
        if is_due(&mut state.next_sweep, self.service.limits().upload_idle / 2) {
            for connection in state.connections.values() {
                connection.sweep(&self.service);
            }
        }
        if state.connections.is_empty() {
            state.next_sweep = None;
        }
    }

    /// Looks for requests that take too long, four times in the time that they are given.
    fn check_calls(&mut self) {
        let (Some(workers), Some(deadline)) =
            (&self.workers, self.service.limits().request_deadline)
        else {
            return;
        };
        if is_due(&mut self.state.next_check, deadline / 4) {
            let meters = self.meters.as_ref();
            self.state.call_all(|c| c.expire_calls(workers, meters, deadline));
            self.expire_question(deadline);
        }
        if !self.workers.as_ref().is_some_and(Workers::are_busy) {
            self.state.next_check = None;
        }
    }

    fn accept(&mut self) {
        let Self { door, poll, state, service, pid, meters, .. } = self;
        door.accept(poll.registry(), |token, socket| {
            debug!(connection = token.0, "connection accepted");
            meters.iter().for_each(Meters::connected);
            let connection = Connection::new(token, socket, Peer::new(*pid), service);
            state.connections.insert(token, connection);
        });
    }

    /// Lets as many who wait for workers submit a job as there is room for.
    fn grant(&mut self) {
        for _ in 0..self.room() {
            let Some(token) = self.state.waiting.pop_front() else { break };
            self.state.call(token, |connection| {
                connection.is_waiting = false;
                connection.is_granted = true;
            });
        }
    }

    fn room(&self) -> usize {
        self.workers.as_ref().map_or(0, Workers::room)
    }

    /// One turn for everybody in the queue.
    fn take_turns(&mut self) {
        let turns = self.state.queue.len();
        let time = (ROUND / turns.max(1) as u32).clamp(SHORTEST_TURN, LONGEST_TURN);
        let mut closed = false;
        if turns > 0 {
            self.service.set_clock(self.begun.elapsed());
        }
        for _ in 0..turns {
            let Some(token) = self.state.queue.pop_front() else { break };
            let Some(connection) = self.state.connections.get_mut(&token) else { continue };
            connection.is_queued = false;
            self.state.latest = Some(token);
            let was_open = connection.is_open();
            let jobs = match (mem::take(&mut connection.is_granted), self.state.waiting.is_empty())
            {
                (true, _) => 1,
                (false, true) => self.workers.as_ref().map_or(0, Workers::room),
                (false, false) => 0,
            };
            let workers = self.workers.as_ref();
            let meters = self.meters.as_ref();
            let context = Context { service: &self.service, workers, meters, time, jobs };
            let turn = turn_or_abandon(connection, &context).unwrap_or_else(|| {
                error!(connection = token.0, "connection given up after a panic");
                Turn::Over
            });
            if was_open && !connection.is_open() {
                let deadline = self.service.limits().shutdown_deadline();
                self.state.closing.push_back((deadline, token));
            }
            match turn {
                Turn::Again => self.state.call(token, |_| {}),
                Turn::WaitForWorker => {
                    if !mem::replace(&mut connection.is_waiting, true) {
                        self.state.waiting.push_back(token);
                    }
                }
                Turn::Wait => {}
                Turn::Over => {
                    debug!(connection = token.0, "connection closed");
                    self.state.connections.remove(&token);
                    closed = true;
                }
            }
        }
        if closed {
            self.door.has_room();
            self.end_with_last_client();
        }
    }

    fn end_with_last_client(&mut self) {
        if !self.supervised || self.door.is_shut() || self.service.pending_reloads() > 0 {
            return;
        }
        // Somebody may be at the door, but nobody comes in behind them.
        self.door.close();
        self.accept();
        if self.state.connections.is_empty() {
            info!("the last client has gone");
            self.pulse.end();
            self.door.shut();
            return;
        }
        self.door.reopen(self.poll.registry());
    }
}

/// A signal is as good as an event that nobody knows.
fn poll(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
    match poll.poll(events, timeout) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result,
    }
}

/// Gives a connection its turn. What a plugin has answered with is dropped there, and may be of its
/// own making: should that panic, only this connection ends, and its session as it should. `None`
/// if even that panics.
fn turn_or_abandon(connection: &mut Connection, context: &Context<'_>) -> Option<Turn> {
    catch_unwind(AssertUnwindSafe(|| connection.turn(context)))
        .or_else(|_| {
            catch_unwind(AssertUnwindSafe(|| {
                connection.abandon(context.service);
                Turn::Again
            }))
        })
        .ok()
}

/// True if it is time, which it is once in every `period`; the first time after one has passed.
fn is_due(next: &mut Option<Instant>, period: Duration) -> bool {
    let now = Instant::now();
    let due = next.is_some_and(|next| next <= now);
    if due || next.is_none() {
        *next = Some(now + period.max(SHORTEST_PERIOD));
    }
    due
}

const SHORTEST_PERIOD: Duration = Duration::from_millis(1);
