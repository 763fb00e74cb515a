//! `--check` of the Redis cache.

use std::time::Duration;

use cvmcache::{Findings, PluginContext};

use crate::client::{Failure, RedisClient, ServerInfo, probe};
use crate::config::{Config, ConfigError};
use crate::io_threads;
use crate::plugin::RedisCache;
use crate::server_memory;
use crate::shared_size::SharedSize;

impl RedisCache {
    /// Checks a configuration, for [`Program::check`](cvmcache::Program::check): the keys, the files
    /// that they name, whether the server can be reached and accepts the login, and its memory. It sends the
    /// server PING, INFO and CLUSTER SLOTS. A server that is away is a warning, because a
    /// start waits for it.
    pub fn check(context: &PluginContext, findings: &mut Findings) {
        let errors = Config::errors(context.options());
        if !errors.is_empty() {
            return errors.iter().for_each(|error| findings.error(error));
        }
        let checked = Config::from_options(context.options())
            .and_then(|config| check_servers(&config, findings));
        if let Err(error) = checked {
            findings.error(error);
        }
    }
}

fn check_servers(config: &Config, findings: &mut Findings) -> Result<(), ConfigError> {
    let runtime = io_threads::start(1)?;
    let probed = runtime.block_on(probe(config))?;
    let total = probed.len();
    let failed: Vec<_> = probed
        .into_iter()
        .filter_map(|(address, outcome)| Some((address, outcome.err()?)))
        .collect();
    if failed.len() == total {
        for (address, error) in failed {
            let text = format!("the Redis server at {address} does not serve: {}", error.reason);
            match error.failure {
                Failure::AccessDenied(_) => findings.error(text),
                _ => findings.warning(format!(
                    "{text}; the plugin starts without it, and its requests fail until it serves"
                )),
            }
        }
        runtime.shutdown_timeout(Duration::from_secs(1));
        return Ok(());
    }
    for (address, error) in failed {
        findings.warning(format!(
            "the seed {address} of the Redis Cluster does not answer: {}; the plugin learns the nodes \
             of the other seeds",
            error.reason
        ));
    }
    let client = RedisClient::new(config, runtime.handle().clone())?;
    match client.wait(client.server_infos()) {
        Ok(servers) => judge(&client, config, &servers, findings),
        Err(Failure::AccessDenied(_)) => findings.warning(
            "the user may not send INFO, so that maxmemory and its policy are not known; add +info to \
             the user",
        ),
        Err(failure) => findings.warning(format!(
            "the Redis server does not serve: {failure}; requests fail until it does"
        )),
    }
    let size = SharedSize::new(config, client.clone());
    // What else is wrong has been found above.
    if let Ok(Some(other)) = client.wait(size.other()) {
        findings.warning(size.finding(other));
    }
    drop(size);
    drop(client);
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

fn judge(client: &RedisClient, config: &Config, servers: &[ServerInfo], findings: &mut Findings) {
    for finding in server_memory::findings(servers, config.size) {
        findings.warning(finding);
    }
    if !client.is_cluster() && servers.iter().any(|server| server.is_cluster_node) {
        findings.warning(server_memory::cluster_finding());
    }
    if servers.iter().any(|server| server.is_replica) {
        findings.warning("the server is a replica, and stores nothing; name its master");
    }
}
