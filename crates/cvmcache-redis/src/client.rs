//! The client of the server: one type for a single server and a Cluster, by TCP, TLS or a unix socket.
//!
//! Requests of all workers share a connection to each server, on which many are in flight at once.
//! None takes longer than its deadline; while a server is away, requests fail at once. A reply
//! that comes after its deadline is dropped: the redis crate matches replies by the order of requests.
//! A request whose connection is lost is sent again on the next one, if [`Repeat`] allows it.

mod abort;
mod backoff;
mod bounded;
mod cluster;
mod connect_error;
mod connection_task;
mod connector;
mod error_log;
mod failure;
mod inspected;
mod metrics;
mod node;
mod opening;
mod outages;
mod refusals;
mod request;
mod server_info;
mod server_state;
mod slots;
mod window;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::ConnectionLike;
use redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisFuture, ScriptInvocation,
    ServerErrorKind, Value,
};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::{Address, Config, ConfigError};

pub(crate) use error_log::RecentFailure;
pub(crate) use failure::Failure;
pub(crate) use request::{Repeat, Traits};
pub(crate) use server_info::ServerInfo;
pub(crate) use server_state::{Link, ServerState};

use cluster::Cluster;
use connect_error::ConnectError;
use connector::Connector;
use error_log::ErrorLogThrottle;
use metrics::ClientMetrics;
use node::Node;
use outages::Role;

/// How often a script is loaded into a server whose cache of scripts is flushed again and again.
const SCRIPT_ATTEMPTS: usize = 5;
const NO_SCRIPT: ErrorKind = ErrorKind::Server(ServerErrorKind::NoScript);

/// A client of the server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RedisClient {
    servers: Servers,
    runtime: Handle,
    deadline: Duration,
    error_log: Arc<ErrorLogThrottle>,
    metrics: ClientMetrics,
    connected: Arc<Notify>,
}

/// What all servers of a client share.
#[derive(Clone)]
struct SharedState {
    connector: Connector,
    deadline: Duration,
    runtime: Handle,
    metrics: ClientMetrics,
    /// Notified of each new connection.
    connected: Arc<Notify>,
}

/// A script with its arguments, and what is known of the request.
pub(crate) struct ScriptCall<'a> {
    pub(crate) invocation: ScriptInvocation<'a>,
    pub(crate) traits: Traits,
}

#[derive(Clone)]
enum Servers {
    One(Node),
    Cluster(Cluster),
}

impl RedisClient {
    /// Starts to connect. A server that is down is no error, it may start later than its plugins; one
    /// that denies access is.
    pub(crate) fn new(config: &Config, runtime: Handle) -> Result<Self, ConfigError> {
        let shared = SharedState {
            connector: Connector::new(config)?,
            deadline: config.timeout,
            runtime: runtime.clone(),
            metrics: ClientMetrics::new(),
            connected: Arc::default(),
        };
        let servers = match config.server.addresses() {
            [address] if !config.server.is_cluster() => {
                Servers::One(Node::new(&shared, address.clone(), Role::only()))
            }
            seeds => Servers::Cluster(Cluster::new(&shared, seeds)),
        };
        let SharedState { deadline, metrics, connected, .. } = shared;
        let error_log = Arc::default();
        let client = Self { servers, runtime, deadline, error_log, metrics, connected };
        let first = client.wait(async {
            match &client.servers {
                Servers::One(node) => node.first_attempt().await.map_err(|error| error.failure),
                Servers::Cluster(cluster) => cluster.first_attempt().await,
            }
        });
        match first {
            Err(Failure::AccessDenied(code)) => {
                Err(ConfigError::AccessDenied { server: config.server.to_string(), code })
            }
            _ => Ok(client),
        }
    }

