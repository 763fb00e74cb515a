//! What a Cluster says about its slots: which server has which, and who to ask instead. Nothing here
//! does I/O.

use std::collections::HashMap;

use redis::cluster_routing::Slot;
use redis::{Arg, Cmd, ErrorKind, RedisError, ServerErrorKind, Value, from_redis_value};

use super::Failure;
use crate::config::Address;

/// Which server has which slot.
pub(super) type Map = HashMap<Slot, Address>;

/// The slot of a command's first key.
pub(super) fn slot(command: &Cmd) -> Option<Slot> {
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

pub(super) fn server_error(value: &Value) -> Option<RedisError> {
    match value {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}

/// Where else to ask, if the answer says so; without an address, here again.
pub(super) fn redirection(value: &Value) -> Option<(ServerErrorKind, Option<Address>)> {
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
pub(super) fn parse_slots(answer: Value, asked: &Address) -> Result<Map, Failure> {
    if let Some(error) = server_error(&answer) {
        return Err(error.into());
    }
    let Address::Tcp { host: asked, .. } = asked else {
        return Err(Failure::InvalidResponse("a Cluster on a unix socket".to_owned()));
    };
    let nonsense = || Failure::InvalidResponse("the slots of the Cluster".to_owned());
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
