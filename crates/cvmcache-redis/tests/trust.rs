//! Data that is changed on the server: a client reads what was stored, or gets an error.

mod cache;

use cache::{Instance, PART, config, content, id, instance, keys, with};
use cvmcache::plugin::*;
use cvmcache_redis::{Config, Secret};
use redis_test_servers::{RedisServer, eventually};

const LEN: usize = 1_200_000;

fn with_key(server: &RedisServer) -> Config {
    let file = tempfile::NamedTempFile::new().expect("there is room");
    std::fs::write(file.path(), [7; 32]).expect("there is room");
    let mut config = config(server);
    config.secret = Some(Secret::from_file(file.path()).expect("it is long enough"));
    config
}

/// Reads a changed object: an error, and soon NOENTRY, but never other bytes.
#[track_caller]
fn is_dropped(instance: &Instance, id: ObjectId, data: &[u8], expected: &[Status]) {
    let mut noticed = false;
    for offset in (0..data.len()).step_by(PART) {
        match instance.read(id, offset as u64, PART as u32) {
            Ok(read) => assert_eq!(read, data[offset..data.len().min(offset + PART)]),
            Err(status) => {
                assert!(noticed || expected.contains(&status), "{status}");
                assert!(!noticed || status == Status::NoEntry, "{status} after it was dropped");
                noticed = true;
            }
        }
    }
    assert!(noticed, "the change was not noticed");
    assert_eq!(instance.exists(id), Err(Status::NoEntry));
    assert_eq!(instance.open(id), Err(Status::NoEntry));
}

#[test]
fn an_object_with_a_flipped_bit_is_dropped_even_while_others_pin_it() {
    let server = RedisServer::start();
    let (a, b) = (instance(&server), instance(&server));
    let data = content(1, LEN);
    for (number, place) in [0, 16_383, 16_384, 16_399, 507_903, 507_904 - 1].into_iter().enumerate()
    {
        for segment in 0..2 {
            let id = id(number as u8, segment);
            a.store(id, &data).unwrap();
            b.open(id).unwrap();
            let key = keys(&server, &format!("*:d:{id}:{segment}")).remove(0);
            let byte: Vec<u8> = server.ask(redis::cmd("GETRANGE").arg(&key).arg(place).arg(place));
            server.ask::<()>(redis::cmd("SETRANGE").arg(&key).arg(place).arg(&[byte[0] ^ 1][..]));
            is_dropped(&a, id, &data, &[Status::Corrupted]);
            assert_eq!(b.read(id, 0, 10), Err(Status::NoEntry), "it is gone for the other, too");
            // It can be stored again, and old references count for nothing.
            b.store(id, &data).unwrap();
            assert_eq!(b.read_all(id).unwrap(), data);
            assert_eq!(a.open(id), Ok(()));
            assert_eq!(a.read_all(id).unwrap(), data);
            for instance in [&a, &a, &b, &b] {
                instance.close(id).unwrap();
            }
        }
    }
    a.info();
    b.info();
    assert_eq!(a.shrink(0), 0);
    eventually("nothing is left", || keys(&server, "*:[odu]:*").is_empty());
}

