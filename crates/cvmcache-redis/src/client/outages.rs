//! What the log says of a server that is away, refuses requests, or whose connection was lost: one line for an
//! outage, and one a minute for connections that are lost or replaced again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::Failure;
use super::connect_error::ConnectError;
use crate::config::Address;

/// What a server is for. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Role {
    is_node: bool,
    has_slots: Arc<AtomicBool>,
}

impl Role {
    /// The only server.
    pub(super) fn only() -> Self {
        Self { is_node: false, has_slots: Arc::new(AtomicBool::new(true)) }
    }

    /// A node of a Cluster, whose slots are not known yet.
    pub(super) fn node() -> Self {
        Self { is_node: true, has_slots: Arc::default() }
    }

    /// Requests are for this node.
    pub(super) fn has_slots(&self) {
        self.has_slots.store(true, Ordering::Relaxed);
    }

    fn is_asked(&self) -> bool {
        self.has_slots.load(Ordering::Relaxed)
    }
}

/// The log of one server.
pub(super) struct OutageLog {
    address: Address,
    role: Role,
    /// What was logged of a server that is away.
    logged: Option<Logged>,
    losses: Losses,
    /// When a refusal was logged.
    refused: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Logged {
    Away,
    AccessDenied,
}

/// Connections that were lost since the last line.
#[derive(Debug, Default)]
struct Losses {
    connections: u64,
    requests: u64,
    logged: Option<Instant>,
}

/// The least time between two lines about connections that were lost, or replaced.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

impl OutageLog {
    pub(super) fn new(address: Address, role: Role) -> Self {
        Self { address, role, logged: None, losses: Losses::default(), refused: None }
    }

    /// Requests fail.
    pub(super) fn down(&mut self, error: &ConnectError) {
        let (server, reason) = (&self.address, &error.reason);
        if !self.role.is_asked() {
            // The Cluster logs when none of its seeds answers.
            debug!(%server, %reason, "a node of the Cluster does not answer");
            return;
        }
        let denied = matches!(error.failure, Failure::AccessDenied(_));
        // Denied access needs an administrator and is logged; that the server is still away is not.
        if self.logged.is_some_and(|logged| !denied || logged == Logged::AccessDenied) {
            return;
        }
        if self.role.is_node {
            warn!(
                %server, %reason,
                "a node of the Redis Cluster is away; requests for its keys fail until it is back"
            );
        } else {
            warn!(%server, %reason, "the Redis server is away; requests fail until it is back");
        }
        self.logged = Some(if denied { Logged::AccessDenied } else { Logged::Away });
    }

    /// There is a connection.
    pub(super) fn up(&mut self) {
        if self.logged.take().is_some() {
            let node =
                if self.role.is_node { "a node of the Redis Cluster" } else { "the Redis server" };
            info!(server = %self.address, "{node} is back");
        }
    }

    /// A connection is replaced because the server refuses requests.
    pub(super) fn refused(&mut self, reason: &Failure) {
        let now = Instant::now();
        if self.refused.is_some_and(|logged| now.duration_since(logged) < LOG_INTERVAL) {
            return;
        }
        self.refused = Some(now);
        warn!(
            server = %self.address, %reason,
            "the Redis server refuses requests; connecting again, in case its name leads to another one"
        );
    }

    /// A connection was lost with so many requests in flight.
    pub(super) fn lost(&mut self, requests: u64) {
        self.losses.add(requests);
        if let Some((connections, requests)) = self.losses.take_due(Instant::now()) {
            warn!(
                server = %self.address, connections, requests,
                "connections to the Redis server were lost with requests in flight; these are sent \
                 again. If it goes on, look for CLIENT KILL, client-output-buffer-limit, \
                 maxmemory-clients or a proxy"
            );
        }
    }
}

impl Losses {
    fn add(&mut self, requests: u64) {
        self.connections += 1;
        self.requests += requests;
    }

    /// The connections and requests since the last line, if another one is due.
    fn take_due(&mut self, now: Instant) -> Option<(u64, u64)> {
        if self.logged.is_some_and(|logged| now.duration_since(logged) < LOG_INTERVAL) {
            return None;
        }
        let due = (self.connections, self.requests);
        *self = Self { logged: Some(now), ..Self::default() };
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_logged_once_a_minute_with_their_number() {
        let (mut losses, begin) = (Losses::default(), Instant::now());
        losses.add(3);
        assert_eq!(losses.take_due(begin), Some((1, 3)));
        losses.add(2);
        losses.add(5);
        assert_eq!(losses.take_due(begin + LOG_INTERVAL / 2), None);
        assert_eq!(losses.take_due(begin + LOG_INTERVAL), Some((2, 7)));
    }
}
