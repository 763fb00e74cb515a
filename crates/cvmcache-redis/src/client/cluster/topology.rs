//! The topology of a Cluster: which server has which slots, fetched again when a reply contradicts it.
//!
//! One task, [`refresh_topology`], fetches the slots and publishes them; requests read what is published
//! and notify it of whatever contradicts that. The mutex of `nodes` is held for a look-up or an insertion
//! only, never across an `await` or while the slots are published.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::client::abort::AbortOnDrop;
use crate::client::node::Node;
use crate::client::outages::Role;
use crate::client::request::Traits;
use crate::client::slots::{Slot, SlotMap};
use crate::client::{Failure, SharedState};
use crate::config::Address;

/// The slots of a Cluster and the clients of its servers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Topology {
    shared: Arc<Shared>,
    published: watch::Receiver<Option<Result<Arc<SlotMap>, Failure>>>,
    _refresh: Arc<AbortOnDrop>,
}

struct Shared {
    servers: SharedState,
    seeds: Vec<Address>,
    nodes: Mutex<HashMap<Address, Node>>,
    /// The published topology is, or may be, out of date.
    stale: Notify,
    publish: watch::Sender<Option<Result<Arc<SlotMap>, Failure>>>,
}

/// The least time between two requests for the topology.
pub(super) const REFRESH_PAUSE: Duration = Duration::from_millis(200);

impl Topology {
    /// Starts the task that fetches the topology, from any of `seeds`.
    pub(super) fn new(servers: &SharedState, seeds: &[Address]) -> Self {
        let (publish, published) = watch::channel(None);
        let shared = Arc::new(Shared {
            servers: servers.clone(),
            seeds: seeds.to_vec(),
            nodes: Mutex::default(),
            stale: Notify::new(),
            publish,
        });
        let task = refresh_topology(Arc::clone(&shared));
        let refresh = AbortOnDrop::spawn(&servers.runtime, task);
        Self { shared, published, _refresh: Arc::new(refresh) }
    }

    /// Has the topology fetched again.
    pub(super) fn refresh(&self) {
        self.shared.stale.notify_one();
    }

    /// The client of a server.
    pub(super) fn node(&self, address: &Address) -> Node {
        self.shared.node(address)
    }

    /// The slots, once they are known.
    pub(super) async fn slots(&self) -> Result<Arc<SlotMap>, Failure> {
        let mut published = self.published.clone();
        let known = published.wait_for(Option::is_some).await;
        match known.as_deref() {
            Ok(Some(known)) => known.clone(),
            // The runtime ends.
            Ok(None) | Err(_) => Err(Failure::Unreachable),
        }
    }

    pub(super) fn owner(&self, slots: &SlotMap, slot: Slot) -> Result<Node, Failure> {
        let address = slots.owner(slot).ok_or_else(|| self.no_owner())?;
        Ok(self.shared.node(address))
    }

    pub(super) fn any_node(&self, slots: &SlotMap) -> Result<Node, Failure> {
        let up = self.shared.nodes.lock().values().find(|node| node.is_up()).cloned();
        let first = || slots.owners().next().map(|address| self.shared.node(address));
        up.or_else(first).ok_or_else(|| self.no_owner())
    }

    pub(super) fn no_owner(&self) -> Failure {
        self.refresh();
        Failure::Unready("CLUSTERDOWN".to_owned())
    }

    /// Publishes that a slot has moved, and has the whole topology fetched: more may have moved.
    pub(super) fn moved(&self, slot: Slot, address: &Address) {
        self.shared.publish.send_if_modified(|known| {
            let Some(Ok(map)) = known else { return false };
            Arc::make_mut(map).assign(slot, address)
        });
        self.refresh();
    }

    /// Waits until a server is away and its slot has another owner.
    pub(super) async fn next_owner(&self, slot: Slot, address: &Address, node: &Node) -> Address {
        let mut published = self.published.clone();
        loop {
            // An error is the end of the time, or of the runtime.
            let _ = timeout(REFRESH_PAUSE, published.changed()).await;
            if node.is_up() {
                continue;
            }
            let owner = match &*published.borrow_and_update() {
                Some(Ok(map)) => map.owner(slot).cloned(),
                _ => None,
            };
            match owner {
                Some(owner) if *owner != *address => return owner.as_ref().clone(),
                _ => self.refresh(),
            }
        }
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
