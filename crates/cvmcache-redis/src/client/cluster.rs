//! A Redis Cluster: its topology, and the routing of requests by it.
//!
//! The redis crate has a client for Clusters. It fetches the topology while all requests wait, from one
//! server after the other, so that one which hangs holds up those that do not; it sends pipelines
//! to one slot only; and it does not bound replies. Here, every server has a `Node` of its own,
//! and only requests for the keys of one that hangs fail.
//!
//! One task, [`refresh_topology`], fetches the slots and publishes them; requests read what is published
//! and notify it of whatever contradicts that. The mutex of `nodes` is held for a look-up or an insertion
//! only, never across an `await` or while the map is published.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, ServerErrorKind, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::debug;

use super::Failure;
use super::abort::AbortOnDrop;
use super::connector::Connector;
use super::node::Node;
use super::slots::{Slot, SlotMap, redirection, server_error};
use crate::config::Address;

/// A client of a Cluster. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cluster {
    shared: Arc<Shared>,
    map: watch::Receiver<Option<Result<Arc<SlotMap>, Failure>>>,
    _refresh: Arc<AbortOnDrop>,
}

struct Shared {
    connector: Connector,
    seeds: Vec<Address>,
    deadline: Duration,
    runtime: Handle,
    nodes: Mutex<HashMap<Address, Node>>,
    /// The published topology is, or may be, out of date.
    stale: Notify,
    publish: watch::Sender<Option<Result<Arc<SlotMap>, Failure>>>,
}

/// How often a request is redirected: two servers may redirect to each other.
const MAX_REDIRECTIONS: usize = 5;

/// The pause before a request for a slot that migrates is sent again.
const MIGRATION_PAUSE: Duration = Duration::from_millis(20);

/// The least time between two requests for the topology.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);

impl Cluster {
    /// Starts the task that fetches the topology, from any of `seeds`.
    pub(super) fn new(
        connector: Connector,
        seeds: &[Address],
        deadline: Duration,
        runtime: &Handle,
    ) -> Self {
        let (publish, map) = watch::channel(None);
        let shared = Arc::new(Shared {
            connector,
            seeds: seeds.to_vec(),
            deadline,
            runtime: runtime.clone(),
            nodes: Mutex::default(),
            stale: Notify::new(),
            publish,
        });
        let refresh = AbortOnDrop::spawn(runtime, refresh_topology(Arc::clone(&shared)));
        Self { shared, map, _refresh: Arc::new(refresh) }
    }

    /// The outcome of the first request for the topology.
    pub(super) async fn first_attempt(&self) -> Result<(), Failure> {
        self.map().await.map(|_| ())
    }

