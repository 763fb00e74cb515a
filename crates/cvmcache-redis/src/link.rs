//! The way to the server: one type for all kinds of them, with deadlines.

use std::future::Future;
use std::time::Duration;

use cvmcache::plugin::Status;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{ErrorKind, FromRedisValue, RedisError, ServerErrorKind};
use thiserror::Error;
use tokio::runtime::Handle;

use crate::config::{Config, ConfigError};

/// A connection to the server that is made anew when it breaks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    manager: ConnectionManager,
    runtime: Handle,
    timeout: Duration,
}

/// Why the server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Failure {
    #[error("the server cannot be reached")]
    Unreachable,
    #[error("the server did not answer in time")]
    Deadline,
    #[error("the server is out of memory")]
    OutOfMemory,
    #[error("the server takes no changes")]
    ReadOnly,
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("the server answers what makes no sense: {0}")]
    Nonsense(String),
}

impl Link {
    pub(crate) fn new(config: &Config, runtime: Handle) -> Result<Self, ConfigError> {
        let client = redis::Client::open(config.url.as_str()).map_err(ConfigError::Url)?;
        let manager = {
            let _inside = runtime.enter();
            ConnectionManager::new_lazy_with_config(client, ConnectionManagerConfig::new())
                .map_err(ConfigError::Url)?
        };
        Ok(Self { manager, runtime, timeout: config.timeout })
    }

    /// Waits for the work to be done, but not longer than requests may take.
    pub(crate) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.runtime.block_on(async {
            tokio::time::timeout(self.timeout, work).await.unwrap_or(Err(Failure::Deadline))
        })
    }

    pub(crate) async fn command<T: FromRedisValue>(
        &self,
        command: &redis::Cmd,
    ) -> Result<T, Failure> {
        command.query_async(&mut self.manager.clone()).await.map_err(Failure::from)
    }

    /// Sends commands together. Their keys may live in several slots.
    pub(crate) async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &redis::Pipeline,
    ) -> Result<T, Failure> {
        pipeline.query_async(&mut self.manager.clone()).await.map_err(Failure::from)
    }

    /// Runs a script, which the server is given if it does not know it.
    pub(crate) async fn script<T: FromRedisValue>(
        &self,
        call: &redis::ScriptInvocation<'_>,
    ) -> Result<T, Failure> {
        call.invoke_async(&mut self.manager.clone()).await.map_err(Failure::from)
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Failure::ReadOnly,
            _ if error.code() == Some("OOM") => Failure::OutOfMemory,
            ErrorKind::UnexpectedReturnType | ErrorKind::Parse => {
                Failure::Nonsense(error.to_string())
            }
            _ if error.is_timeout() => Failure::Deadline,
            _ if error.is_io_error() || error.is_unrecoverable_error() => Failure::Unreachable,
            _ => Failure::Refused(error.to_string()),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Deadline => Status::Timeout,
            Failure::OutOfMemory => Status::NoSpace,
            _ => Status::IoErr,
        }
    }
}
