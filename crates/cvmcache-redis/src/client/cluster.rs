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

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::abort::AbortOnDrop;
use super::node::Node;
use super::outages::Role;
use super::refusals::{Refusals, Verdict};
use super::request::{Repeat, Traits};
use super::slots::{Slot, SlotMap, redirection, server_error};
use super::{Failure, SharedState};
use crate::config::Address;

/// A client of a Cluster. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cluster {
    shared: Arc<Shared>,
    map: watch::Receiver<Option<Result<Arc<SlotMap>, Failure>>>,
    _refresh: Arc<AbortOnDrop>,
}

struct Shared {
    servers: SharedState,
    seeds: Vec<Address>,
    nodes: Mutex<HashMap<Address, Node>>,
    /// The published topology is, or may be, out of date.
    stale: Notify,
    publish: watch::Sender<Option<Result<Arc<SlotMap>, Failure>>>,
    /// Refusals because slots have no server, as during a failover.
    refusals: Refusals,
}

/// How often a request is redirected: two servers may redirect to each other.
const MAX_REDIRECTIONS: usize = 5;

/// The pause before a request for a slot that migrates is sent again.
const MIGRATION_PAUSE: Duration = Duration::from_millis(20);

/// The least time between two requests for the topology.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);

/// The commands of a pipeline for one server.
#[derive(Default)]
struct Part {
    pipeline: Pipeline,
    /// Their places in the whole pipeline.
    places: Vec<usize>,
    slot: Option<Slot>,
}

impl Cluster {
    /// Starts the task that fetches the topology, from any of `seeds`.
    pub(super) fn new(servers: &SharedState, seeds: &[Address]) -> Self {
        let (publish, map) = watch::channel(None);
        let shared = Arc::new(Shared {
            servers: servers.clone(),
            seeds: seeds.to_vec(),
            nodes: Mutex::default(),
            stale: Notify::new(),
            publish,
            refusals: Refusals::new(servers.deadline),
        });
        let task = refresh_topology(Arc::clone(&shared));
        let refresh = AbortOnDrop::spawn(&servers.runtime, task);
        Self { shared, map, _refresh: Arc::new(refresh) }
    }

    /// The outcome of the first request for the topology.
    pub(super) async fn first_attempt(&self) -> Result<(), Failure> {
        self.map().await.map(|_| ())
    }

