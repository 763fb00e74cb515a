//! The I/O thread: waits for events, and gives every connection its turn.
//!
//! The loop alone knows all parts of the server, and carries values between them:
//!
//! - `accept` makes sockets, which become connections;
//! - a connection does as much as its turn allows and returns what it needs next; its jobs go to
//!   `workers`, and what comes of them goes back to it;
//! - [`Scheduler`] decides which connection has the next turn and which may hand over a job;
//! - [`Timers`] has all deadlines;
//! - `telemetry` gets values to record.
//!
//! A connection goes by a token that is never used again, so that nothing that comes late, be it
//! an event or the completion of a job, can reach another one.
//!
//! The clock is read when `epoll_wait` returns, and once more before it is called if there is a
//! timeout to compute; all parts are passed that time. Only a turn reads it by itself, because callbacks
//! may run in it.
//!
//! Invariant: no panic in a connection ends the loop: whatever may encode or drop a reply is called in
//! [`guarded`].

#[cfg(feature = "admin")]
mod calls;
mod deadlines;
mod status;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cvmcache_proto::{Reply, Request};
use mio::{Events, Poll, Token};
use tracing::{debug, error, info, warn};

use super::accept::{Acceptor, LISTENER};
#[cfg(feature = "admin")]
use super::admin::{AdminThreads, Calls};
use super::buffers::Buffers;
use super::busy_poll::BusyPoll;
use super::connection::{Connection, Context, Dispatch, Turn, WorkerAccess};
use super::scheduler::{self, Scheduler};
use super::telemetry::{
    Heartbeat, HeartbeatTimer, Metrics, Recorders, Reporter, Sessions, Statistics, WorkerLoad,
};
use super::timers::{Timer, Timers};
use super::waker::Waker;
use super::workers::{Job, Ticket, Workers};
use crate::ServerHandle;
use crate::service::{OpenSession, Peer, Service};

pub(crate) const WAKER: Token = Token(0);

pub(crate) struct EventLoop {
    pub(crate) poll: Poll,
    pub(crate) waker: Arc<Waker>,
    pub(crate) control: ServerHandle,
    pub(crate) service: Arc<Service>,
    /// Closed once the server shuts down.
    pub(crate) acceptor: Acceptor,
    /// `None`: callbacks run on this thread.
    pub(crate) workers: Option<Workers>,
    /// This process, for clients on the same machine.
    pub(crate) pid: Option<u64>,
    /// It shuts down with its last client.
    pub(crate) is_supervised: bool,
    pub(crate) busy_poll: BusyPoll,
    pub(crate) buffers: Buffers,
    pub(crate) telemetry: Telemetry,
    #[cfg(feature = "admin")]
    pub(crate) admin: Option<Admin>,
    pub(crate) state: State,
}

/// The administration socket.
#[cfg(feature = "admin")]
pub(crate) struct Admin {
    pub(crate) calls: Calls,
    /// They end when this is dropped, and the socket is removed.
    pub(crate) _threads: AdminThreads,
}

/// Metrics, the status report and the heartbeat.
pub(crate) struct Telemetry {
    /// The server's name, escaped.
    name: String,
    started: Instant,
    heartbeat: HeartbeatTimer,
    statistics: Arc<Statistics>,
    sessions: Sessions,
    /// `None`: there are no workers.
    load: Option<Arc<WorkerLoad>>,
    /// `None`: no metrics are served.
    metrics: Option<Metrics>,
    reporter: Reporter,
    /// A worker gets the fill of the cache from the plugin.
    asks_usage: bool,
}

/// What changes as the loop turns.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// A tree: a look-up takes less than the hash of a token.
    connections: BTreeMap<Token, Connection>,
    scheduler: Scheduler,
    timers: Timers,
    /// A supervised server waits for its first client without a bound.
    has_had_client: bool,
    /// A connection has had a turn since the last sweep of buffers.
    has_active: bool,
    /// The shutdown timeout has passed: the loop ends, whatever is still in flight.
    is_timed_out: bool,
}

impl Telemetry {
    pub(crate) fn new(
        name: String,
        started: Instant,
        heartbeat: HeartbeatTimer,
        statistics: Arc<Statistics>,
        sessions: Sessions,
        load: Option<Arc<WorkerLoad>>,
        metrics: Option<Metrics>,
    ) -> Self {
        Self {
            name,
            started,
            heartbeat,
            statistics,
            sessions,
            load,
            metrics,
            reporter: Reporter::default(),
            asks_usage: false,
        }
    }

