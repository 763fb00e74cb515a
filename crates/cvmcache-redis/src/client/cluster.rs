//! A Redis Cluster: requests to the owners of their keys, which wait while slots have no owner.
//!
//! The redis crate has a client for Clusters. It fetches the topology while all requests wait, from one
//! server after the other, so that one which hangs holds up those that do not; it sends pipelines
//! to one slot only; and it does not bound replies. Here, every server has a `Node` of its own,
//! and only requests for the keys of one that hangs fail.

mod routing;
mod topology;

use std::collections::HashSet;
use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};
use tokio::time::{Instant, sleep};

use super::node::Node;
use super::refusals::{Refusals, Verdict};
use super::request::{Repeat, Traits};
use super::slots::server_error;
use super::{Failure, SharedState};
use crate::config::Address;
use routing::Router;
use topology::{REFRESH_PAUSE, Topology};

/// A client of a Cluster. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cluster {
    router: Router,
    topology: Topology,
    /// Refusals because slots have no owner, as during a failover.
    refusals: Arc<Refusals>,
}

impl Cluster {
    /// Starts the task that fetches the topology, from any of `seeds`.
    pub(super) fn new(servers: &SharedState, seeds: &[Address]) -> Self {
        let topology = Topology::new(servers, seeds);
        let refusals = Arc::new(Refusals::new(servers.deadline));
        Self { router: Router::new(topology.clone()), topology, refusals }
    }

    /// The outcome of the first request for the topology.
    pub(super) async fn first_attempt(&self) -> Result<(), Failure> {
        self.topology.slots().await.map(|_| ())
    }

    /// The servers that have slots.
    pub(super) async fn owners(&self) -> Result<Vec<Node>, Failure> {
        let slots = self.topology.slots().await?;
        let addresses: HashSet<_> = slots.owners().collect();
        Ok(addresses.into_iter().map(|address| self.topology.node(address)).collect())
    }

    /// Sends a command to the owner of its key; one without a key to the server of the previous command,
    /// or to any. While slots have no owner, it waits.
    pub(super) async fn command(
        &self,
        command: &Cmd,
        traits: Traits,
        last: &mut Option<Node>,
    ) -> Result<Value, Failure> {
        let is_down = |reply: &Result<Value, Failure>| match reply {
            Ok(value) => down(value),
            Err(failure) => Some(failure.clone()).filter(Failure::is_of_cluster),
        };
        let mut was_refused = false;
        loop {
            let reply = self.router.command(command, traits, last).await;
            if !self.is_to_wait(is_down(&reply), &mut was_refused).await {
                return reply;
            }
        }
    }

    /// Sends commands to the owners of their keys, one pipeline for each server. While slots have no owner, it
    /// waits.
    pub(super) async fn commands(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
        traits: Traits,
    ) -> Result<Vec<Value>, Failure> {
        let is_down = |replies: &Result<Vec<Value>, Failure>| match replies {
            // Some of the commands may have run.
            _ if traits.repeat == Repeat::Never => None,
            Ok(values) => values.iter().find_map(down),
            Err(failure) => Some(failure.clone()).filter(Failure::is_of_cluster),
        };
        let mut was_refused = false;
        loop {
            let replies = self.router.commands(pipeline, offset, count, traits).await;
            if !self.is_to_wait(is_down(&replies), &mut was_refused).await {
                return replies;
            }
        }
    }

    /// Waits after a reply that says that the Cluster is down, unless it has been down for long. True if the
    /// request is to be sent again.
    async fn is_to_wait(&self, down: Option<Failure>, was_refused: &mut bool) -> bool {
        let Some(down) = down else {
            if *was_refused {
                self.refusals.accepted();
            }
            return false;
        };
        *was_refused = true;
        let verdict = self.refusals.refused(&down, Instant::now());
        self.topology.refresh();
        if verdict == Verdict::Wait {
            sleep(REFRESH_PAUSE).await;
        }
        verdict == Verdict::Wait
    }
}

/// Whether a reply says that the Cluster is down.
fn down(reply: &Value) -> Option<Failure> {
    server_error(reply).map(Failure::from).filter(Failure::is_of_cluster)
}
