//! The routing of requests to the servers of a Cluster, by their slots and by redirections.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, ServerErrorKind, Value};
use tokio::time::sleep;

use super::topology::Topology;
use crate::client::Failure;
use crate::client::node::Node;
use crate::client::request::{Repeat, Traits};
use crate::client::slots::{Slot, redirection, server_error};
use crate::config::Address;

/// Sends requests to the servers that have their slots, and follows redirections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Router {
    topology: Topology,
}

/// How often a request is redirected: two servers may redirect to each other.
const MAX_REDIRECTIONS: usize = 5;

/// The pause before a request for a slot that migrates is sent again.
const MIGRATION_PAUSE: Duration = Duration::from_millis(20);

/// The commands of a pipeline for one server.
#[derive(Default)]
struct Part {
    pipeline: Pipeline,
    /// Their places in the whole pipeline.
    places: Vec<usize>,
    slot: Option<Slot>,
}

impl Router {
    pub(super) fn new(topology: Topology) -> Self {
        Self { topology }
    }

    /// Sends a command to the owner of its key; one without a key to the server of the previous command, or to
    /// any.
    pub(super) async fn command(
        &self,
        command: &Cmd,
        traits: Traits,
        last: &mut Option<Node>,
    ) -> Result<Value, Failure> {
        let slots = self.topology.slots().await?;
        let Some(slot) = Slot::of(command) else {
            let node = match last.take() {
                Some(node) => node,
                None => self.topology.any_node(&slots)?,
            };
            return node.command(command, traits).await;
        };
        let mut address =
            slots.owner(slot).ok_or_else(|| self.topology.no_owner())?.as_ref().clone();
        let mut asking = false;
        for _ in 0..MAX_REDIRECTIONS {
            let node = self.topology.node(&address);
            *last = Some(node.clone());
            let reply = if asking {
                Ok(ask(&node, command, traits).await)
            } else {
                self.unless_moved(slot, &address, &node, traits, node.command(command, traits))
                    .await
            };
            let reply = match reply {
                Ok(reply) => self.observe(reply)?,
                Err(owner) => {
                    address = owner;
                    continue;
                }
            };
            let Some((redirection, target)) = redirection(&reply) else { return Ok(reply) };
            asking = redirection == ServerErrorKind::Ask;
            match target {
                Some(target) => {
                    if !asking {
                        self.topology.moved(slot, &target);
                    }
                    address = target;
                }
                None => sleep(MIGRATION_PAUSE).await,
            }
        }
        Err(Failure::Unready("MOVED".to_owned()))
    }

    /// Sends commands to the owners of their keys, one pipeline for each server.
    pub(super) async fn commands(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
        traits: Traits,
    ) -> Result<Vec<Value>, Failure> {
        let slots = self.topology.slots().await?;
        if pipeline.is_transaction() {
            let node = match pipeline.cmd_iter().find_map(Slot::of) {
                Some(slot) => self.topology.owner(&slots, slot)?,
                None => self.topology.any_node(&slots)?,
            };
            return self.observe_all(node.commands(pipeline, offset, count, traits).await);
        }
        let mut parts: HashMap<&Address, Part> = HashMap::new();
        for (n, command) in pipeline.cmd_iter().enumerate() {
            let slot = Slot::of(command);
            let address = match slot {
                Some(slot) => slots.owner(slot).ok_or_else(|| self.topology.no_owner())?,
                None => slots.owners().next().ok_or_else(|| self.topology.no_owner())?,
            };
            let part = parts.entry(address).or_default();
            part.pipeline.add_command(command.clone());
            part.places.push(n);
            part.slot = part.slot.or(slot);
        }
        let replies = parts.iter().map(async |(address, part)| {
            let node = self.topology.node(address);
            let share = traits.share(part.places.len(), count);
            let request = node.commands(&part.pipeline, 0, part.places.len(), share);
            let reply = match part.slot {
                Some(slot) => self.unless_moved(slot, address, &node, traits, request).await,
                None => Ok(request.await),
            };
            match reply {
                Ok(reply) => self.observe_all(reply).map(Some),
                Err(_moved) => Ok(None),
            }
        });
        let mut values = vec![None; count];
        for (part, replies) in parts.values().zip(join_all(replies).await) {
            for (&place, value) in part.places.iter().zip(replies?.into_iter().flatten()) {
                values[place] = Some(value);
            }
        }
        // Commands for slots that have moved are sent again, one by one.
        let values =
            values.into_iter().zip(pipeline.cmd_iter()).map(async |(value, command)| match value {
                Some(value) if redirection(&value).is_none() => Ok(value),
                _ => self.command(command, traits.share(1, count), &mut None).await,
            });
        join_all(values).await.into_iter().collect()
    }

    /// Waits for the reply of a server, unless the server is away and its slot gets another owner, which
    /// is the error. A request that must not be sent again only waits.
    async fn unless_moved<T>(
        &self,
        slot: Slot,
        address: &Address,
        node: &Node,
        traits: Traits,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Result<T, Failure>, Address> {
        if traits.repeat == Repeat::Never {
            return Ok(request.await);
        }
        tokio::select! {
            biased;
            reply = request => Ok(reply),
            owner = self.topology.next_owner(slot, address, node) => Err(owner),
        }
    }

    /// Has the topology fetched if a reply may mean that it has changed.
    fn observe(&self, reply: Result<Value, Failure>) -> Result<Value, Failure> {
        let failure = match &reply {
            Ok(value) => server_error(value).map(Failure::from),
            Err(failure) => Some(failure.clone()),
        };
        if matches!(
            failure,
            Some(
                Failure::Unreachable
                    | Failure::Timeout
                    | Failure::Unready(_)
                    | Failure::ReadOnly(_)
            )
        ) {
            self.topology.refresh();
        }
        reply
    }

    fn observe_all(&self, replies: Result<Vec<Value>, Failure>) -> Result<Vec<Value>, Failure> {
        if replies.as_ref().map_or(true, |values| {
            values.iter().any(|value| matches!(value, Value::ServerError(_)))
        }) {
            self.topology.refresh();
        }
        replies
    }
}

async fn ask(node: &Node, command: &Cmd, traits: Traits) -> Result<Value, Failure> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ASKING").add_command(command.clone());
    let replies = node.commands(&pipeline, 0, 2, traits).await?;
    replies.into_iter().nth(1).ok_or_else(|| Failure::InvalidResponse("no reply".to_owned()))
}
