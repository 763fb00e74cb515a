//! One server, and the connection to it, which is reopened whenever it breaks.
//!
//! The redis crate has a `ConnectionManager` for that. It connects only when there is a request, sends
//! nothing again, and keeps a connection on which no reply comes. Here, a
//! task of its own, [`ConnectionTask`], owns the connection and publishes its state; requests only read
//! what is published.
//!
//! A connection may be lost while the server is well: CLIENT KILL, a limit on buffers, a proxy that restarts. So
//! requests wait for the next one, within their deadlines, and those that were in flight are sent again,
//! if they may be ([`Repeat`]). The task connects at once, but not more often than every [`MIN_PAUSE`];
//! exponential back-off begins with the first attempt that fails. When there is no connection for as long as
//! a request may wait, the server is away: requests fail at once until it is back. A server that does not answer is
//! disconnected: a request that is dropped without a reply asks the task for a health check. So is one that refuses
//! what another server would do ([`Refusals`]).

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Arg, Cmd, Pipeline, RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, interval_at, sleep, sleep_until, timeout, timeout_at};

use super::abort::AbortOnDrop;
use super::backoff::{MAX_PAUSE, MAX_PAUSE_OF_WAITERS, MIN_PAUSE, pauses};
use super::connect_error::ConnectError;
use super::connector::{Connector, Driver, ping};
use super::metrics::ClientMetrics;
use super::outages::{OutageLog, Role};
use super::refusals::{Refusals, Verdict};
use super::request::{Repeat, Traits};
use super::slots::server_error;
use super::window::{GROWTH_INTERVAL, Window};
use super::{Failure, SharedState};
use crate::config::Address;

/// A client of one server. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub(super) struct Node {
    state: watch::Receiver<State>,
    health_check: Arc<Notify>,
    deadline: Duration,
    metrics: ClientMetrics,
    role: Role,
    refusals: Arc<Refusals>,
    _task: Arc<AbortOnDrop>,
}

#[derive(Clone)]
enum State {
    /// Requests wait.
    Connecting,
    Up(Connection),
    Down(ConnectError),
}

/// A connection, by the number of those before it.
#[derive(Clone)]
struct Connection {
    number: u64,
    requests: MultiplexedConnection,
    window: Arc<Window>,
    /// Notified when the server has refused a request, see [`Refusals`].
    refused: Arc<Notify>,
}

/// How long requests wait for a connection that is being opened before they fail, unless it is the next one of a
/// server that was well, and how long a health check may take.
const GRACE: Duration = Duration::from_secs(1);

impl Node {
    /// Starts the task that connects.
    pub(super) fn new(shared: &SharedState, address: Address, role: Role) -> Self {
        let SharedState { connector, deadline, runtime, metrics, connected } = shared;
        let (sender, state) = watch::channel(State::Connecting);
        let health_check = Arc::new(Notify::new());
        let refusals = Arc::new(Refusals::new(*deadline));
        let task = ConnectionTask {
            connector: connector.clone(),
            log: OutageLog::new(address.clone(), role.clone()),
            address,
            state: sender,
            health_check: Arc::clone(&health_check),
            grace: GRACE.min(*deadline),
            deadline: *deadline,
            metrics: metrics.clone(),
            connected: Arc::clone(connected),
            refusals: Arc::clone(&refusals),
        };
        let task = Arc::new(AbortOnDrop::spawn(runtime, task.run()));
        let (deadline, metrics) = (*deadline, metrics.clone());
        Self { state, health_check, deadline, metrics, role, refusals, _task: task }
    }

    /// The outcome of the first attempt to connect.
    pub(super) async fn first_attempt(&self) -> Result<(), ConnectError> {
        self.connection(0).await.map(|_| ())
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    /// Why the server is away, if it is.
    pub(super) fn down_reason(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Down(error) => Some(error.reason.clone()),
            _ => None,
        }
    }

    /// Says whether requests are for this server, or it only tells the topology.
    pub(super) fn role(&self) -> &Role {
        &self.role
    }

    pub(super) async fn command(&self, command: &Cmd, traits: Traits) -> Result<Value, Failure> {
        self.ask(&Request::One(command), traits).await
    }

    pub(super) async fn commands(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
        traits: Traits,
    ) -> Result<Vec<Value>, Failure> {
        match self.ask(&Request::Many { commands, offset, count }, traits).await? {
            Value::Array(values) => Ok(values),
            _ => Err(Failure::InvalidResponse("no replies".to_owned())),
        }
    }

