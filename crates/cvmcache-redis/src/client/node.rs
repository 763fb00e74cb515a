//! One server, and the connection to it, which is reopened whenever it breaks.
//!
//! The redis crate has a `ConnectionManager` for that. It lets requests wait while it connects,
//! connects only when there is a request, and keeps a connection on which no reply comes. Here, a
//! task of its own, [`ConnectionTask`], owns the connection and publishes its state: requests fail at
//! once while the server is away, the task connects with exponential back-off until it is back, and a
//! server that does not answer is disconnected. Requests only clone what is published; a request that
//! is dropped without a reply asks the task for a health check.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::Failure;
use super::abort::AbortOnDrop;
use super::connector::{ConnectError, Connector, Driver, ping};
use crate::config::Address;

/// A client of one server. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub(super) struct Node {
    state: watch::Receiver<State>,
    health_check: Arc<Notify>,
    deadline: Duration,
    _task: Arc<AbortOnDrop>,
}

#[derive(Clone)]
enum State {
    /// Requests wait, for [`GRACE`] at most.
    Connecting,
    Up(MultiplexedConnection),
    Down(Failure),
}

/// How long requests wait for a connection that is being opened before they fail, and how long a
/// health check may take.
const GRACE: Duration = Duration::from_secs(1);

/// The back-off between attempts to connect.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(5);

impl Node {
    /// Starts the task that connects.
    pub(super) fn new(
        connector: Connector,
        address: Address,
        deadline: Duration,
        runtime: &Handle,
    ) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let health_check = Arc::new(Notify::new());
        let task = ConnectionTask {
            connector,
            address,
            state: sender,
            health_check: Arc::clone(&health_check),
            grace: GRACE.min(deadline),
            last_logged: None,
            was_up: false,
        };
        let task = Arc::new(AbortOnDrop::spawn(runtime, task.run()));
        Self { state, health_check, deadline, _task: task }
    }

    /// The outcome of the first attempt to connect.
    pub(super) async fn first_attempt(&self) -> Result<(), Failure> {
        self.connection().await.map(|_| ())
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, Failure> {
        let ask = async |connection: &mut MultiplexedConnection| {
            connection.req_packed_command(command).await
        };
        self.ask(ask).await
    }

    pub(super) async fn commands(
        &self,
        commands: &Pipeline,
        offset: usize,
        count: usize,
    ) -> Result<Vec<Value>, Failure> {
        let ask = async |connection: &mut MultiplexedConnection| {
            connection.req_packed_commands(commands, offset, count).await
        };
        self.ask(ask).await
    }

    async fn ask<T>(
        &self,
        send: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Failure> {
        let request = async {
            let mut connection = self.connection().await?;
            // A request that is dropped at its deadline drops this, too.
            let probe = ProbeOnDrop(&self.health_check);
            let answer = send(&mut connection).await;
            std::mem::forget(probe);
            answer.map_err(Failure::from)
        };
        timeout(self.deadline, request).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn connection(&self) -> Result<MultiplexedConnection, Failure> {
        let mut state = self.state.clone();
        let known = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match known.as_deref() {
            Ok(State::Up(connection)) => Ok(connection.clone()),
            Ok(State::Down(failure)) => Err(failure.clone()),
            // The runtime ends.
            Ok(State::Connecting) | Err(_) => Err(Failure::Unreachable),
        }
    }
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
    /// What was logged of a server that is away.
    last_logged: Option<LoggedState>,
    was_up: bool,
}

impl ConnectionTask {
    async fn run(mut self) {
        let mut pauses = pauses();
        loop {
            let (connection, driver) = self.connect(&mut pauses).await;
            self.log_up();
            let since = Instant::now();
            self.state.send_replace(State::Up(connection.clone()));
            tokio::select! {
                () = driver => {}
                () = self.check_health(connection) => {}
            }
            if since.elapsed() > self.grace {
                pauses = self::pauses();
                self.state.send_replace(State::Connecting);
            } else {
                // The server has closed the connection at once: back off.
                self.state.send_replace(State::Down(Failure::Unreachable));
                self.pause(&mut pauses).await;
            }
        }
    }

    /// Tries until there is a connection.
    async fn connect(&mut self, pauses: &mut Pauses) -> (MultiplexedConnection, Driver) {
        loop {
            let outcome = {
                let attempt = self.connector.open(&self.address);
                tokio::pin!(attempt);
                match timeout(self.grace, &mut attempt).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        self.state.send_if_modified(|state| {
                            let waiting = matches!(state, State::Connecting);
                            if waiting {
                                *state = State::Down(Failure::Timeout);
                            }
                            waiting
                        });
                        attempt.await
                    }
                }
            };
            match outcome {
                Ok(connected) => return connected,
                Err(error) => {
                    self.log_down(&error);
                    self.state.send_replace(State::Down(error.failure));
                }
            }
            self.pause(pauses).await;
        }
    }

    async fn pause(&self, pauses: &mut Pauses) {
        sleep(pauses.next().unwrap_or(MAX_PAUSE)).await;
    }

    /// Sends a PING whenever a request had no reply. Returns when the server does not answer it.
    async fn check_health(&self, mut connection: MultiplexedConnection) {
        loop {
            self.health_check.notified().await;
            match timeout(self.grace, ping(&mut connection)).await {
                Err(_) | Ok(Err(Failure::Unreachable | Failure::InvalidResponse(_))) => return,
                Ok(_) => {}
            }
        }
    }

    fn log_down(&mut self, error: &ConnectError) {
        let denied = matches!(error.failure, Failure::AccessDenied(_));
        // Denied access needs an administrator and is logged; that the server is still away is not.
        if self
            .last_logged
            .is_none_or(|last_logged| denied && last_logged != LoggedState::AccessDenied)
        {
            warn!(
                server = %self.address, reason = %error.reason,
                "the Redis server is away; requests fail until it is back"
            );
            self.last_logged =
                Some(if denied { LoggedState::AccessDenied } else { LoggedState::Away });
        }
    }

    fn log_up(&mut self) {
        if self.was_up || self.last_logged.is_some() {
            info!(server = %self.address, "the Redis server is back");
        }
        self.was_up = true;
        self.last_logged = None;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LoggedState {
    Away,
    AccessDenied,
}

type Pauses = <ExponentialBuilder as BackoffBuilder>::Backoff;

fn pauses() -> Pauses {
    ExponentialBuilder::default()
        .with_min_delay(MIN_PAUSE)
        .with_max_delay(MAX_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}
