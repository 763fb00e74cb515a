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
use redis::{Arg, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value, from_redis_value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::debug;

use super::Failure;
use super::door::Door;
use super::node::Node;
use crate::config::Address;

/// The way to a Cluster. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cluster {
    shared: Arc<Shared>,
    map: watch::Receiver<Option<Result<Arc<Map>, Failure>>>,
    _surveyor: Arc<Surveying>,
}

struct Shared {
    door: Door,
    seeds: Vec<Address>,
    deadline: Duration,
    runtime: Handle,
    nodes: Mutex<HashMap<Address, Node>>,
    stale: Notify,
    publish: watch::Sender<Option<Result<Arc<Map>, Failure>>>,
}

/// Which server has which slot.
type Map = HashMap<Slot, Address>;

/// How often a request follows servers that point to each other.
const REDIRECTIONS: usize = 5;

/// How long to wait for a slot that is on its way to another server.
const ON_ITS_WAY: Duration = Duration::from_millis(20);

/// How much time there is at least between two looks at who has what.
const PAUSE: Duration = Duration::from_millis(200);

impl Cluster {
    /// Begins to look who has what. Any of these servers can tell.
    pub(super) fn new(door: Door, seeds: &[Address], deadline: Duration, runtime: &Handle) -> Self {
        let (publish, map) = watch::channel(None);
        let shared = Arc::new(Shared {
            door,
            seeds: seeds.to_vec(),
            deadline,
            runtime: runtime.clone(),
            nodes: Mutex::default(),
            stale: Notify::new(),
            publish,
        });
        let surveyor = runtime.spawn(survey(Arc::clone(&shared))).abort_handle();
        Self { shared, map, _surveyor: Arc::new(Surveying(surveyor)) }
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
            let answer = self.noted(answer)?;
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
            return self.noted_all(node.commands(pipeline, offset, count).await);
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
            self.noted_all(node.commands(part, 0, places.len()).await)
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
    fn noted(&self, answer: Result<Value, Failure>) -> Result<Value, Failure> {
        let failure = match &answer {
            Ok(value) => server_error(value).map(Failure::from),
            Err(failure) => Some(failure.clone()),
        };
        if matches!(
            failure,
            Some(
                Failure::Unreachable
                    | Failure::Deadline
                    | Failure::Unready(_)
                    | Failure::ReadOnly(_)
            )
        ) {
            self.shared.stale.notify_one();
        }
        answer
    }

    fn noted_all(&self, answers: Result<Vec<Value>, Failure>) -> Result<Vec<Value>, Failure> {
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
        let make = || Node::new(self.door.clone(), address.clone(), self.deadline, &self.runtime);
        self.nodes().entry(address.clone()).or_insert_with(make).clone()
    }

    /// Asks those that are known, and if none of them tells, those that were named.
    async fn look(&self) -> Result<Map, Failure> {
        let known: Vec<_> = self.nodes().keys().cloned().collect();
        match self.look_at(&known).await {
            Ok(map) => Ok(map),
            Err(_) => self.look_at(&self.seeds).await,
        }
    }

    /// Asks all at once: who hangs holds nobody up.
    async fn look_at(&self, addresses: &[Address]) -> Result<Map, Failure> {
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
                Err(_) if matches!(reason, Failure::Denied(_)) => {}
                Err(failure) => reason = failure,
            }
        }
        Err(reason)
    }
}

struct Surveying(AbortHandle);

