//! The task that owns the connection to one server, and reopens it whenever it breaks.
//!
//! The redis crate has a `ConnectionManager` for that. It connects only when there is a request, sends
//! nothing again, and keeps a connection on which no reply comes. Here, the task publishes the state of the
//! connection, and requests only read what is published.
//!
//! The task connects at once when a connection is lost, but not more often than every [`MIN_PAUSE`];
//! exponential back-off begins with the first attempt that fails. A server that does not answer a health
//! check is disconnected, and so is one that refuses what another server would do ([`Refusals`]).

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, interval_at, sleep, sleep_until, timeout, timeout_at};

use super::Failure;
use super::backoff::{MAX_PAUSE, MAX_PAUSE_OF_WAITERS, MIN_PAUSE, pauses};
use super::connect_error::ConnectError;
use super::connector::{Connector, Driver, ping};
use super::metrics::ClientMetrics;
use super::outages::OutageLog;
use super::refusals::Refusals;
use super::server_state::Control;
use super::window::{GROWTH_INTERVAL, Window};

/// What the task publishes of the connection.
#[derive(Clone)]
pub(super) enum State {
    /// Requests wait.
    Connecting,
    Up(Connection),
    Down(ConnectError, Since),
}

/// Since when a server is away.
pub(super) type Since = Instant;

/// A connection, by the number of those before it.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) requests: MultiplexedConnection,
    pub(super) window: Arc<Window>,
    /// Notified when the server has refused a request, see [`Refusals`].
    pub(super) refused: Arc<Notify>,
}

/// Owns the connection. Invariant: it is the only sender of `state`.
pub(super) struct ConnectionTask {
    pub(super) connector: Connector,
    pub(super) control: Arc<Control>,
    pub(super) state: watch::Sender<State>,
    pub(super) health_check: Arc<Notify>,
    pub(super) grace: Duration,
    pub(super) deadline: Duration,
    pub(super) log: OutageLog,
    pub(super) metrics: ClientMetrics,
    /// Notified of each connection.
    pub(super) connected: Arc<Notify>,
    pub(super) refusals: Arc<Refusals>,
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
    /// An administrator wants another connection.
    Replaced,
    /// The server did not answer the health check.
    Silent,
}

impl ConnectionTask {
    pub(super) async fn run(mut self) {
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
            self.control.connected(number);
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
                () = self.control.reconnect_asked() => End::Replaced,
                () = grow(&window) => End::Lost,
            };
            self.state.send_replace(State::Connecting);
            window.close();
            let now = Instant::now();
            patience = match end {
                End::Lost | End::Refused | End::Replaced => {
                    Patience { until: now + self.deadline, is_lost: true }
                }
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
            End::Refused | End::Replaced => last.again(),
            End::Lost | End::Silent => last.next(),
        }
    }

    /// Tries until there is a connection.
    async fn connect(&mut self, patience: Patience) -> (MultiplexedConnection, Driver) {
        let mut pauses = pauses();
        loop {
            let outcome = {
                let attempt = self.connector.open(&self.control.address);
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
                self.publish_down(error);
                // The time is over, or an administrator wants the next attempt now.
                let _ = timeout(pause, self.control.reconnect_asked()).await;
            }
        }
    }

    fn publish_down(&self, error: ConnectError) {
        self.state.send_modify(|state| {
            let since = match state {
                State::Down(_, since) => *since,
                State::Connecting | State::Up(_) => Instant::now(),
            };
            *state = State::Down(error, since);
        });
    }

    fn publish_down_if_waiting(&self, error: &ConnectError) {
        self.state.send_if_modified(|state| {
            let waiting = matches!(state, State::Connecting);
            if waiting {
                *state = State::Down(error.clone(), Instant::now());
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

/// Grows a window for ever.
async fn grow(window: &Window) {
    let mut growth = interval_at(Instant::now() + GROWTH_INTERVAL, GROWTH_INTERVAL);
    loop {
        growth.tick().await;
        window.grow();
    }
}
