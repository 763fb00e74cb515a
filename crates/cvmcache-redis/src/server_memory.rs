//! The server's `maxmemory` and its policy: how much of `SIZE` the server can hold, and the remedies when
//! that is less. They are read at each connect and once a minute, because both may change while the
//! plugin runs.

use std::sync::Arc;
use std::time::Duration;

use cvmcache::percent_of;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::client::{Failure, RedisClient, ServerInfo};
use crate::config::keys::{SIZE, URL};
use crate::eviction::Evictor;
use crate::shared_size::SharedSize;

/// What the objects may take of `maxmemory`: uploads under way, buffers of connections and what the
/// allocator cannot use come on top, see docs/redis.md.
const USABLE_PERCENT: u64 = 80;

const INTERVAL: Duration = Duration::from_secs(60);

/// What is wrong with the memory of the servers, with remedies, for a cache of `size` bytes.
pub(crate) fn findings(servers: &[ServerInfo], size: u64) -> Vec<String> {
    let mut findings = Vec::new();
    if let Some(server) = servers.iter().find(|server| server.evicts()) {
        findings.push(format!(
            "the server evicts keys by itself (maxmemory-policy {}), without knowing what is open; set \
             maxmemory-policy noeviction",
            server.maxmemory_policy
        ));
    }
    if let Some(usable) = usable(servers).filter(|usable| *usable < size) {
        let megabytes = |bytes: u64| bytes >> 20;
        findings.push(format!(
            "maxmemory of the server is too small for {}={}: objects take at most {} MB, {} % of it; set \
             maxmemory to {} MB at least, or {} to less",
            SIZE.name(),
            megabytes(size),
            megabytes(usable),
            USABLE_PERCENT,
            megabytes(size / USABLE_PERCENT * 100).max(megabytes(size) + 1),
            SIZE.name()
        ));
    }
    findings
}

/// How many bytes of objects the servers can hold; `None` if nothing bounds one of them.
pub(crate) fn usable(servers: &[ServerInfo]) -> Option<u64> {
    let bounds = servers.iter().map(|server| Some(server.maxmemory).filter(|bytes| *bytes > 0));
    let sum = bounds.sum::<Option<u64>>().filter(|_| !servers.is_empty())?;
    Some(percent_of(sum, USABLE_PERCENT))
}

/// A node of a Cluster has only some of the keys.
pub(crate) fn cluster_finding() -> String {
    format!(
        "the server is a node of a Redis Cluster, and has only some of the keys; write \
         redis+cluster:// or rediss+cluster:// in {}",
        URL.name()
    )
}

/// Follows the memory of the servers, and the size of other plugins.
pub(crate) async fn watch(client: RedisClient, evictor: Arc<Evictor>, mut shared: SharedSize) {
    let size = shared.own();
    let connected = client.connected();
    let mut logged: Vec<String> = Vec::new();
    loop {
        let mut found = Vec::new();
        match client.server_infos().await {
            Ok(servers) => {
                found = findings(&servers, size);
                if !client.is_cluster() && servers.iter().any(|server| server.is_cluster_node) {
                    found.push(cluster_finding());
                }
                for finding in found.iter().filter(|finding| !logged.contains(finding)) {
                    warn!("{finding}");
                }
                evictor.set_ceiling(usable(&servers));
            }
            Err(Failure::AccessDenied(code)) => {
                let unknown =
                    "the user may not send INFO, so that maxmemory and its policy are not known";
                found.push(unknown.to_owned());
                if logged != found {
                    info!(%code, "{unknown}; add +info to the user");
                }
            }
            // It is away, and said to be.
            Err(_) => found = logged,
        }
        logged = found;
        if let Err(error) = shared.follow().await {
            debug!(%error, "the size of other plugins is not known");
        }
        // An error is the end of the time.
        let _ = timeout(INTERVAL, connected.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(maxmemory: u64, policy: &str) -> ServerInfo {
        let maxmemory_policy = policy.to_owned();
        ServerInfo { maxmemory, maxmemory_policy, ..ServerInfo::default() }
    }

    #[test]
    fn a_server_with_enough_memory_has_no_findings() {
        for fitting in [server(0, "allkeys-lru"), server(1250, "noeviction"), server(0, "")] {
            assert_eq!(findings(&[fitting], 1000), [""; 0]);
        }
        assert_eq!(findings(&[], 1000), [""; 0]);
    }

    #[test]
    fn the_policy_and_the_maxmemory_of_a_server_are_two_findings() {
        let policy = |found: &[String]| found.iter().any(|line| line.contains("noeviction"));
        let memory = |found: &[String]| found.iter().any(|line| line.contains("maxmemory to"));
        for name in ["volatile-lru", "volatile-ttl", "allkeys-lfu"] {
            let found = findings(&[server(5000, name)], 1000);
            assert!(policy(&found) && !memory(&found), "{found:?}");
            let found = findings(&[server(1000, name)], 1000);
            assert!(policy(&found) && memory(&found), "{found:?}");
        }
        let found = findings(&[server(1000, "noeviction")], 1000);
        assert!(!policy(&found) && memory(&found), "{found:?}");
    }

    #[test]
    fn the_nodes_of_a_cluster_hold_the_objects_together() {
        assert_eq!(usable(&[server(1000, ""), server(1000, "")]), Some(1600));
        assert_eq!(usable(&[server(1000, ""), server(0, "")]), None);
        assert_eq!(usable(&[]), None);
    }
}
