//! The requests to one server, over the connection that its [`ConnectionTask`] publishes.
//!
//! A connection may be lost while the server is well: CLIENT KILL, a limit on buffers, a proxy that
//! restarts. So requests wait for the next one, within their deadlines, and those that were in flight are
//! sent again, if they may be ([`Repeat`]). When there is no connection for as long as a request may wait,
//! the server is away: requests fail at once until it is back. A request that is dropped without a reply
//! asks the task for a health check.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Arg, Cmd, Pipeline, RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::abort::AbortOnDrop;
use super::backoff::MAX_PAUSE_OF_WAITERS;
use super::connect_error::ConnectError;
use super::connection_task::{Connection, ConnectionTask, State};
use super::metrics::ClientMetrics;
use super::outages::{OutageLog, Role};
use super::refusals::{Refusals, Verdict};
use super::request::{Repeat, Traits};
use super::server_state::{Control, Link, ServerState};
use super::slots::server_error;
use super::{Failure, ServerInfo, SharedState};
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
    control: Arc<Control>,
    _task: Arc<AbortOnDrop>,
}

/// How long requests wait for a connection that is being opened before they fail, unless it is the next
/// one of a server that was well, and how long a health check may take.
const GRACE: Duration = Duration::from_secs(1);

/// How long a request that was refused waits for the next connection, before it is sent over the present
/// one again.
const RETRY_AFTER: Duration = Duration::from_millis(2 * MAX_PAUSE_OF_WAITERS.as_millis() as u64);

impl Node {
    /// Starts the task that connects.
    pub(super) fn new(shared: &SharedState, address: Address, role: Role) -> Self {
        let SharedState { connector, deadline, runtime, metrics, connected } = shared;
        let (sender, state) = watch::channel(State::Connecting);
        let health_check = Arc::new(Notify::new());
        let refusals = Arc::new(Refusals::new(*deadline));
        let control = Arc::new(Control::new(address.clone()));
        let task = ConnectionTask {
            connector: connector.clone(),
            log: OutageLog::new(address, role.clone()),
            control: Arc::clone(&control),
            state: sender,
            health_check: Arc::clone(&health_check),
            grace: GRACE.min(*deadline),
            deadline: *deadline,
            metrics: metrics.clone(),
            connected: Arc::clone(connected),
            refusals: Arc::clone(&refusals),
        };
        let task = Arc::new(AbortOnDrop::spawn(runtime, task.run()));
        Self {
            state,
            health_check,
            deadline: *deadline,
            metrics: metrics.clone(),
            role,
            refusals,
            control,
            _task: task,
        }
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
            State::Down(error, _) => Some(error.reason.clone()),
            _ => None,
        }
    }

    /// What is known of the server without asking it.
    pub(super) fn server_state(&self) -> ServerState {
        let (now, state) = (Instant::now(), self.state.borrow().clone());
        let (requests_in_flight, bytes_in_flight) = match &state {
            State::Up(connection) => connection.window.in_flight(),
            _ => (0, 0),
        };
        let refusal = self.refusals.current(now);
        let refusal = refusal.map(|(reason, since)| (reason.to_string(), since));
        let link = match (state, refusal) {
            (State::Down(error, begun), _) => {
                let (reason, since) = (error.reason, now - begun);
                match error.failure {
                    Failure::AccessDenied(_) => Link::Refusing { reason, since },
                    _ => Link::Away { reason, since },
                }
            }
            (_, Some((reason, since))) => Link::Refusing { reason, since },
            (State::Up(_), None) => Link::Connected,
            (State::Connecting, None) => Link::Connecting,
        };
        ServerState {
            address: self.control.address.to_string(),
            link,
            reconnects: self.control.reconnects(),
            requests_in_flight,
            bytes_in_flight,
        }
    }

    /// Replaces the connection, or tries at once to connect: the name of the server may lead to another one by
    /// now. Requests in flight are sent again, as when a connection is lost.
    pub(super) fn reconnect(&self) {
        self.control.reconnect();
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

    /// What the server says of itself. A user may be denied it.
    pub(super) async fn info(&self) -> Result<ServerInfo, Failure> {
        let traits = Traits::REPEATABLE.with_reply(8 * 1024);
        let reply = self.command(&redis::cmd("INFO"), traits).await?;
        let text: String = redis::from_redis_value(reply.extract_error()?)
            .map_err(|error| Failure::from(RedisError::from(error)))?;
        Ok(ServerInfo::parse(&text))
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
            State::Down(..) => true,
        });
        match known.await.as_deref() {
            Ok(State::Up(connection)) => Ok(connection.clone()),
            Ok(State::Down(error, _)) => Err(error.clone()),
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