    /// Blocks on `work` until the deadline of a request.
    pub(crate) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.runtime
            .block_on(async { timeout(self.deadline, work).await.unwrap_or(Err(Failure::Timeout)) })
    }

    /// Runs a task on the runtime that does the I/O.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Notified of each new connection.
    pub(crate) fn connected(&self) -> Arc<Notify> {
        Arc::clone(&self.connected)
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Cluster(_))
    }

    /// What all servers that have keys say of themselves. A user may be denied it, which is not logged here.
    pub(crate) async fn server_infos(&self) -> Result<Vec<ServerInfo>, Failure> {
        let nodes = match &self.servers {
            Servers::One(node) => vec![node.clone()],
            Servers::Cluster(cluster) => cluster.owners().await?,
        };
        futures_util::future::join_all(nodes.iter().map(Node::info)).await.into_iter().collect()
    }

    /// What is known of each server without asking it, and what it says of itself: nothing if it is away, does
    /// not answer within the deadline, or denies it.
    pub(crate) async fn inspect(&self) -> Vec<(ServerState, Option<ServerInfo>)> {
        let mut nodes = match &self.servers {
            Servers::One(node) => vec![node.clone()],
            Servers::Cluster(cluster) => cluster.known(),
        };
        nodes.sort_by_cached_key(|node| node.server_state().address);
        let views = nodes.iter().map(async |node| {
            let info = async { if node.is_up() { node.info().await.ok() } else { None } };
            let info = info.await;
            (node.server_state(), info)
        });
        futures_util::future::join_all(views).await
    }

    /// Connects to all servers again.
    pub(crate) fn reconnect(&self) {
        match &self.servers {
            Servers::One(node) => node.reconnect(),
            Servers::Cluster(cluster) => cluster.reconnect(),
        }
    }

    /// Requests that have failed in the last minute, by the kind of failure.
    pub(crate) fn recent_failures(&self) -> Vec<RecentFailure> {
        self.error_log.recent(Instant::now())
    }

    /// Blocks on work that has deadlines of its own.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The time within which a request is answered.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Sends a command. It has one key, or several in one slot.
    pub(crate) async fn command<T: FromRedisValue>(
        &self,
        traits: Traits,
        command: &Cmd,
    ) -> Result<T, Failure> {
        self.run(traits, async |connection| command.query_async(connection).await).await
    }

    /// Sends a pipeline. Its keys may be in several slots, unless it is atomic.
    pub(crate) async fn pipeline<T: FromRedisValue>(
        &self,
        traits: Traits,
        pipeline: &Pipeline,
    ) -> Result<T, Failure> {
        self.run(traits, async |connection| pipeline.query_async(connection).await).await
    }

    /// Runs a script, and loads it into a server that does not have it.
    pub(crate) async fn script<T: FromRedisValue>(
        &self,
        call: &ScriptCall<'_>,
    ) -> Result<T, Failure> {
        self.run(call.traits, async |connection| {
            // Another client may flush the scripts between the two requests of an attempt.
            for _ in 1..SCRIPT_ATTEMPTS {
                match call.invocation.invoke_async(connection).await {
                    Err(error) if error.kind() == NO_SCRIPT => {}
                    reply => return reply,
                }
            }
            call.invocation.invoke_async(connection).await
        })
        .await
    }

    /// Runs one request within the deadline; counts and logs its failure.
    async fn run<T>(
        &self,
        traits: Traits,
        request: impl AsyncFnOnce(&mut RequestConnection<'_>) -> Result<T, RedisError>,
    ) -> Result<T, Failure> {
        let servers = &self.servers;
        let mut connection = RequestConnection { servers, traits, last: None, failure: None };
        let reply = timeout(self.deadline, request(&mut connection)).await;
        let failure = match reply {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(error)) => connection.failure.unwrap_or_else(|| error.into()),
            Err(_) => Failure::Timeout,
        };
        self.metrics.failed_requests.increment(1);
        self.error_log.log(&failure);
        Err(failure)
    }
}

/// Connects to each server that the configuration names, and disconnects.
pub(crate) async fn probe(
    config: &Config,
) -> Result<Vec<(Address, Result<(), ConnectError>)>, ConfigError> {
    let connector = Connector::new(config)?;
    let attempts = config
        .server
        .addresses()
        .iter()
        .map(async |address| (address.clone(), connector.open(address).await.map(|_| ())));
    Ok(futures_util::future::join_all(attempts).await)
}

/// What the redis crate takes for a connection, for one command, pipeline or script.
struct RequestConnection<'a> {
    servers: &'a Servers,
    traits: Traits,
    /// The server of the previous command: a script that it did not have is loaded there.
    last: Option<Node>,
    /// The failure, unless it is an error reply.
    failure: Option<Failure>,
}

impl RequestConnection<'_> {
    fn record<T>(&mut self, reply: Result<T, Failure>) -> Result<T, RedisError> {
        reply.map_err(|failure| {
            self.failure = Some(failure);
            RedisError::from((ErrorKind::Client, "no reply"))
        })
    }
}

impl ConnectionLike for RequestConnection<'_> {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let reply = match self.servers {
                Servers::One(node) => node.command(command, self.traits).await,
                Servers::Cluster(cluster) => {
                    cluster.command(command, self.traits, &mut self.last).await
                }
            };
            self.record(reply)
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let reply = match self.servers {
                Servers::One(node) => node.commands(pipeline, offset, count, self.traits).await,
                Servers::Cluster(cluster) => {
                    cluster.commands(pipeline, offset, count, self.traits).await
                }
            };
            self.record(reply)
        })
    }

    fn get_db(&self) -> i64 {
        0
    }
}

#[cfg(test)]
mod tests;
