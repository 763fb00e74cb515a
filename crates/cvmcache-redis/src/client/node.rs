//! One server, and the connection to it, which is made anew whenever it breaks.
//!
//! The redis crate has a `ConnectionManager` for that. It lets requests wait while it connects,
//! connects only when somebody asks, and keeps a connection on which nothing comes back. Here, a
//! task of its own keeps the connection: requests fail at once while the server is away, somebody
//! knocks until it is back, and a server that does not answer is left and called anew.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::Failure;
use super::connector::{ConnectError, Connector, Driver, ping};
use crate::config::Address;

/// The way to one server. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub(super) struct Node {
    state: watch::Receiver<State>,
    health_check: Arc<Notify>,
    deadline: Duration,
    _task: Arc<AbortOnDrop>,
}

#[derive(Clone)]
enum State {
    /// Requests wait, but not for long.
    Connecting,
    Up(MultiplexedConnection),
    Down(Failure),
}

/// How long requests wait for a connection that is being made, before they are told that there is
/// none, and how long a server that is suspected may take to show that it lives.
const GRACE: Duration = Duration::from_secs(1);

const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(5);

impl Node {
    /// Begins to connect.
    pub(super) fn new(
        connector: Connector,
        address: Address,
        deadline: Duration,
        runtime: &Handle,
    ) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let health_check = Arc::new(Notify::new());
        let background = ConnectionTask {
            connector,
            address,
            state: sender,
            health_check: Arc::clone(&health_check),
            grace: GRACE.min(deadline),
            last_logged: None,
            was_up: false,
        };
        let background = Arc::new(AbortOnDrop(runtime.spawn(background.keep()).abort_handle()));
        Self { state, health_check, deadline, _task: background }
    }

    /// What came of the first attempt to connect.
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
        question: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Failure> {
        let asking = async {
            let mut connection = self.connection().await?;
            // Whoever gives up waiting leaves this behind.
            let doubt = ProbeOnDrop(&self.health_check);
            let answer = question(&mut connection).await;
            std::mem::forget(doubt);
            answer.map_err(Failure::from)
        };
        timeout(self.deadline, asking).await.unwrap_or(Err(Failure::Timeout))
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

/// Dropped, it makes the background ask the server whether it lives.
struct ProbeOnDrop<'a>(&'a Notify);

impl Drop for ProbeOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Who keeps the connection.
struct ConnectionTask {
    connector: Connector,
    address: Address,
    state: watch::Sender<State>,
    health_check: Arc<Notify>,
    grace: Duration,
    /// What the log knows of a server that is not there.
    last_logged: Option<LoggedState>,
    was_up: bool,
}

impl ConnectionTask {
    async fn keep(mut self) {
        let mut pauses = pauses();
        loop {
            let (connection, driver) = self.reach(&mut pauses).await;
            self.log_up();
            let since = Instant::now();
            self.state.send_replace(State::Up(connection.clone()));
            tokio::select! {
                () = driver => {}
                () = self.watch_over(connection) => {}
            }
            if since.elapsed() > self.grace {
                pauses = self::pauses();
                self.state.send_replace(State::Connecting);
            } else {
                // It hung up as soon as it was reached: it is not called again at once.
                self.state.send_replace(State::Down(Failure::Unreachable));
                self.pause(&mut pauses).await;
            }
        }
    }

    /// Tries until there is a connection.
    async fn reach(&mut self, pauses: &mut Pauses) -> (MultiplexedConnection, Driver) {
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
                Ok(reached) => return reached,
                Err(closed) => {
                    self.log_down(&closed);
                    self.state.send_replace(State::Down(closed.failure));
                }
            }
            self.pause(pauses).await;
        }
    }

    async fn pause(&self, pauses: &mut Pauses) {
        sleep(pauses.next().unwrap_or(MAX_PAUSE)).await;
    }

    /// Returns when the server does not answer any more.
    async fn watch_over(&self, mut connection: MultiplexedConnection) {
        loop {
            self.health_check.notified().await;
            match timeout(self.grace, ping(&mut connection)).await {
                Err(_) | Ok(Err(Failure::Unreachable | Failure::InvalidResponse(_))) => return,
                Ok(_) => {}
            }
        }
    }

    fn log_down(&mut self, closed: &ConnectError) {
        let denied = matches!(closed.failure, Failure::AccessDenied(_));
        // That somebody has to do something is news; that it is still away is none.
        if self
            .last_logged
            .is_none_or(|last_logged| denied && last_logged != LoggedState::AccessDenied)
        {
            warn!(
                server = %self.address, reason = %closed.reason,
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