#[test]
fn data_moved_to_another_key_is_never_read() {
    let server = RedisServer::start();
    let a = instance(&server);
    let (data, other) = (content(1, LEN), content(2, LEN));
    let segment = |id: ObjectId, n: u8| keys(&server, &format!("*:d:{id}:{n}")).remove(0);
    let get = |key: &str| -> Vec<u8> { server.ask(redis::cmd("GET").arg(key)) };
    let set = |key: &str, bytes: &[u8]| server.ask::<()>(redis::cmd("SET").arg(key).arg(bytes));
    type Change<'a> = &'a dyn Fn(ObjectId, ObjectId);
    let changes: [(Change<'_>, Status); 7] = [
        // Chunks swapped within a segment.
        (
            &|id, _| {
                let mut bytes = get(&segment(id, 0));
                bytes[..2 * 16_400].rotate_left(16_400);
                set(&segment(id, 0), &bytes);
            },
            Status::Corrupted,
        ),
        // Segments swapped.
        (
            &|id, _| {
                let (first, second) = (get(&segment(id, 0)), get(&segment(id, 1)));
                set(&segment(id, 0), &second);
                set(&segment(id, 1), &first);
            },
            Status::Corrupted,
        ),
        // The data of another object.
        (
            &|id, other| (0..3).for_each(|n| set(&segment(id, n), &get(&segment(other, n)))),
            Status::Corrupted,
        ),
        // Cut off.
        (
            &|id, _| {
                let bytes = get(&segment(id, 2));
                set(&segment(id, 2), &bytes[..bytes.len() - 1]);
            },
            Status::Corrupted,
        ),
        (&|id, _| set(&segment(id, 1), &get(&segment(id, 1))[..16_400]), Status::Corrupted),
        // Nothing at all.
        (&|id, _| server.ask::<()>(redis::cmd("DEL").arg(segment(id, 1))), Status::NoEntry),
        // Another kind of thing.
        (
            &|id, _| {
                let key = segment(id, 1);
                server.ask::<()>(redis::cmd("DEL").arg(&key));
                server.ask::<()>(redis::cmd("LPUSH").arg(&key).arg("x"));
            },
            Status::Corrupted,
        ),
    ];
    for (number, (change, status)) in changes.into_iter().enumerate() {
        let (id, other_id) = (id(number as u8, 1), id(number as u8, 2));
        a.store(id, &data).unwrap();
        a.store(other_id, &other).unwrap();
        change(id, other_id);
        // What begins behind the end of a segment that was cut off is not there.
        is_dropped(&a, id, &data, &[status, Status::NoEntry]);
        assert_eq!(a.read_all(other_id).unwrap(), other);
    }
}

#[test]
fn an_object_that_was_stored_without_the_key_file_is_a_miss() {
    let server = RedisServer::start();
    let honest = with(with_key(&server));
    let forger = instance(&server);
    let data = content(1, 1000);
    // A whole object, with checks by the published key.
    forger.leave(id(1, 1), &content(2, 1000));
    assert_eq!(honest.open(id(1, 1)), Err(Status::NoEntry));
    forger.leave(id(1, 1), &content(2, 1000));
    assert_eq!(honest.exists(id(1, 1)), Err(Status::NoEntry));
    assert_eq!(honest.info().used_bytes, 0, "it was dropped");
    // Planted between the beginning and the end of an upload, it does not take its place.
    forger.store(id(1, 1), &content(2, 1000)).unwrap();
    honest.store(id(1, 1), &data).unwrap();
    assert_eq!(honest.read_all(id(1, 1)).unwrap(), data);
    // Facts of another object, and none.
    honest.store(id(1, 2), &content(3, 2000)).unwrap();
    let facts: Vec<u8> =
        server.ask(redis::cmd("HGET").arg(format!("cvmfs:1:{{01}}:o:{}", id(1, 2))).arg("f"));
    let other = with(with_key(&server));
    for forged in [&facts[..], &facts[1..], b"x", &vec![0_u8; 100_000]] {
        let key = format!("cvmfs:1:{{01}}:o:{}", id(1, 1));
        server.ask::<()>(redis::cmd("HSET").arg(&key).arg("f").arg(forged));
        assert_eq!(other.open(id(1, 1)), Err(Status::NoEntry));
        assert_eq!(honest.read(id(1, 1), 0, 1000), Err(Status::NoEntry));
        honest.store(id(1, 1), &data).unwrap();
        assert_eq!(other.open(id(1, 1)), Ok(()));
        assert_eq!(other.read_all(id(1, 1)).unwrap(), data);
        other.close(id(1, 1)).unwrap();
        other.info();
    }
}

#[test]
fn a_key_of_another_kind_in_the_place_of_an_object_is_a_miss() {
    let server = RedisServer::start();
    let a = instance(&server);
    let key = format!("cvmfs:1:{{01}}:o:{}", id(1, 1));
    server.ask::<()>(redis::cmd("SET").arg(&key).arg("nonsense"));
    assert_eq!(a.open(id(1, 1)), Err(Status::NoEntry));
    server.ask::<()>(redis::cmd("LPUSH").arg(&key).arg("nonsense"));
    a.store(id(1, 1), &content(1, 10)).unwrap();
    assert_eq!(a.read_all(id(1, 1)).unwrap(), content(1, 10));
    // Nonsense in the accounts does not end them.
    for name in ["used", "pinned"] {
        server.ask::<()>(redis::cmd("SET").arg(format!("cvmfs:1:{{01}}:{name}")).arg("many"));
    }
    a.info();
    a.close(id(1, 1)).unwrap();
    a.info();
    assert_eq!(a.shrink(0), 0);
    a.leave(id(1, 1), &content(1, 10));
    server.ask::<()>(redis::cmd("ZADD").arg("cvmfs:1:{01}:lru").arg(1).arg(vec![b'x'; 100_000]));
    server.ask::<()>(redis::cmd("ZADD").arg("cvmfs:1:{01}:lru").arg(2).arg("no id"));
    assert_eq!(a.list(ObjectType::Regular).len(), 1);
    assert_eq!(a.shrink(0), 0);
}

#[test]
fn a_breadcrumb_is_the_one_that_was_stored_or_none() {
    let server = RedisServer::start();
    let (a, b) = (with(with_key(&server)), with(with_key(&server)));
    let forger = instance(&server);
    let breadcrumb = |timestamp| Breadcrumb { catalog: id(1, 1), timestamp, revision: Some(3) };
    let load =
        |instance: &Instance, name: &[u8]| instance.cache.load_breadcrumb(&instance.session, name);
    let store = |instance: &Instance, name: &[u8], timestamp| {
        instance.cache.store_breadcrumb(&instance.session, name, breadcrumb(timestamp)).unwrap();
    };
    for name in [&b"atlas.cern.ch"[..], b"a}{\xff\r\n", b""] {
        assert_eq!(load(&a, name), Err(Status::NoEntry));
        store(&a, name, 1);
        store(&b, name, 2);
        assert_eq!(load(&a, name), Ok(breadcrumb(2)));
        store(&forger, name, 9);
        assert_eq!(load(&a, name), Err(Status::NoEntry));
        store(&a, name, 3);
        assert_eq!(load(&b, name), Ok(breadcrumb(3)));
    }
    // That of another repository.
    let before = crumbs(&server);
    store(&a, b"a.cern.ch", 5);
    let first = crumbs(&server).into_iter().find(|crumb| !before.contains(crumb)).unwrap();
    store(&a, b"b.cern.ch", 6);
    let second = crumbs(&server)
        .into_iter()
        .find(|crumb| !before.contains(crumb) && *crumb != first)
        .unwrap();
    let value: Vec<u8> = server.ask(redis::cmd("HGET").arg(&first.0).arg(&first.1));
    server.ask::<()>(redis::cmd("HSET").arg(&second.0).arg(&second.1).arg(value));
    assert_eq!(load(&a, b"b.cern.ch"), Err(Status::NoEntry));
    let long = vec![0_u8; 1_000_000];
    server.ask::<()>(redis::cmd("HSET").arg(&first.0).arg(&first.1).arg(long));
    assert_eq!(load(&a, b"a.cern.ch"), Err(Status::NoEntry));
    server.ask::<()>(redis::cmd("SET").arg(&first.0).arg("no hash"));
    assert_eq!(load(&a, b"a.cern.ch"), Err(Status::NoEntry));
}

/// Key and field of all breadcrumbs.
fn crumbs(server: &RedisServer) -> Vec<(String, String)> {
    let fields = |key: String| {
        let fields: Vec<String> = server.ask(redis::cmd("HKEYS").arg(&key));
        fields.into_iter().map(move |field| (key.clone(), field))
    };
    keys(server, "*:crumbs").into_iter().flat_map(fields).collect()
}

#[test]
fn breadcrumbs_are_bounded_and_the_least_recently_stored_go_first() {
    let server = RedisServer::start();
    let a = instance(&server);
    let breadcrumb = Breadcrumb { catalog: id(1, 1), timestamp: 1, revision: None };
    // Names of one shard, as long as names of repositories can be.
    let names = (0..).map(|n: u32| format!("{n:04000}"));
    let names: Vec<_> =
        names.filter(|name| blake3::hash(name.as_bytes()).as_bytes()[0] == 7).take(300).collect();
    let store = |name: &String| {
        a.cache.store_breadcrumb(&a.session, name.as_bytes(), breadcrumb).unwrap();
    };
    let is_there = |name: &String| a.cache.load_breadcrumb(&a.session, name.as_bytes()).is_ok();
    names[..200].iter().for_each(store);
    store(&names[0]);
    names[200..].iter().for_each(store);
    assert_eq!(crumbs(&server).len(), 256);
    assert!(names[100..].iter().chain(&names[..1]).all(is_there));
    assert!(!names[1..20].iter().any(is_there));
    let bytes: u64 = server.ask(redis::cmd("MEMORY").arg("USAGE").arg("cvmfs:1:{07}:crumbs"));
    assert!(bytes < 64 * 1024, "names do not count: {bytes}");
}
