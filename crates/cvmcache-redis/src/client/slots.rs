//! The hash slots of a Cluster: which server has which, and the redirections of its replies. There is no
//! I/O in this file.

use std::collections::BTreeMap;
use std::sync::Arc;

use crc16::{State, XMODEM};
use redis::{Arg, Cmd, ErrorKind, RedisError, ServerErrorKind, Value, from_redis_value};

use super::Failure;
use crate::config::Address;

/// A hash slot, less than [`SLOTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u16);

/// Fixed by the Cluster protocol: `CLUSTER_SLOTS` in the server's cluster.h.
const SLOTS: u16 = 16_384;

impl Slot {
    fn new(number: i64) -> Option<Self> {
        u16::try_from(number).ok().filter(|number| *number < SLOTS).map(Self)
    }

    /// The slot of a key: CRC-16/XMODEM of its hash tag or, without one, of all of it. The type of the
    /// redis crate does not expose the number.
    pub(super) fn for_key(key: &[u8]) -> Self {
        Self(State::<XMODEM>::calculate(hash_tag(key).unwrap_or(key)) % SLOTS)
    }

    /// The slot of a command's first key.
    pub(super) fn of(command: &Cmd) -> Option<Self> {
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
        key.map(Self::for_key)
    }
}

/// What stands between the first `{` and the next `}`, unless it is empty.
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|&byte| byte == b'}')?;
    Some(&rest[..close]).filter(|tag| !tag.is_empty())
}

/// Which server has which slot: as in `CLUSTER SLOTS`, a few ranges for each server.
///
/// Invariant: ranges do not overlap, and neighbours that have one owner are one range. So a clone copies
/// as many entries as `CLUSTER SLOTS` has, and a reference count each, and so does the update after a
/// MOVED.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SlotMap(BTreeMap<Slot, Range>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    last: Slot,
    owner: Arc<Address>,
}

impl SlotMap {
    pub(super) fn owner(&self, slot: Slot) -> Option<&Arc<Address>> {
        let (_, range) = self.0.range(..=slot).next_back()?;
        (slot <= range.last).then_some(&range.owner)
    }

    /// Gives a slot to a server. False if it had it already.
    pub(super) fn assign(&mut self, slot: Slot, owner: &Address) -> bool {
        if self.owner(slot).is_some_and(|known| **known == *owner) {
            return false;
        }
        // The address of a server that has slots already is shared, not copied.
        let known = self.owners().find(|known| ***known == *owner);
        let owner = known.map_or_else(|| Arc::new(owner.clone()), Arc::clone);
        self.assign_range(slot, slot, owner);
        true
    }

    fn assign_range(&mut self, first: Slot, last: Slot, owner: Arc<Address>) {
        let (mut first, mut last) = (first, last);
        let overlapping: Vec<_> = self
            .0
            .range(..=last)
            .rev()
            .take_while(|(_, range)| range.last >= first)
            .map(|(start, _)| *start)
            .collect();
        for start in overlapping {
            let Some(old) = self.0.remove(&start) else { continue };
            if start < first {
                let before = Range { last: Slot(first.0 - 1), owner: Arc::clone(&old.owner) };
                self.0.insert(start, before);
            }
            if old.last > last {
                self.0.insert(Slot(last.0 + 1), old);
            }
        }
        let before = self.0.range(..first).next_back();
        let is_neighbour = |range: &Range| range.last.0 + 1 == first.0 && range.owner == owner;
        if let Some((&start, _)) = before.filter(|(_, range)| is_neighbour(range)) {
            first = start;
        }
        if let Some(after) = self.0.get(&Slot(last.0 + 1)).filter(|after| after.owner == owner) {
            let (start, end) = (Slot(last.0 + 1), after.last);
            self.0.remove(&start);
            last = end;
        }
        self.0.insert(first, Range { last, owner });
    }

    /// The servers that have slots; one with several ranges comes several times.
    pub(super) fn owners(&self) -> impl Iterator<Item = &Arc<Address>> {
        self.0.values().map(|range| &range.owner)
    }

