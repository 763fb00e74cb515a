//! A Redis Cluster: which of its servers has which keys, and what to do when that changes.
//!
//! The redis crate has a client for Clusters. It asks who has what while all requests wait, one
//! server after the other, so that one which hangs holds up those that do not; it sends pipelines
//! to one slot only; and it does not bound answers. Here, every server has a `Node` of its own,
//! and only requests for the keys of one that hangs fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::cluster_routing::Slot;
use redis::{Cmd, Pipeline, ServerErrorKind, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::debug;

use super::Failure;
use super::connector::Connector;
use super::node::Node;
use super::slots::{Map, parse_slots, redirection, server_error, slot};
use crate::config::Address;

/// The way to a Cluster. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cluster {
    shared: Arc<Shared>,
    map: watch::Receiver<Option<Result<Arc<Map>, Failure>>>,
    _task: Arc<AbortOnDrop>,
}

struct Shared {
    connector: Connector,
    seeds: Vec<Address>,
    deadline: Duration,
    runtime: Handle,
    nodes: Mutex<HashMap<Address, Node>>,
    stale: Notify,
    publish: watch::Sender<Option<Result<Arc<Map>, Failure>>>,
}

/// How often a request follows servers that point to each other.
const REDIRECTIONS: usize = 5;

/// How long to wait for a slot that is on its way to another server.
const ON_ITS_WAY: Duration = Duration::from_millis(20);

/// How much time there is at least between two looks at who has what.
const PAUSE: Duration = Duration::from_millis(200);