    fn recorders(&self) -> Recorders<'_> {
        Recorders { statistics: &self.statistics, metrics: self.metrics.as_ref() }
    }
}

impl EventLoop {
    pub(crate) fn run(mut self) -> io::Result<()> {
        let result = self.serve();
        // Before the plugin is dropped: its administrators call it.
        #[cfg(feature = "admin")]
        drop(self.admin.take());
        // On the way out after a failure, clients must not find a socket that is not served.
        self.acceptor.close();
        let running = self.workers.as_ref().map_or(0, Workers::running);
        let left = self.state.connections.len();
        match (left, running) {
            (0, _) => {}
            (_, 0) => warn!(left, "shut down before all clients had taken their replies"),
            _ => warn!(left, running, "shut down with callbacks still running"),
        }
        for (token, mut connection) in self.state.connections {
            // Drops replies behind a guard, where dropping the connection would not.
            guarded(token, &mut connection, &self.service, |c| c.abort(&self.service));
        }
        if let Some(workers) = self.workers {
            workers.stop();
        }
        result
    }

    /// Turns until the server has shut down.
    ///
    /// Why in this order: what the last wait has brought is taken note of first (events, commands,
    /// completions), so that everything after it knows. Completions come before timers, so that a
    /// request that was done in time is not answered with TIMEOUT; timers before turns, because an
    /// aborted connection ends in its turn. Commands come before `accept`, because a termination closes
    /// the acceptor, and a socket that was removed is bound again between them; `accept` before turns, or a round of long turns would keep new clients waiting.
    /// Completions make room for jobs, so grants come after them; and a grant is used in a turn, so it
    /// comes before the turns. What depends on the connections that are left, such as the timers that
    /// are needed, comes last.
    fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        self.start_timers();
        while !self.is_over() {
            let now = self.wait(&mut events)?;
            // Before anything is looked at that other threads wake the loop for.
            self.waker.acknowledge();
            self.on_events(&events);
            self.run_commands(now);
            self.acceptor.renew(self.poll.registry());
            self.take_completions(now);
            self.expire_timers(now);
            self.accept(now);
            self.state.scheduler.grant(self.room());
            self.take_turns(now);
            self.end_with_last_client(now);
            self.keep_timers(now);
            self.publish_load();
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.acceptor.is_closed() && (self.state.connections.is_empty() || self.state.is_timed_out)
    }

