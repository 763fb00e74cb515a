//! The way to the server: one type for a single server and a Cluster, by TCP, TLS or a unix socket.
//!
//! Requests of all workers share a connection to each server, so that many are under way at once.
//! None takes longer than its deadline; while a server is away, requests fail at once. An answer
//! that comes after its deadline goes to nobody: the redis crate keeps the order of the requests.

mod bounded;
mod cluster;
mod connector;
mod failure;
mod node;
mod slots;

use std::collections::HashMap;
use std::future::Future;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::ConnectionLike;
use redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisFuture, ServerErrorKind, Value,
};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::warn;

use crate::config::{Config, ConfigError};

pub(crate) use failure::Failure;

use cluster::Cluster;
use connector::Connector;
use node::Node;

/// How often a script is given to a server that forgets it all the time.
const SCRIPT_ATTEMPTS: usize = 5;
const FORGOTTEN: ErrorKind = ErrorKind::Server(ServerErrorKind::NoScript);

/// The way to the server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RedisClient {
    servers: Servers,
    runtime: Handle,
    deadline: Duration,
    error_log: Arc<ErrorLogThrottle>,
}

#[derive(Clone)]
enum Servers {
    One(Node),
    Cluster(Cluster),
}

impl RedisClient {
    /// Begins to connect. A server that is down is no error: it may come later than its plugins.
    /// One that refuses the plugin is.
    pub(crate) fn new(config: &Config, runtime: Handle) -> Result<Self, ConfigError> {
        let connector = Connector::new(config)?;
        let deadline = config.timeout;
        let servers = match config.server.addresses() {
            [address] if !config.server.is_cluster() => {
                Servers::One(Node::new(connector, address.clone(), deadline, &runtime))
            }
            seeds => Servers::Cluster(Cluster::new(connector, seeds, deadline, &runtime)),
        };
        let client = Self { servers, runtime, deadline, error_log: Arc::default() };
        let first = client.wait(async {
            match &client.servers {
                Servers::One(node) => node.first_attempt().await,
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

    /// Waits for the work to be done, but not longer than requests may take.
    pub(crate) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.runtime
            .block_on(async { timeout(self.deadline, work).await.unwrap_or(Err(Failure::Timeout)) })
    }

    /// Sends a command. It has one key, or several in one slot.
    pub(crate) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        self.run(async |line| command.query_async(line).await).await
    }

    /// Sends commands together. Their keys may live in several slots, unless it is atomic.
    pub(crate) async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
    ) -> Result<T, Failure> {
        self.run(async |line| pipeline.query_async(line).await).await
    }

    /// Runs a script, which the server is given if it does not know it.
    pub(crate) async fn script<T: FromRedisValue>(
        &self,
        call: &redis::ScriptInvocation<'_>,
    ) -> Result<T, Failure> {
        self.run(async |line| {
            // Between the two requests of one attempt, another client may make it forget again.
            for _ in 1..SCRIPT_ATTEMPTS {
                match call.invoke_async(line).await {
                    Err(error) if error.kind() == FORGOTTEN => {}
                    answer => return answer,
                }
            }
            call.invoke_async(line).await
        })
        .await
    }

    async fn run<T>(
        &self,
        ask: impl AsyncFnOnce(&mut RequestConnection<'_>) -> Result<T, RedisError>,
    ) -> Result<T, Failure> {
        let mut line = RequestConnection { servers: &self.servers, last: None, failure: None };
        let answer = timeout(self.deadline, ask(&mut line)).await;
        let failure = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => line.failure.unwrap_or_else(|| error.into()),
            Err(_) => Failure::Timeout,
        };
        self.error_log.note(&failure);
        Err(failure)
    }
}

/// The servers as the redis crate wants a connection, for one command, pipeline or script.
struct RequestConnection<'a> {
    servers: &'a Servers,
    /// Who answered last: a script that was not known there is loaded there.
    last: Option<Node>,
    /// What went wrong, if it was not the server that last_logged so.
    failure: Option<Failure>,
}

impl RequestConnection<'_> {
    fn keep<T>(&mut self, answer: Result<T, Failure>) -> Result<T, RedisError> {
        answer.map_err(|failure| {
            self.failure = Some(failure);
            RedisError::from((ErrorKind::Client, "no answer"))
        })
    }
}

impl ConnectionLike for RequestConnection<'_> {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let answer = match self.servers {
                Servers::One(node) => node.command(command).await,
                Servers::Cluster(cluster) => cluster.command(command, &mut self.last).await,
            };
            self.keep(answer)
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let answer = match self.servers {
                Servers::One(node) => node.commands(pipeline, offset, count).await,
                Servers::Cluster(cluster) => cluster.commands(pipeline, offset, count).await,
            };
            self.keep(answer)
        })
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// What the log was told of a server that answers, but does not do what it is asked: of each kind
/// once a minute, not once a request. That it is away, its `Node` says.
#[derive(Default)]
struct ErrorLogThrottle(Mutex<HashMap<mem::Discriminant<Failure>, Instant>>);

const LOG_INTERVAL: Duration = Duration::from_secs(60);

impl ErrorLogThrottle {
    fn note(&self, failure: &Failure) {
        if matches!(failure, Failure::Unreachable | Failure::Timeout) {
            return;
        }
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = told.insert(mem::discriminant(failure), Instant::now());
        match last.filter(|last| last.elapsed() < LOG_INTERVAL) {
            Some(last) => {
                told.insert(mem::discriminant(failure), last);
            }
            None => warn!(reason = %failure, "the Redis server does not do what it is asked"),
        }
    }
}

#[cfg(test)]
mod tests;