    /// How many slots have an owner.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|(first, range)| usize::from(range.last.0 - first.0) + 1).sum()
    }

    /// Reads a reply to CLUSTER SLOTS: `[[first, last, [host, port, ..], replicas ..], ..]`.
    pub(super) fn parse(reply: Value, asked: &Address) -> Result<Self, Failure> {
        if let Some(error) = server_error(&reply) {
            return Err(error.into());
        }
        let Address::Tcp { host: asked, .. } = asked else {
            return Err(Failure::InvalidResponse("a Cluster on a unix socket".to_owned()));
        };
        let invalid = || Failure::InvalidResponse("the slots of the Cluster".to_owned());
        let ranges: Vec<Vec<Value>> = from_redis_value(reply).map_err(|_| invalid())?;
        let mut map = Self::default();
        for range in ranges {
            let [Value::Int(first), Value::Int(last), Value::Array(owner), ..] = range.as_slice()
            else {
                return Err(invalid());
            };
            let [host, Value::Int(port), ..] = owner.as_slice() else { return Err(invalid()) };
            let host = match host {
                // A server that does not know its own name.
                Value::Nil => asked.clone(),
                Value::BulkString(name) if name.is_empty() => asked.clone(),
                Value::BulkString(name) => String::from_utf8_lossy(name).into_owned(),
                _ => return Err(invalid()),
            };
            let port = u16::try_from(*port).map_err(|_| invalid())?;
            let slots = Slot::new(*first).zip(Slot::new(*last));
            let (first, last) = slots.ok_or_else(invalid)?;
            if first <= last {
                map.assign_range(first, last, Arc::new(Address::Tcp { host, port }));
            }
        }
        match map.0.is_empty() {
            // Not set up yet.
            true => Err(Failure::Unready("no slots".to_owned())),
            false => Ok(map),
        }
    }
}