    /// Waits for events, until there is something else to do; returns the time.
    fn wait(&mut self, events: &mut Events) -> io::Result<Instant> {
        let has_work = self.state.scheduler.has_work(self.room()) || self.acceptor.is_ready();
        if has_work {
            self.poll(events, Some(Duration::ZERO))?;
            return Ok(Instant::now());
        }
        let now = Instant::now();
        let deadline = self.state.timers.next_deadline();
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(now));
        if timeout != Some(Duration::ZERO)
            && let Some(now) = self.busy_poll(events, now)?
        {
            return Ok(now);
        }
        self.poll(events, timeout)?;
        Ok(Instant::now())
    }

    /// Polls for events without sleeping, if that is likely to find some soon; returns the time if it
    /// did.
    fn busy_poll(&mut self, events: &mut Events, now: Instant) -> io::Result<Option<Instant>> {
        let Some(deadline) = self.busy_poll.begin(now) else { return Ok(None) };
        loop {
            // A thread that wants this processor is likely to be one of the client.
            thread::yield_now();
            self.poll(events, Some(Duration::ZERO))?;
            let has_found = !events.is_empty();
            let now = Instant::now();
            if has_found || now >= deadline {
                self.busy_poll.ended(has_found, deadline, now);
                return Ok(has_found.then_some(now));
            }
        }
    }

    /// Calls `epoll_wait`. Treats EINTR as a spurious wake-up.
    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    fn on_events(&mut self, events: &Events) {
        let State { connections, scheduler, .. } = &mut self.state;
        for event in events {
            match event.token() {
                WAKER => {}
                LISTENER => self.acceptor.set_ready(),
                token => {
                    // An event may come late: its connection may have closed.
                    let Some(connection) = connections.get_mut(&token) else { continue };
                    let has_hung_up = event.is_read_closed() || event.is_error();
                    connection.set_ready(event.is_readable() || has_hung_up, has_hung_up);
                    scheduler.ready(token);
                }
            }
        }
    }

    /// Executes the commands of handles.
    fn run_commands(&mut self, now: Instant) {
        let Some(commands) = self.control.take_commands() else { return };
        if commands.ask_detach {
            info!(clients = self.state.connections.len(), "asking clients to detach");
            self.call_all(|connection, service| connection.ask_detach(service));
        }
        #[cfg(feature = "admin")]
        if commands.call {
            self.make_calls(now);
        }
        // A server whose acceptor is closed shuts down already.
        if commands.terminate && !self.acceptor.is_closed() {
            info!(clients = self.state.connections.len(), "ending");
            self.telemetry.heartbeat.emit(Heartbeat::Ending);
            self.acceptor.close();
            let deadline = now + self.service.limits().shutdown_timeout;
            self.state.timers.set(Timer::Shutdown, deadline);
            self.call_all(Connection::drain);
        }
        if commands.report {
            self.report(now);
        }
    }

    /// Calls all connections, and queues them for a turn.
    fn call_all(&mut self, mut call: impl FnMut(&mut Connection, &Service)) {
        let State { connections, scheduler, .. } = &mut self.state;
        for (&token, connection) in connections {
            guarded(token, connection, &self.service, |c| call(c, &self.service));
            scheduler.ready(token);
        }
    }

    /// Passes what workers have done to the connections.
    fn take_completions(&mut self, now: Instant) {
        let mut usage = None;
        let recorders = self.telemetry.recorders();
        let State { connections, scheduler, .. } = &mut self.state;
        while let Some(completed) = self.workers.as_mut().and_then(Workers::next_completed) {
            let Some(token) = completed.token else {
                usage = Some(completed);
                continue;
            };
            // A connection stays until its last job is done.
            let Some(connection) = connections.get_mut(&token) else { continue };
            guarded(token, connection, &self.service, |connection| {
                connection.on_completed(completed, recorders, now);
            });
            scheduler.ready(token);
        }
        if let Some(completed) = usage {
            self.telemetry.asks_usage = false;
            self.on_usage(completed.outcome);
        }
    }

    fn accept(&mut self, now: Instant) {
        let Self { acceptor, poll, state, service, pid, telemetry, .. } = self;
        let back_off = acceptor.accept(poll.registry(), |token, socket, origin| {
            debug!(connection = token.0, "connection accepted");
            telemetry.metrics.iter().for_each(Metrics::connected);
            telemetry.statistics.connected();
            let counters = telemetry.sessions.add(token, origin);
            let connection = Connection::new(token, socket, Peer::new(*pid), service, counters);
            state.connections.insert(token, connection);
            state.scheduler.add(token);
            state.has_had_client = true;
        });
        if let Some(back_off) = back_off {
            state.timers.set(Timer::AcceptRetry, now + back_off);
        }
    }

    /// How many more jobs the workers should have.
    fn room(&self) -> usize {
        self.workers.as_ref().map_or(0, Workers::room)
    }

    /// Gives a turn to every connection that is queued.
    fn take_turns(&mut self, now: Instant) {
        let round = self.state.scheduler.round();
        if round.turns == 0 {
            return;
        }
        self.service.set_clock(now.saturating_duration_since(self.telemetry.started));
        self.state.has_active = true;
        let connections = self.state.connections.len();
        let mut closed = false;
        for _ in 0..round.turns {
            let Some(next) = self.state.scheduler.next_turn(self.room()) else { break };
            let token = next.token;
            let Some(connection) = self.state.connections.get_mut(&token) else { continue };
            let was_open = connection.is_open();
            let memory = self.buffers.max_held(connection.counted(), connections);
            let context = Context {
                service: &self.service,
                workers: None,
                recorders: self.telemetry.recorders(),
                clock: Instant::now,
                time: round.time,
                memory,
            };
            let turn = guarded(token, connection, &self.service, |connection| {
                take_turn(connection, context, self.workers.as_mut(), next)
            });
            connection.update_interest(self.poll.registry());
            // After a panic the connection is aborted, and ends as it should in another turn.
            let turn = turn.unwrap_or(Turn::Again);
            connection.count_memory(&mut self.buffers.held);
            connection.publish();
            if was_open && !connection.is_open() {
                // Callbacks may have taken longer than the timeout since this round began.
                let deadline = Instant::now() + self.service.limits().shutdown_timeout;
                self.state.timers.set(Timer::Close(token), deadline);
            }
            match turn {
                Turn::Again => self.state.scheduler.ready(token),
                Turn::WaitForWorker => self.state.scheduler.wait_for_worker(token),
                Turn::Wait => {}
                Turn::Over => {
                    self.remove(token);
                    closed = true;
                }
            }
        }
        if closed {
            // There are descriptors again.
            self.state.timers.cancel(Timer::AcceptRetry);
            self.acceptor.retry_now();
        }
    }

    /// Shuts a supervised server down once its last client has gone.
    ///
    /// Invariant: the listener is closed only when no connection is open, no reload is pending and the
    /// backlog is empty. What the backlog holds while `accept` backs off, and what a turn of `accept`
    /// leaves there, counts as a client: this is called again after the next `accept`.
    fn end_with_last_client(&mut self, now: Instant) {
        if !self.is_supervised || !self.state.has_had_client || self.has_client() {
            return;
        }
        // `epoll` may not have reported a client yet.
        self.acceptor.set_ready();
        self.accept(now);
        if self.has_client() || !self.acceptor.is_drained() {
            return;
        }
        // A client that connects from now on is refused, and starts a new plugin. One that has
        // connected since `accept` is served. None is accepted and dropped.
        self.acceptor.stop_listening();
        while !self.has_client() && self.acceptor.is_ready() {
            self.accept(now);
        }
        if self.has_client() || !self.acceptor.is_drained() {
            self.acceptor.resume_listening(self.poll.registry());
            return;
        }
        info!("the last client has gone");
        self.telemetry.heartbeat.emit(Heartbeat::Ending);
        self.acceptor.close();
    }

    /// True if there is a reason for a supervised server to go on, besides what the backlog may hold.
    fn has_client(&self) -> bool {
        self.acceptor.is_closed()
            || !self.state.connections.is_empty()
            || self.service.pending_reloads() > 0
    }

    /// Forgets a connection that is over.
    fn remove(&mut self, token: Token) {
        debug!(connection = token.0, "connection closed");
        if let Some(connection) = self.state.connections.remove(&token) {
            self.buffers.held -= connection.counted();
        }
        self.telemetry.sessions.remove(token);
        self.state.scheduler.remove(token);
        self.state.timers.cancel(Timer::Close(token));
    }
}