    /// Sends a command to the owner of its key; one without a key to the server of the previous command,
    /// or to any.
    pub(super) async fn command(
        &self,
        command: &Cmd,
        last: &mut Option<Node>,
    ) -> Result<Value, Failure> {
        let map = self.map().await?;
        let Some(slot) = Slot::of(command) else {
            let node = match last.take() {
                Some(node) => node,
                None => self.any_node(&map)?,
            };
            return node.command(command).await;
        };
        let mut node = self.owner(&map, slot)?;
        let mut asking = false;
        for _ in 0..MAX_REDIRECTIONS {
            *last = Some(node.clone());
            let reply =
                if asking { ask(&node, command).await } else { node.command(command).await };
            let reply = self.observe(reply)?;
            let Some((redirection, address)) = redirection(&reply) else { return Ok(reply) };
            asking = redirection == ServerErrorKind::Ask;
            match address {
                Some(address) => {
                    if !asking {
                        self.moved(slot, &address);
                    }
                    node = self.shared.node(&address);
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
    ) -> Result<Vec<Value>, Failure> {
        let map = self.map().await?;
        if pipeline.is_transaction() {
            let node = match pipeline.cmd_iter().find_map(Slot::of) {
                Some(slot) => self.owner(&map, slot)?,
                None => self.any_node(&map)?,
            };
            return self.observe_all(node.commands(pipeline, offset, count).await);
        }
        let mut parts: HashMap<&Address, (Pipeline, Vec<usize>)> = HashMap::new();
        for (n, command) in pipeline.cmd_iter().enumerate() {
            let address = match Slot::of(command) {
                Some(slot) => map.owner(slot).ok_or_else(|| self.no_owner())?,
                None => map.owners().next().ok_or_else(|| self.no_owner())?,
            };
            let (part, places) = parts.entry(address).or_default();
            part.add_command(command.clone());
            places.push(n);
        }
        let replies = parts.iter().map(async |(address, (part, places))| {
            let node = self.shared.node(address);
            self.observe_all(node.commands(part, 0, places.len()).await)
        });
        let mut values = vec![Value::Nil; count];
        for (part, replies) in parts.values().zip(join_all(replies).await) {
            for (&place, value) in part.1.iter().zip(replies?) {
                values[place] = value;
            }
        }
        // Commands for slots that have moved are sent again, one by one.
        for (value, command) in values.iter_mut().zip(pipeline.cmd_iter()) {
            if redirection(value).is_some() {
                *value = self.command(command, &mut None).await?;
            }
        }
        Ok(values)
    }

    async fn map(&self) -> Result<Arc<SlotMap>, Failure> {
        let mut map = self.map.clone();
        let known = map.wait_for(Option::is_some).await;
        match known.as_deref() {
            Ok(Some(known)) => known.clone(),
            // The runtime ends.
            Ok(None) | Err(_) => Err(Failure::Unreachable),
        }
    }

    fn owner(&self, map: &SlotMap, slot: Slot) -> Result<Node, Failure> {
        let address = map.owner(slot).ok_or_else(|| self.no_owner())?;
        Ok(self.shared.node(address))
    }

    fn any_node(&self, map: &SlotMap) -> Result<Node, Failure> {
        let up = self.shared.nodes.lock().values().find(|node| node.is_up()).cloned();
        let first = || map.owners().next().map(|address| self.shared.node(address));
        up.or_else(first).ok_or_else(|| self.no_owner())
    }

    fn no_owner(&self) -> Failure {
        self.shared.stale.notify_one();
        Failure::Unready("no server has the slot".to_owned())
    }

    /// Publishes that a slot has moved, and has the whole topology fetched: more may have moved.
    fn moved(&self, slot: Slot, address: &Address) {
        self.shared.publish.send_if_modified(|known| {
            let Some(Ok(map)) = known else { return false };
            Arc::make_mut(map).assign(slot, address)
        });
        self.shared.stale.notify_one();
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
            self.shared.stale.notify_one();
        }
        reply
    }

    fn observe_all(&self, replies: Result<Vec<Value>, Failure>) -> Result<Vec<Value>, Failure> {
        if replies.as_ref().map_or(true, |values| {
            values.iter().any(|value| matches!(value, Value::ServerError(_)))
        }) {
            self.shared.stale.notify_one();
        }
        replies
    }
}

impl Shared {
    fn node(&self, address: &Address) -> Node {
        let make =
            || Node::new(self.connector.clone(), address.clone(), self.deadline, &self.runtime);
        self.nodes.lock().entry(address.clone()).or_insert_with(make).clone()
    }

    /// Fetches the topology from the known servers and, if none of them has it, from the seeds.
    async fn fetch_slots(&self) -> Result<SlotMap, Failure> {
        let known: Vec<_> = self.nodes.lock().keys().cloned().collect();
        match self.fetch_slots_from(&known).await {
            Ok(map) => Ok(map),
            Err(_) => self.fetch_slots_from(&self.seeds).await,
        }
    }

    /// Sends the request to all servers at once: one that hangs delays no other. The first reply wins.
    async fn fetch_slots_from(&self, addresses: &[Address]) -> Result<SlotMap, Failure> {
        let mut replies: FuturesUnordered<_> = addresses
            .iter()
            .map(async |address| {
                let node = self.node(address);
                let slots = node.command(redis::cmd("CLUSTER").arg("SLOTS")).await;
                slots.and_then(|slots| SlotMap::parse(slots, address))
            })
            .collect();
        let mut reason = Failure::Unreachable;
        while let Some(reply) = replies.next().await {
            match reply {
                Ok(map) => return Ok(map),
                // A wrong password is worth more in the log than a server that is away.
                Err(_) if matches!(reason, Failure::AccessDenied(_)) => {}
                Err(failure) => reason = failure,
            }
        }
        Err(reason)
    }
}

/// Fetches the topology until it is known, and again whenever a request has found it out of date.
async fn refresh_topology(shared: Arc<Shared>) {
    loop {
        match shared.fetch_slots().await {
            Ok(map) => {
                debug!(slots = map.len(), "the slots of the Cluster are known");
                shared
                    .nodes
                    .lock()
                    .retain(|address, _| map.owners().any(|owner| **owner == *address));
                shared.publish.send_replace(Some(Ok(Arc::new(map))));
                sleep(REFRESH_PAUSE).await;
                shared.stale.notified().await;
            }
            Err(failure) => {
                shared.publish.send_if_modified(|known| {
                    let unknown = !matches!(known, Some(Ok(_)));
                    if unknown {
                        *known = Some(Err(failure));
                    }
                    unknown
                });
                sleep(REFRESH_PAUSE).await;
            }
        }
    }
}

async fn ask(node: &Node, command: &Cmd) -> Result<Value, Failure> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ASKING").add_command(command.clone());
    let replies = node.commands(&pipeline, 0, 2).await?;
    replies.into_iter().nth(1).ok_or_else(|| Failure::InvalidResponse("no reply".to_owned()))
}