pub(super) fn server_error(value: &Value) -> Option<RedisError> {
    match value {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}

/// The server that a reply redirects to; without an address, the same one later.
pub(super) fn redirection(value: &Value) -> Option<(ServerErrorKind, Option<Address>)> {
    let error = server_error(value)?;
    match error.kind() {
        ErrorKind::Server(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
            let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
            // Without a host, it would be the same one with another port: no server sends that.
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            Some((kind, Some(Address::Tcp { host, port: port.parse().ok()? })))
        }
        ErrorKind::Server(kind @ ServerErrorKind::TryAgain) => Some((kind, None)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::{cmd, parse_redis_value};

    use super::*;

    fn here() -> Address {
        Address::Tcp { host: "here".to_owned(), port: 7000 }
    }

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn a_command_goes_to_the_slot_of_its_first_key() {
        let key = Some(Slot::for_key(b"p:1:{ab}:x"));
        assert_eq!(Slot::for_key(b"p:1:{ab}:x"), Slot::for_key(b"ab"));
        assert_eq!(Slot::of(cmd("hmget").arg("p:1:{ab}:x").arg("f")), key);
        assert_eq!(Slot::of(cmd("EVALSHA").arg("sha").arg(2).arg("p:1:{ab}:x").arg("k")), key);
        assert_eq!(Slot::of(cmd("MEMORY").arg("USAGE").arg("p:1:{ab}:x")), key);
        for without in [
            cmd("EVALSHA").arg("sha").arg(0).arg("p:1:{ab}:x"),
            cmd("SCRIPT").arg("LOAD").arg("return 1"),
            &mut cmd("PING"),
            &mut Cmd::new(),
        ] {
            assert_eq!(Slot::of(without), None);
        }
    }

    #[test]
    fn redirections_are_read_with_their_address() {
        let redirected = |error: &str| redirection(&parse_redis_value(error.as_bytes()).unwrap());
        let moved = |address| Some((ServerErrorKind::Moved, Some(address)));
        assert_eq!(redirected("-MOVED 3999 127.0.0.1:6381\r\n"), moved(tcp("127.0.0.1", 6381)));
        assert_eq!(redirected("-MOVED 3999 ::1:6381\r\n"), moved(tcp("::1", 6381)));
        let ask = Some((ServerErrorKind::Ask, Some(tcp("a.b", 1))));
        assert_eq!(redirected("-ASK 3999 a.b:1\r\n"), ask);
        assert_eq!(redirected("-TRYAGAIN later\r\n"), Some((ServerErrorKind::TryAgain, None)));
        for other in ["-MOVED 3999\r\n", "-MOVED x y\r\n", "-ERR no\r\n", "+OK\r\n"] {
            assert_eq!(redirected(other), None, "{other:?}");
        }
    }

    #[test]
    fn cluster_slots_are_read_with_their_owners() {
        let reply = b"*2\r\n*3\r\n:0\r\n:1\r\n*3\r\n$9\r\n127.0.0.1\r\n:7001\r\n$2\r\nid\r\n\
                       *4\r\n:5\r\n:5\r\n*2\r\n$0\r\n\r\n:7002\r\n*2\r\n$1\r\nr\r\n:7003\r\n";
        let map = SlotMap::parse(parse_redis_value(reply).unwrap(), &here()).unwrap();
        let owner = |slot| map.owner(Slot(slot)).map(|owner| (**owner).clone());
        assert_eq!(owner(1), Some(tcp("127.0.0.1", 7001)));
        assert_eq!(owner(2), None);
        assert_eq!(owner(5), Some(tcp("here", 7002)));
        assert_eq!(map.len(), 3);
    }

    #[test]
    fn invalid_cluster_slots_are_refused() {
        for reply in [
            "*0\r\n",
            ":1\r\n",
            "-ERR This instance has cluster support disabled\r\n",
            "*1\r\n*2\r\n:0\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n$1\r\na\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
            "*1\r\n*3\r\n:-1\r\n:1\r\n*2\r\n$1\r\na\r\n:1\r\n",
            "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:99999\r\n",
        ] {
            let value = parse_redis_value(reply.as_bytes()).unwrap();
            assert!(SlotMap::parse(value, &here()).is_err(), "{reply:?}");
        }
    }

    #[test]
    fn a_slot_that_moves_cuts_its_range_and_joins_its_neighbour() {
        let mut map = SlotMap::default();
        map.assign_range(Slot(0), Slot(99), Arc::new(tcp("a", 1)));
        map.assign_range(Slot(100), Slot(SLOTS - 1), Arc::new(tcp("b", 1)));
        assert!(!map.assign(Slot(7), &tcp("a", 1)), "it has the slot already");
        assert!(map.assign(Slot(99), &tcp("b", 1)));
        assert_eq!(map.0.len(), 2);
        assert!(map.assign(Slot(50), &tcp("b", 1)));
        assert_eq!(map.0.len(), 4);
        let owners: Vec<_> = map.owners().collect();
        assert!(Arc::ptr_eq(owners[1], owners[3]), "addresses are shared");
        assert!(map.assign(Slot(50), &tcp("a", 1)));
        assert_eq!((map.0.len(), map.len()), (2, usize::from(SLOTS)));
    }

    proptest! {
        #[test]
        fn slots_of_keys_are_those_of_the_redis_crate(
            key in "[a{}]{0,12}|[{]?[}]?\\PC{0,20}[{]\\PC{0,9}[}]\\PC{0,9}",
        ) {
            let slot = redis::cluster_routing::Slot::for_key(&key);
            let own = Slot::for_key(key.as_bytes());
            prop_assert_eq!(redis::cluster_routing::Slot::new(own.0), Some(slot));
        }

        /// A table with an entry for each slot is the model.
        #[test]
        fn a_map_of_ranges_has_the_owners_of_a_table(
            ranges in proptest::collection::vec((0..40u16, 0..12u16, 0..3u16), 0..40),
        ) {
            let mut map = SlotMap::default();
            let mut table = [None; 60];
            for (first, more, owner) in ranges {
                if more == 0 {
                    let changed = map.assign(Slot(first), &tcp("h", owner));
                    prop_assert_eq!(changed, table[usize::from(first)] != Some(owner));
                } else {
                    let owner = Arc::new(tcp("h", owner));
                    map.assign_range(Slot(first), Slot(first + more), owner);
                }
                for slot in first..=first + more {
                    table[usize::from(slot)] = Some(owner);
                }
                for (slot, owner) in (0..).zip(&table) {
                    let expected = owner.map(|port| tcp("h", port));
                    prop_assert_eq!(map.owner(Slot(slot)).map(|owner| (**owner).clone()), expected);
                }
                let runs = table.chunk_by(|a, b| a == b).filter(|run| run[0].is_some()).count();
                prop_assert_eq!(map.0.len(), runs, "neighbours of one owner are one range");
                prop_assert_eq!(map.len(), table.iter().flatten().count());
            }
        }
    }
}