impl Cluster {
    /// Begins to look who has what. Any of these servers can tell.
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
        let task = runtime.spawn(refresh_topology(Arc::clone(&shared))).abort_handle();
        Self { shared, map, _task: Arc::new(AbortOnDrop(task)) }
    }

    /// What came of the first look.
    pub(super) async fn first_attempt(&self) -> Result<(), Failure> {
        self.map().await.map(|_| ())
    }

    /// Sends a command to who has its key; one without a key to who answered last, or to anybody.
    pub(super) async fn command(
        &self,
        command: &Cmd,
        last: &mut Option<Node>,
    ) -> Result<Value, Failure> {
        let map = self.map().await?;
        let Some(slot) = slot(command) else {
            let node = match last.take() {
                Some(node) => node,
                None => self.anybody(&map)?,
            };
            return node.command(command).await;
        };
        let mut node = self.owner(&map, slot)?;
        let mut asking = false;
        for _ in 0..REDIRECTIONS {
            *last = Some(node.clone());
            let answer =
                if asking { ask(&node, command).await } else { node.command(command).await };
            let answer = self.observe(answer)?;
            let Some((redirection, address)) = redirection(&answer) else { return Ok(answer) };
            asking = redirection == ServerErrorKind::Ask;
            match address {
                Some(address) => {
                    if !asking {
                        self.moved(slot, &address);
                    }
                    node = self.shared.node(&address);
                }
                None => sleep(ON_ITS_WAY).await,
            }
        }
        Err(Failure::Unready("MOVED".to_owned()))
    }

    /// Sends commands together to each of the servers that have their keys.
    pub(super) async fn commands(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> Result<Vec<Value>, Failure> {
        let map = self.map().await?;
        if pipeline.is_transaction() {
            let node = match pipeline.cmd_iter().find_map(slot) {
                Some(slot) => self.owner(&map, slot)?,
                None => self.anybody(&map)?,
            };
            return self.observe_all(node.commands(pipeline, offset, count).await);
        }
        let mut parts: HashMap<&Address, (Pipeline, Vec<usize>)> = HashMap::new();
        for (n, command) in pipeline.cmd_iter().enumerate() {
            let address = match slot(command) {
                Some(slot) => map.get(&slot).ok_or_else(|| self.nobody())?,
                None => map.values().next().ok_or_else(|| self.nobody())?,
            };
            let (part, places) = parts.entry(address).or_default();
            part.add_command(command.clone());
            places.push(n);
        }
        let answers = parts.iter().map(async |(address, (part, places))| {
            let node = self.shared.node(address);
            self.observe_all(node.commands(part, 0, places.len()).await)
        });
        let mut values = vec![Value::Nil; count];
        for (part, answers) in parts.values().zip(join_all(answers).await) {
            for (&place, value) in part.1.iter().zip(answers?) {
                values[place] = value;
            }
        }
        // Who had moved is asked anew.
        for (value, command) in values.iter_mut().zip(pipeline.cmd_iter()) {
            if redirection(value).is_some() {
                *value = self.command(command, &mut None).await?;
            }
        }
        Ok(values)
    }

    async fn map(&self) -> Result<Arc<Map>, Failure> {
        let mut map = self.map.clone();
        let known = map.wait_for(Option::is_some).await;
        match known.as_deref() {
            Ok(Some(known)) => known.clone(),
            // The runtime ends.
            Ok(None) | Err(_) => Err(Failure::Unreachable),
        }
    }

    fn owner(&self, map: &Map, slot: Slot) -> Result<Node, Failure> {
        let address = map.get(&slot).ok_or_else(|| self.nobody())?;
        Ok(self.shared.node(address))
    }

    fn anybody(&self, map: &Map) -> Result<Node, Failure> {
        let up = self.shared.nodes().values().find(|node| node.is_up()).cloned();
        let first = || map.values().next().map(|address| self.shared.node(address));
        up.or_else(first).ok_or_else(|| self.nobody())
    }

    fn nobody(&self) -> Failure {
        self.shared.stale.notify_one();
        Failure::Unready("nobody has the slot".to_owned())
    }

    /// Remembers that a slot has another owner, and finds out what else has changed.
    fn moved(&self, slot: Slot, address: &Address) {
        self.shared.publish.send_if_modified(|known| {
            let Some(Ok(map)) = known else { return false };
            Arc::make_mut(map).insert(slot, address.clone()) != Some(address.clone())
        });
        self.shared.stale.notify_one();
    }

    /// Looks anew who has what, if an answer may mean that it has changed.
    fn observe(&self, answer: Result<Value, Failure>) -> Result<Value, Failure> {
        let failure = match &answer {
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
        answer
    }

    fn observe_all(&self, answers: Result<Vec<Value>, Failure>) -> Result<Vec<Value>, Failure> {
        if answers.as_ref().map_or(true, |values| {
            values.iter().any(|value| matches!(value, Value::ServerError(_)))
        }) {
            self.shared.stale.notify_one();
        }
        answers
    }
}

impl Shared {
    fn nodes(&self) -> MutexGuard<'_, HashMap<Address, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, address: &Address) -> Node {
        let make =
            || Node::new(self.connector.clone(), address.clone(), self.deadline, &self.runtime);
        self.nodes().entry(address.clone()).or_insert_with(make).clone()
    }

    /// Asks those that are known, and if none of them tells, those that were named.
    async fn fetch_slots(&self) -> Result<Map, Failure> {
        let known: Vec<_> = self.nodes().keys().cloned().collect();
        match self.fetch_slots_from(&known).await {
            Ok(map) => Ok(map),
            Err(_) => self.fetch_slots_from(&self.seeds).await,
        }
    }

    /// Asks all at once: who hangs holds nobody up.
    async fn fetch_slots_from(&self, addresses: &[Address]) -> Result<Map, Failure> {
        let mut answers: FuturesUnordered<_> = addresses
            .iter()
            .map(async |address| {
                let node = self.node(address);
                let slots = node.command(redis::cmd("CLUSTER").arg("SLOTS")).await;
                slots.and_then(|slots| parse_slots(slots, address))
            })
            .collect();
        let mut reason = Failure::Unreachable;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(map) => return Ok(map),
                // A wrong password matters more than who is away.
                Err(_) if matches!(reason, Failure::AccessDenied(_)) => {}
                Err(failure) => reason = failure,
            }
        }
        Err(reason)
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks who has what whenever somebody has found that it is not as it was, and until it is known.
async fn refresh_topology(shared: Arc<Shared>) {
    loop {
        match shared.fetch_slots().await {
            Ok(map) => {
                debug!(slots = map.len(), "the slots of the Cluster are known");
                shared.nodes().retain(|address, _| map.values().any(|owner| owner == address));
                shared.publish.send_replace(Some(Ok(Arc::new(map))));
                sleep(PAUSE).await;
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
                sleep(PAUSE).await;
            }
        }
    }
}

async fn ask(node: &Node, command: &Cmd) -> Result<Value, Failure> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ASKING").add_command(command.clone());
    let answers = node.commands(&pipeline, 0, 2).await?;
    answers.into_iter().nth(1).ok_or_else(|| Failure::InvalidResponse("no answer".to_owned()))
}