/// Gives a connection its turn, with the access to workers that it is granted.
fn take_turn(
    connection: &mut Connection,
    mut context: Context<'_>,
    workers: Option<&mut Workers>,
    scheduled: scheduler::Turn,
) -> Turn {
    let Some(workers) = workers else { return connection.turn(&mut context) };
    let workers = &mut OfConnection { workers, token: scheduled.token };
    let access = WorkerAccess { jobs: scheduled.jobs, workers };
    connection.turn(&mut Context { workers: Some(access), ..context })
}

/// The workers, for jobs of one connection.
struct OfConnection<'a> {
    workers: &'a mut Workers,
    token: Token,
}

impl Dispatch for OfConnection<'_> {
    fn try_handle(&self, open: &OpenSession, request: &Request) -> Option<Reply> {
        self.workers.try_handle(self.token, open, request)
    }

    fn dispatch(&mut self, job: Job, ticket: Ticket) {
        self.workers.dispatch(Some(self.token), job, ticket);
    }
}

/// Calls a connection. Should that panic, only this connection is aborted, and its session ends as it
/// should; `None` then.
fn guarded<T>(
    token: Token,
    connection: &mut Connection,
    service: &Service,
    call: impl FnOnce(&mut Connection) -> T,
) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(|| call(connection)));
    if result.is_err() {
        error!(connection = token.0, "connection aborted after a panic");
        // What is left of it is dropped piece by piece, each behind a guard.
        let _ = catch_unwind(AssertUnwindSafe(|| connection.abort(service)));
    }
    result.ok()
}
