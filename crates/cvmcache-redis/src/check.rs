//! `--check` of the Redis cache.

use std::time::Duration;

use cvmcache::{Findings, PluginContext};

use crate::client::RedisClient;
use crate::config::{Config, ConfigError};
use crate::io_threads;
use crate::plugin::RedisCache;

impl RedisCache {
    /// Judges a configuration, for [`Program::check`](cvmcache::Program::check): the keys, the files
    /// that they name, and whether the server can be reached and lets the plugin in. It asks the server
    /// for nothing but a PING. A server that is away is a warning, because a start waits for it.
    pub fn check(context: &PluginContext, findings: &mut Findings) {
        let errors = Config::errors(context.options());
        if !errors.is_empty() {
            return errors.iter().for_each(|error| findings.error(error));
        }
        let pinged = Config::from_options(context.options()).and_then(|config| ping(&config));
        match pinged {
            Ok(None) => {}
            Ok(Some(reason)) => findings.warning(format!(
                "the Redis server does not answer ({reason}): start it, or correct its address; the \
                 plugin starts without it, and requests fail until it answers"
            )),
            Err(error) => findings.error(error),
        }
    }
}

/// Connects to the server, and returns why it does not answer.
fn ping(config: &Config) -> Result<Option<String>, ConfigError> {
    let runtime = io_threads::start(1)?;
    let client = RedisClient::new(config, runtime.handle().clone())?;
    let answer = client
        .wait(client.command::<String>(crate::client::Traits::REPEATABLE, &redis::cmd("PING")));
    drop(client);
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(answer.err().map(|failure| failure.to_string()))
}