    async fn ask(&self, request: &Request<'_>, traits: Traits) -> Result<Value, Failure> {
        let len = request.len() + traits.reply_len;
        let attempts = async {
            let (mut lost, mut was_refused) = (0, false);
            loop {
                let patience = if was_refused { RETRY_AFTER } else { self.deadline };
                let next = match timeout(patience, self.connection(lost)).await {
                    Ok(next) => next,
                    // Another request was accepted over the present one, so it was not replaced.
                    Err(_) => self.connection(0).await,
                };
                let mut connection = next.map_err(|error| error.failure)?;
                lost = connection.number;
                let Some(admitted) = connection.window.admit(len).await else {
                    // Nothing was sent.
                    continue;
                };
                // A request that is dropped at its deadline drops this, too.
                let probe = ProbeOnDrop(&self.health_check);
                let answer = tokio::select! {
                    biased;
                    reply = request.send(&mut connection.requests) => reply.map_err(Failure::from),
                    () = self.ended(lost) => Err(Failure::Unreachable),
                };
                std::mem::forget(probe);
                if matches!(answer, Err(Failure::Unreachable)) {
                    admitted.was_cut();
                    if traits.repeat == Repeat::Never {
                        return answer;
                    }
                } else if let Some(refusal) = refusal(&answer) {
                    let verdict = self.refusals.refused(&refusal, Instant::now());
                    connection.refused.notify_one();
                    // Of several commands, some may have run.
                    let may_repeat = traits.repeat == Repeat::Safe || request.is_one();
                    if verdict == Verdict::Fail || !may_repeat {
                        return answer;
                    }
                    was_refused = true;
                } else {
                    if was_refused {
                        self.refusals.accepted();
                    }
                    return answer;
                }
                self.metrics.repeated_requests.increment(1);
            }
        };
        timeout(self.deadline, attempts).await.unwrap_or(Err(Failure::Timeout))
    }

    /// Waits until the connection with this number has ended. A request that is handed over to its driver while
    /// that ends would wait for ever: it stays in the channel, which the request itself keeps open.
    async fn ended(&self, number: u64) {
        let mut state = self.state.clone();
        let is_up =
            |state: &State| matches!(state, State::Up(connection) if connection.number == number);
        // An error is the end of the runtime.
        let _ = state.wait_for(|state| !is_up(state)).await;
    }

    /// The connection, if it is another than the one with the number `lost`.
    async fn connection(&self, lost: u64) -> Result<Connection, ConnectError> {
        let mut state = self.state.clone();
        let known = state.wait_for(|state| match state {
            State::Connecting => false,
            State::Up(connection) => connection.number > lost,
            State::Down(_) => true,
        });
        match known.await.as_deref() {
            Ok(State::Up(connection)) => Ok(connection.clone()),
            Ok(State::Down(error)) => Err(error.clone()),
            // The runtime ends.
            Ok(State::Connecting) | Err(_) => Err(ConnectError::local(Failure::Unreachable)),
        }
    }
}

/// One command, or several, which have several replies.
enum Request<'a> {
    One(&'a Cmd),
    Many { commands: &'a Pipeline, offset: usize, count: usize },
}

impl Request<'_> {
    async fn send(&self, connection: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        match *self {
            Self::One(command) => connection.req_packed_command(command).await,
            Self::Many { commands, offset, count } => {
                let replies = connection.req_packed_commands(commands, offset, count).await;
                replies.map(Value::Array)
            }
        }
    }

    fn is_one(&self) -> bool {
        matches!(self, Self::One(_))
    }

    /// The bytes of the arguments.
    fn len(&self) -> u64 {
        let len = |command: &Cmd| -> u64 {
            let lengths = command.args_iter().map(|argument| match argument {
                Arg::Simple(bytes) => bytes.len() as u64,
                _ => 0,
            });
            lengths.sum()
        };
        match self {
            Self::One(command) => len(command),
            Self::Many { commands, .. } => commands.cmd_iter().map(len).sum(),
        }
    }
}

/// The refusal among the replies for which the connection is replaced.
fn refusal(answer: &Result<Value, Failure>) -> Option<Failure> {
    let replies = match answer {
        Ok(Value::Array(replies)) => replies.as_slice(),
        Ok(reply) => std::slice::from_ref(reply),
        Err(_) => return None,
    };
    let failures = replies.iter().filter_map(server_error).map(Failure::from);
    failures.into_iter().find(Failure::is_of_this_connection)
}

/// Has the [`ConnectionTask`] check the server's health when it is dropped.
struct ProbeOnDrop<'a>(&'a Notify);

impl Drop for ProbeOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Owns the connection. Invariant: it is the only sender of `state`.
struct ConnectionTask {
    connector: Connector,
    address: Address,
    state: watch::Sender<State>,
    health_check: Arc<Notify>,
    grace: Duration,
    deadline: Duration,
    log: OutageLog,
    metrics: ClientMetrics,
    /// Notified of each connection.
    connected: Arc<Notify>,
    refusals: Arc<Refusals>,
}

