//! Whatever several instances do at the same time, the counters on the server equal a recount
//! of all keys.

mod cache;

use std::collections::HashMap;
use std::thread;

use cache::{Instance, config, content, id, keys, with};
use cvmcache::plugin::*;
use redis_test_servers::{RedisServer, eventually};

const OBJECTS: u8 = 24;

/// Objects in few shards, so that instances contend for them.
fn object(n: u8) -> (ObjectId, usize) {
    (id(n % 5, n), usize::from(n) * 31_000)
}

/// Random requests of a client, which checks that reads return what was stored.
fn live(instance: &Instance, seed: u64, steps: usize) -> HashMap<ObjectId, u32> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut open: HashMap<ObjectId, u32> = HashMap::new();
    for _ in 0..steps {
        let (id, len) = object(random.u8(0..OBJECTS));
        let held = open.entry(id).or_default();
        let kind = if len % 2 == 0 { ObjectType::Regular } else { ObjectType::Volatile };
        match random.u8(0..20) {
            0..5 => match instance.store_as(id, kind, &content(len as u64, len)) {
                Ok(()) => *held += 1,
                Err(Status::NoSpace) => {}
                Err(status) => panic!("{status}"),
            },
            5..10 => match instance.open(id) {
                Ok(()) => *held += 1,
                Err(status) => assert_eq!((status, *held), (Status::NoEntry, 0)),
            },
            10..16 if *held > 0 => {
                instance.close(id).expect("it is open");
                *held -= 1;
            }
            16 => drop(
                instance.begin(id).and_then(|mut upload| upload.write(content(1, 9).slice(..))),
            ),
            17 => drop(instance.shrink(random.u64(0..4_000_000))),
            18 => drop(instance.list(kind)),
            _ if *held > 0 => {
                let expected = content(len as u64, len);
                let read = instance.read_all(id).expect("what is open is there");
                assert_eq!(read, expected);
            }
            _ => match instance.read_all(id) {
                Ok(read) => assert_eq!(read, content(len as u64, len)),
                Err(status) => assert_eq!(status, Status::NoEntry),
            },
        }
    }
    open.retain(|_, held| *held > 0);
    open
}

/// Compares the counters of all shards with a recount of their keys.
fn recount(server: &RedisServer, open: &[HashMap<ObjectId, u32>]) {
    for shard in 0..5u8 {
        let key = |name: &str| format!("cvmfs:1:{{{shard:02x}}}:{name}");
        let number = |name: &str| -> u64 {
            let number: Option<u64> = server.ask(redis::cmd("GET").arg(key(name)));
            number.unwrap_or(0)
        };
        let (mut used, mut pinned, mut segments, mut indexed) = (0, 0, 0, 0);
        for object_key in keys(server, &key("o:*").replace('{', "\\{").replace('}', "\\}")) {
            let name = object_key.rsplit(':').next().unwrap_or_default();
            let id: ObjectId = name.parse().expect("the key ends with the name of an object");
            let (cost, holders, parts, kind): (u64, usize, usize, u8) =
                server.ask(redis::cmd("HMGET").arg(&object_key).arg(&["c", "n", "s", "t"]));
            assert_eq!(holders, open.iter().filter(|open| open.contains_key(&id)).count());
            used += cost;
            pinned += if holders > 0 { cost } else { 0 };
            segments += parts;
            indexed += 1;
            let index = if kind == 2 { "vol" } else { "lru" };
            let score: f64 = server.ask(redis::cmd("ZSCORE").arg(key(index)).arg(name));
            assert_eq!(score.is_infinite(), holders > 0);
            for part in 0..parts {
                let exists: bool =
                    server.ask(redis::cmd("EXISTS").arg(key(&format!("d:{id}:{part}"))));
                assert!(exists, "segment {part} of {id}");
            }
        }
        assert_eq!((number("used"), number("pinned")), (used, pinned), "shard {shard}");
        assert_eq!(keys(server, &format!("*{shard:02x}?:d:*")).len(), segments);
        let entries = |name: &str| -> usize { server.ask(redis::cmd("ZCARD").arg(key(name))) };
        assert_eq!(entries("lru") + entries("vol"), indexed);
    }
}

#[test]
fn counters_equal_a_recount_after_any_history() {
    let server = RedisServer::start();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut config = config(&server);
    // So small that they evict each other's objects all the time.
    config.size = 8 * 1024 * 1024;
    let instances: Vec<_> = (0..3).map(|_| with(config.clone())).collect();
    for round in 0..4 {
        let open: Vec<_> = thread::scope(|scope| {
            let lives: Vec<_> = instances
                .iter()
                .enumerate()
                .map(|(n, instance)| {
                    scope.spawn(move || live(instance, seed + 10 * round + n as u64, 150))
                })
                .collect();
            lives.into_iter().map(|life| life.join().expect("a life without surprises")).collect()
        });
        for instance in &instances {
            instance.info();
        }
        eventually("dropped uploads are gone", || keys(&server, "*:u:*").is_empty());
        recount(&server, &open);
        for (instance, open) in instances.iter().zip(&open) {
            for (id, held) in open {
                (0..*held).for_each(|_| instance.close(*id).unwrap());
            }
            instance.info();
        }
        recount(&server, &[]);
    }
    assert_eq!(instances[0].shrink(0), 0);
    assert_eq!(instances[1].info().used_bytes, 0);
}