impl Drop for Surveying {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks who has what whenever somebody has found that it is not as it was, and until it is known.
async fn survey(shared: Arc<Shared>) {
    loop {
        match shared.look().await {
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

/// The slot of a command's first key.
fn slot(command: &Cmd) -> Option<Slot> {
    let argument = |n| match command.args_iter().nth(n) {
        Some(Arg::Simple(bytes)) => Some(bytes),
        _ => None,
    };
    let key = match argument(0)?.to_ascii_uppercase().as_slice() {
        b"EVAL" | b"EVALSHA" | b"EVAL_RO" | b"EVALSHA_RO" => {
            argument(2).filter(|count| *count != b"0").and_then(|_| argument(3))
        }
        b"MEMORY" | b"OBJECT" => argument(2),
        b"CLUSTER" | b"CONFIG" | b"DBSIZE" | b"INFO" | b"PING" | b"SCRIPT" | b"TIME" => None,
        _ => argument(1),
    };
    key.map(Slot::for_key)
}

async fn ask(node: &Node, command: &Cmd) -> Result<Value, Failure> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("ASKING").add_command(command.clone());
    let answers = node.commands(&pipeline, 0, 2).await?;
    answers.into_iter().nth(1).ok_or_else(|| Failure::Nonsense("no answer".to_owned()))
}

fn server_error(value: &Value) -> Option<RedisError> {
    match value {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}

/// Where else to ask, if the answer says so; without an address, here again.
fn redirection(value: &Value) -> Option<(ServerErrorKind, Option<Address>)> {
    let error = server_error(value)?;
    match error.kind() {
        ErrorKind::Server(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
            let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
            // Without a host, it would be the same one with another port, which nobody has.
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            Some((kind, Some(Address::Tcp { host, port: port.parse().ok()? })))
        }
        ErrorKind::Server(kind @ ServerErrorKind::TryAgain) => Some((kind, None)),
        _ => None,
    }
}

/// An answer to CLUSTER SLOTS: `[[first, last, [host, port, ..], replicas ..], ..]`.
fn parse_slots(answer: Value, asked: &Address) -> Result<Map, Failure> {
    if let Some(error) = server_error(&answer) {
        return Err(error.into());
    }
    let Address::Tcp { host: asked, .. } = asked else {
        return Err(Failure::Nonsense("a Cluster on a unix socket".to_owned()));
    };
    let nonsense = || Failure::Nonsense("the slots of the Cluster".to_owned());
    let ranges: Vec<Vec<Value>> = from_redis_value(answer).map_err(|_| nonsense())?;
    let mut map = Map::new();
    for range in ranges {
        let [Value::Int(first), Value::Int(last), Value::Array(owner), ..] = range.as_slice()
        else {
            return Err(nonsense());
        };
        let [host, Value::Int(port), ..] = owner.as_slice() else { return Err(nonsense()) };
        let host = match host {
            // A server that does not know its own name.
            Value::Nil => asked.clone(),
            Value::BulkString(name) if name.is_empty() => asked.clone(),
            Value::BulkString(name) => String::from_utf8_lossy(name).into_owned(),
            _ => return Err(nonsense()),
        };
        let port = u16::try_from(*port).map_err(|_| nonsense())?;
        let slots = u16::try_from(*first).ok().zip(u16::try_from(*last).ok());
        let (first, last) = slots.ok_or_else(nonsense)?;
        for slot in first..=last {
            let slot = Slot::new(slot).ok_or_else(nonsense)?;
            map.insert(slot, Address::Tcp { host: host.clone(), port });
        }
    }
    match map.is_empty() {
        // Not set up yet.
        true => Err(Failure::Unready("no slots".to_owned())),
        false => Ok(map),
    }
}

#[cfg(test)]
mod tests {
    use redis::{cmd, parse_redis_value};

    use super::*;

    fn here() -> Address {
        Address::Tcp { host: "here".to_owned(), port: 7000 }
    }

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn commands_go_to_the_slot_of_their_key() {
        let key = Some(Slot::for_key("p:1:{ab}:x"));
        assert_eq!(Slot::for_key("p:1:{ab}:x"), Slot::for_key("ab"));
        assert_eq!(slot(cmd("hmget").arg("p:1:{ab}:x").arg("f")), key);
        assert_eq!(slot(cmd("EVALSHA").arg("sha").arg(2).arg("p:1:{ab}:x").arg("k")), key);
        assert_eq!(slot(cmd("MEMORY").arg("USAGE").arg("p:1:{ab}:x")), key);
        for without in [
            cmd("EVALSHA").arg("sha").arg(0).arg("p:1:{ab}:x"),
            cmd("SCRIPT").arg("LOAD").arg("return 1"),
            &mut cmd("PING"),
            &mut Cmd::new(),
        ] {
            assert_eq!(slot(without), None);
        }
    }

    #[test]
    fn redirections_are_understood() {
        let says = |error: &str| redirection(&parse_redis_value(error.as_bytes()).unwrap());
        let moved = |address| Some((ServerErrorKind::Moved, Some(address)));
        assert_eq!(says("-MOVED 3999 127.0.0.1:6381\r\n"), moved(tcp("127.0.0.1", 6381)));
        assert_eq!(says("-MOVED 3999 ::1:6381\r\n"), moved(tcp("::1", 6381)));
        let asks = Some((ServerErrorKind::Ask, Some(tcp("a.b", 1))));
        assert_eq!(says("-ASK 3999 a.b:1\r\n"), asks);
        assert_eq!(says("-TRYAGAIN later\r\n"), Some((ServerErrorKind::TryAgain, None)));
        for other in ["-MOVED 3999\r\n", "-MOVED x y\r\n", "-ERR no\r\n", "+OK\r\n"] {
            assert_eq!(says(other), None, "{other:?}");
        }
    }

    #[test]
    fn slots_are_read_with_their_owners() {
        let answer = b"*2\r\n*3\r\n:0\r\n:1\r\n*3\r\n$9\r\n127.0.0.1\r\n:7001\r\n$2\r\nid\r\n\
                       *4\r\n:5\r\n:5\r\n*2\r\n$0\r\n\r\n:7002\r\n*2\r\n$1\r\nr\r\n:7003\r\n";
        let map = parse_slots(parse_redis_value(answer).unwrap(), &here()).unwrap();
        let owner = |slot| map.get(&Slot::new(slot).unwrap()).cloned();
        assert_eq!(owner(1), Some(tcp("127.0.0.1", 7001)));
        assert_eq!(owner(2), None);
        assert_eq!(owner(5), Some(tcp("here", 7002)));
        assert_eq!(map.len(), 3);
    }

    #[test]
    fn slots_that_make_no_sense_are_refused() {
        for answer in [
            "*0\r\n",
            ":1\r\n",
            "-ERR This instance has cluster support disabled\r\n",
            "*1\r\n*2\r\n:0\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n$1\r\na\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
            "*1\r\n*3\r\n:-1\r\n:1\r\n*2\r\n$1\r\na\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:99999\r\n",
        ] {
            let value = parse_redis_value(answer.as_bytes()).unwrap();
            assert!(parse_slots(value, &here()).is_err(), "{answer:?}");
        }
    }
}