    /// Sends a command to the owner of its key; one without a key to the server of the previous command,
    /// or to any. While slots have no server, it waits.
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
            let reply = self.route(command, traits, last).await;
            if !self.is_to_wait(is_down(&reply), &mut was_refused).await {
                return reply;
            }
        }
    }

    /// Sends commands to the owners of their keys, one pipeline for each server. While slots have no server, it
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
            let replies = self.route_all(pipeline, offset, count, traits).await;
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
                self.shared.refusals.accepted();
            }
            return false;
        };
        *was_refused = true;
        let verdict = self.shared.refusals.refused(&down, Instant::now());
        self.shared.stale.notify_one();
        if verdict == Verdict::Wait {
            sleep(REFRESH_PAUSE).await;
        }
        verdict == Verdict::Wait
    }

    async fn route(
        &self,
        command: &Cmd,
        traits: Traits,
        last: &mut Option<Node>,
    ) -> Result<Value, Failure> {
        let map = self.map().await?;
        let Some(slot) = Slot::of(command) else {
            let node = match last.take() {
                Some(node) => node,
                None => self.any_node(&map)?,
            };
            return node.command(command, traits).await;
        };
        let mut address = map.owner(slot).ok_or_else(|| self.no_owner())?.as_ref().clone();
        let mut asking = false;
        for _ in 0..MAX_REDIRECTIONS {
            let node = self.shared.node(&address);
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
                        self.moved(slot, &target);
                    }
                    address = target;
                }
                None => sleep(MIGRATION_PAUSE).await,
            }
        }
        Err(Failure::Unready("MOVED".to_owned()))
    }

    async fn route_all(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
        traits: Traits,
    ) -> Result<Vec<Value>, Failure> {
        let map = self.map().await?;
        if pipeline.is_transaction() {
            let node = match pipeline.cmd_iter().find_map(Slot::of) {
                Some(slot) => self.owner(&map, slot)?,
                None => self.any_node(&map)?,
            };
            return self.observe_all(node.commands(pipeline, offset, count, traits).await);
        }
        let mut parts: HashMap<&Address, Part> = HashMap::new();
        for (n, command) in pipeline.cmd_iter().enumerate() {
            let slot = Slot::of(command);
            let address = match slot {
                Some(slot) => map.owner(slot).ok_or_else(|| self.no_owner())?,
                None => map.owners().next().ok_or_else(|| self.no_owner())?,
            };
            let part = parts.entry(address).or_default();
            part.pipeline.add_command(command.clone());
            part.places.push(n);
            part.slot = part.slot.or(slot);
        }
        let replies = parts.iter().map(async |(address, part)| {
            let node = self.shared.node(address);
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
                _ => self.route(command, traits.share(1, count), &mut None).await,
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
            owner = self.next_owner(slot, address, node) => Err(owner),
        }
    }

    /// Waits until a server is away and its slot has another owner.
    async fn next_owner(&self, slot: Slot, address: &Address, node: &Node) -> Address {
        let mut map = self.map.clone();
        loop {
            // An error is the end of the time, or of the runtime.
            let _ = timeout(REFRESH_PAUSE, map.changed()).await;
            if node.is_up() {
                continue;
            }
            let owner = match &*map.borrow_and_update() {
                Some(Ok(map)) => map.owner(slot).cloned(),
                _ => None,
            };
            match owner {
                Some(owner) if *owner != *address => return owner.as_ref().clone(),
                _ => self.shared.stale.notify_one(),
            }
        }
    }

    /// The servers that have slots.
    pub(super) async fn owners(&self) -> Result<Vec<Node>, Failure> {
        let map = self.map().await?;
        let addresses: HashSet<_> = map.owners().collect();
        Ok(addresses.into_iter().map(|address| self.shared.node(address)).collect())
    }

    /// The servers that are known: those that have slots, and the seeds until these are known.
    pub(super) fn known(&self) -> Vec<Node> {
        self.shared.nodes.lock().values().cloned().collect()
    }

    /// Connects to all servers again, and fetches the topology.
    pub(super) fn reconnect(&self) {
        self.known().iter().for_each(Node::reconnect);
        self.shared.stale.notify_one();
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
        Failure::Unready("CLUSTERDOWN".to_owned())
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
        let make = || Node::new(&self.servers, address.clone(), Role::node());
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
                let mut command = redis::cmd("CLUSTER");
                let slots = node.command(command.arg("SLOTS"), Traits::REPEATABLE).await;
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

    /// Keeps the nodes that have slots.
    fn retain_owners(&self, map: &SlotMap) {
        self.nodes.lock().retain(|address, node| {
            let is_owner = map.owners().any(|owner| **owner == *address);
            if is_owner {
                node.role().has_slots();
            }
            is_owner
        });
        for owner in map.owners() {
            self.node(owner).role().has_slots();
        }
    }

    /// Why the seeds do not answer.
    fn seed_errors(&self) -> String {
        let nodes = self.nodes.lock();
        let errors = self.seeds.iter().filter_map(|seed| {
            let reason = nodes.get(seed)?.down_reason()?;
            Some(format!("{seed}: {reason}"))
        });
        errors.collect::<Vec<_>>().join("; ")
    }
}

/// Fetches the topology until it is known, and again whenever a request has found it out of date.
async fn refresh_topology(shared: Arc<Shared>) {
    let mut is_away = false;
    loop {
        match shared.fetch_slots().await {
            Ok(map) => {
                debug!(slots = map.len(), "the slots of the Cluster are known");
                if std::mem::take(&mut is_away) {
                    info!("the Redis Cluster is back");
                }
                shared.retain_owners(&map);
                shared.publish.send_replace(Some(Ok(Arc::new(map))));
                sleep(REFRESH_PAUSE).await;
                shared.stale.notified().await;
            }
            Err(failure) => {
                let unknown = shared.publish.send_if_modified(|known| {
                    let unknown = !matches!(known, Some(Ok(_)));
                    if unknown {
                        *known = Some(Err(failure.clone()));
                    }
                    unknown
                });
                // Once the owners of slots are known, each logs for itself.
                if unknown && !is_away {
                    is_away = true;
                    warn!(
                        reason = %failure, servers = %shared.seed_errors(),
                        "the Redis Cluster is away; requests fail until it is back"
                    );
                }
                sleep(REFRESH_PAUSE).await;
            }
        }
    }
}

/// Whether a reply says that the Cluster is down.
fn down(reply: &Value) -> Option<Failure> {
    server_error(reply).map(Failure::from).filter(Failure::is_of_cluster)
}

async fn ask(node: &Node, command: &Cmd, traits: Traits) -> Result<Value, Failure> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ASKING").add_command(command.clone());
    let replies = node.commands(&pipeline, 0, 2, traits).await?;
    replies.into_iter().nth(1).ok_or_else(|| Failure::InvalidResponse("no reply".to_owned()))
}
