//! Evictions from a full cache: volatile objects first, then the least recently used, in whatever
//! shard they are, and never a pinned object.

mod cache;

use bytes::Bytes;
use cache::{config, content, id, instance, objects, with};
use cvmcache::plugin::*;
use redis_test_servers::{RedisServer, eventually};

const MB: usize = 1024 * 1024;

#[test]
fn volatile_objects_are_evicted_first_and_then_the_least_recently_used_across_shards() {
    let server = RedisServer::start();
    let (a, b) = (instance(&server), instance(&server));
    // In shards that go up and down, so that no order of shards is the right one.
    let order: Vec<_> = (0..60u8).map(|n| id(if n % 2 == 0 { n } else { 200 - n }, n)).collect();
    let data = content(1, 1000);
    for (n, id) in order.iter().enumerate() {
        let kind = if n % 10 == 9 { ObjectType::Volatile } else { ObjectType::Catalog };
        a.store_as(*id, kind, &data).unwrap();
    }
    order.iter().for_each(|id| a.close(*id).unwrap());
    let (volatile, lasting): (Vec<_>, Vec<_>) = (0..60).partition(|n| n % 10 == 9);
    let mut expected: Vec<_> = volatile.into_iter().chain(lasting).map(|n| order[n]).collect();
    // The oldest of all is used again, by another instance.
    a.info();
    b.open(order[0]).unwrap();
    b.close(order[0]).unwrap();
    b.info();
    let oldest = expected.iter().position(|id| *id == order[0]).unwrap();
    expected.remove(oldest);
    expected.push(order[0]);
    let full = a.info().used_bytes;
    for gone in [1, 2, 6, 7, 20, 59] {
        let left = full / 60 * (60 - gone as u64);
        assert_eq!(a.shrink(left), left);
        let there = |id: &&ObjectId| a.exists(**id).is_ok();
        assert_eq!(
            expected.iter().filter(there).collect::<Vec<_>>(),
            expected[gone..].iter().collect::<Vec<_>>()
        );
    }
}

#[test]
fn evictions_are_counted_in_the_metrics() {
    let server = RedisServer::start();
    let registry = prometheus::Registry::new();
    let recorder = metrics_prometheus::Recorder::builder().with_registry(&registry).build();
    let a = metrics::with_local_recorder(&recorder, || instance(&server));
    (0..5).for_each(|n| a.leave(id(n, n), &content(1, 1000)));
    let full = a.info().used_bytes;
    assert_eq!(a.shrink(0), 0);
    let told = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for line in [
        "cvmcache_evicted_objects_total 5\n".to_owned(),
        format!("cvmcache_evicted_bytes_total {full}\n"),
    ] {
        assert!(told.contains(&line), "{told}");
    }
}

#[test]
fn an_empty_cache_leaves_no_keys_but_leases() {
    let server = RedisServer::start();
    let a = instance(&server);
    for (n, len) in [0, 1, 100, 20_000, 300_000, 2_000_000].into_iter().enumerate() {
        for m in 0..5 {
            a.leave(id(17 * n as u8, m), &content(1, len));
        }
    }
    assert!(a.info().used_bytes > 5 * 2_320_101);
    assert_eq!(a.info().pinned_bytes, 0);
    assert_eq!(a.shrink(0), 0);
    assert_eq!(a.info().used_bytes, 0);
    eventually("no key is left but leases", || {
        objects(&server).iter().all(|key| key.ends_with(":alive"))
    });
}

#[test]
fn a_full_cache_evicts_and_counts_clean_ups() {
    let server = RedisServer::start();
    let mut config = config(&server);
    config.size = 20 * MB as u64;
    let a = with(config);
    for n in 0..100 {
        a.leave(id(n, n), &content(n.into(), MB));
        assert!(a.info().used_bytes <= 20 * MB as u64);
    }
    assert!(a.exists(id(99, 99)).is_ok());
    assert_eq!(a.exists(id(0, 0)), Err(Status::NoEntry));
    assert!(a.info().shrink_count.unwrap() > 5);
    assert_eq!(
        a.cache
            .begin(&a.session, {
                let mut new = NewObject::new(id(1, 1));
                new.expected_size = Some(21 * MB as u64);
                new
            })
            .err(),
        Some(Status::NoSpace)
    );
}

#[test]
fn a_cache_full_of_pinned_objects_refuses_uploads_until_objects_are_closed() {
    let server = RedisServer::start();
    let mut config = config(&server);
    config.size = 10 * MB as u64;
    let a = with(config.clone());
    let stored = (0..20).take_while(|&n| a.store(id(n, n), &content(n.into(), MB)).is_ok()).count();
    assert!((7..10).contains(&stored), "{stored}");
    // Started now, since an instance knows for a second only what was in use before.
    let b = with(config);
    assert_eq!(b.store(id(50, 50), &content(50, 4 * MB)), Err(Status::NoSpace));
    assert_eq!(a.info().pinned_bytes, a.info().used_bytes);
    for n in 0..stored {
        assert_eq!(
            a.read_all(id(n as u8, n as u8)).unwrap(),
            content(n as u64, MB),
            "nothing is lost"
        );
        a.close(id(n as u8, n as u8)).unwrap();
    }
    a.info();
    b.store(id(50, 50), &content(50, 4 * MB)).unwrap();
    assert_eq!(b.read_all(id(50, 50)).unwrap(), content(50, 4 * MB));
}

#[test]
fn an_empty_server_is_an_empty_cache() {
    let server = RedisServer::start();
    let a = instance(&server);
    let info = a.info();
    assert_eq!((info.used_bytes, info.pinned_bytes, info.shrink_count), (0, 0, Some(0)));
    assert_eq!(a.shrink(0), 0);
    assert_eq!(a.list(ObjectType::Regular), []);
    assert_eq!(a.store(id(1, 1), &Bytes::new()), Ok(()));
    assert_eq!(a.read(id(1, 1), 0, 10).unwrap(), "");
}