/// How long requests wait for a connection.
#[derive(Clone, Copy)]
struct Patience {
    until: Instant,
    /// Whether they wait on when an attempt has failed.
    is_lost: bool,
}

/// How a connection has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Lost,
    /// The server refuses requests: its name may lead to another one.
    Refused,
    /// The server did not answer the health check.
    Silent,
}

impl ConnectionTask {
    async fn run(mut self) {
        let mut patience = Patience { until: Instant::now() + self.grace, is_lost: false };
        let mut last: Option<(Arc<Window>, End)> = None;
        for number in 1.. {
            let (requests, driver) = self.connect(patience).await;
            self.log.up();
            let window = Arc::new(match last {
                Some((last, end)) => self.after(&last, end),
                None => Window::new(),
            });
            let since = Instant::now();
            let refused = Arc::new(Notify::new());
            let connection = Connection {
                number,
                requests,
                window: Arc::clone(&window),
                refused: Arc::clone(&refused),
            };
            self.state.send_replace(State::Up(connection.clone()));
            self.connected.notify_one();
            let (health_check, refusals) = (Arc::clone(&self.health_check), &self.refusals);
            let end = tokio::select! {
                () = driver => End::Lost,
                () = check_health(&health_check, connection.requests, self.grace) => End::Silent,
                reason = replacement(refusals, &refused) => {
                    self.log.refused(&reason);
                    End::Refused
                }
                () = grow(&window) => End::Lost,
            };
            self.state.send_replace(State::Connecting);
            window.close();
            let now = Instant::now();
            patience = match end {
                End::Lost | End::Refused => Patience { until: now + self.deadline, is_lost: true },
                End::Silent => Patience { until: now + self.grace, is_lost: false },
            };
            last = Some((window, end));
            sleep_until(since + MIN_PAUSE).await;
        }
    }

    /// The window after that of a connection that has ended. The requests that were in flight on it have
    /// noticed since.
    fn after(&mut self, last: &Window, end: End) -> Window {
        if end == End::Lost && last.cut_requests() > 0 {
            self.metrics.lost_connections.increment(1);
            self.log.lost(last.cut_requests());
        }
        match end {
            // The plugin has cut it.
            End::Refused => last.again(),
            End::Lost | End::Silent => last.next(),
        }
    }

    /// Tries until there is a connection.
    async fn connect(&mut self, patience: Patience) -> (MultiplexedConnection, Driver) {
        let mut pauses = pauses();
        loop {
            let outcome = {
                let attempt = self.connector.open(&self.address);
                tokio::pin!(attempt);
                match timeout_at(patience.until, &mut attempt).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        // Nothing is known yet of why it takes so long.
                        self.publish_down_if_waiting(&ConnectError::local(Failure::Timeout));
                        attempt.await
                    }
                }
            };
            let error = match outcome {
                Ok(connected) => return connected,
                Err(error) => error,
            };
            let pause = pauses.next().unwrap_or(MAX_PAUSE);
            let is_denied = matches!(error.failure, Failure::AccessDenied(_));
            if patience.is_lost && !is_denied && Instant::now() < patience.until {
                sleep(pause.min(MAX_PAUSE_OF_WAITERS)).await;
            } else {
                self.log.down(&error);
                self.state.send_replace(State::Down(error));
                sleep(pause).await;
            }
        }
    }

    fn publish_down_if_waiting(&self, error: &ConnectError) {
        self.state.send_if_modified(|state| {
            let waiting = matches!(state, State::Connecting);
            if waiting {
                *state = State::Down(error.clone());
            }
            waiting
        });
    }
}

/// Sends a PING whenever a request had no reply. Returns when the server does not answer it.
async fn check_health(due: &Notify, mut connection: MultiplexedConnection, grace: Duration) {
    loop {
        due.notified().await;
        match timeout(grace, ping(&mut connection)).await {
            Err(_) | Ok(Err(Failure::Unreachable | Failure::InvalidResponse(_))) => return,
            Ok(_) => {}
        }
    }
}

/// Waits until the server has refused a request, and the connection is to be replaced.
async fn replacement(refusals: &Refusals, refused: &Notify) -> Failure {
    loop {
        refused.notified().await;
        // Else one was accepted meanwhile.
        if let Some((reason, pause)) = refusals.replacement(Instant::now()) {
            sleep(pause).await;
            return reason;
        }
    }
}

/// How long a request that was refused waits for the next connection, before it is sent over the present one again.
const RETRY_AFTER: Duration = Duration::from_millis(2 * MAX_PAUSE_OF_WAITERS.as_millis() as u64);

/// Grows a window for ever.
async fn grow(window: &Window) {
    let mut growth = interval_at(Instant::now() + GROWTH_INTERVAL, GROWTH_INTERVAL);
    loop {
        growth.tick().await;
        window.grow();
    }
}
