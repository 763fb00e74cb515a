//! Several instances on one server: all of them see what one has stored, and none evicts what another has
//! pinned, for as long as its lease is renewed.

mod cache;

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use cache::{
    Instance, PART, Transaction, config, content, id, instance, keys, objects, restless, with,
};
use cvmcache::client::{Client, NewUpload};
use cvmcache::plugin::*;
use cvmcache_testkit::PluginCommand;
use redis_test_servers::{RedisServer, eventually};

#[test]
fn an_object_that_one_instance_stores_is_visible_to_all_at_once() {
    let server = RedisServer::start();
    let (a, b) = (instance(&server), instance(&server));
    for (number, len) in
        [0, 1, 16 * 1024, PART - 1, PART, 500_000, 3_000_000].into_iter().enumerate()
    {
        let (id, data) = (id(number as u8, 1), content(number as u64, len));
        assert_eq!(b.open(id), Err(Status::NoEntry));
        a.store(id, &data).unwrap();
        assert_eq!(b.open(id), Ok(()));
        assert_eq!(b.read_all(id).unwrap(), data, "{len} bytes");
        let middle = len / 2;
        assert_eq!(
            b.read(id, middle as u64, 70_000).unwrap(),
            data[middle..len.min(middle + 70_000)]
        );
        assert_eq!(b.read(id, len as u64, 1).unwrap(), "");
        assert_eq!(b.read(id, len as u64 + 1, 1), Err(Status::OutOfBounds));
    }
}

#[test]
fn an_object_with_a_renewed_lease_is_not_evicted() {
    let server = RedisServer::start();
    let (a, b) = (restless(&server), restless(&server));
    let data = content(1, 100_000);
    a.store(id(1, 1), &data).unwrap();
    a.leave(id(1, 2), &data);
    b.leave(id(2, 1), &data);
    // Longer than leases last.
    let renewals = redis::cmd("CONFIG").arg("RESETSTAT").to_owned();
    server.ask::<()>(&renewals);
    eventually("leases are renewed several times", || {
        let stats: String = server.ask(redis::cmd("INFO").arg("commandstats"));
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_time:calls="));
        calls.is_some_and(|calls| calls.split(',').next().unwrap().parse::<u32>().unwrap() > 12)
    });
    let used = b.shrink(0);
    assert!(used > 100_000);
    assert_eq!(b.info().pinned_bytes, used);
    assert_eq!(a.read_all(id(1, 1)).unwrap(), data);
    assert_eq!(a.exists(id(1, 2)), Err(Status::NoEntry));
    assert_eq!(a.exists(id(2, 1)), Err(Status::NoEntry));
    a.close(id(1, 1)).unwrap();
    a.info();
    assert_eq!(b.shrink(0), 0);
}

#[test]
fn an_object_is_unpinned_by_the_last_instance_that_closes_it() {
    let server = RedisServer::start();
    let (a, b) = (instance(&server), instance(&server));
    a.store(id(1, 1), &content(1, 1000)).unwrap();
    b.open(id(1, 1)).unwrap();
    b.open(id(1, 1)).unwrap();
    a.close(id(1, 1)).unwrap();
    assert!(a.shrink(0) > 0);
    b.close(id(1, 1)).unwrap();
    assert!(b.shrink(0) > 0);
    b.close(id(1, 1)).unwrap();
    assert_eq!(b.shrink(0), 0);
    assert_eq!(b.close(id(1, 1)), Err(Status::NoEntry));
}

#[test]
fn an_instance_releases_all_pins_on_shutdown() {
    let server = RedisServer::start();
    let (a, b) = (instance(&server), instance(&server));
    for shard in 0..=255 {
        a.store(id(shard, 1), &content(1, 100)).unwrap();
    }
    assert_eq!(b.info().pinned_bytes, b.info().used_bytes);
    drop(a);
    assert_eq!(b.info().pinned_bytes, 0);
    assert_eq!(b.shrink(0), 0);
    assert_eq!(keys(&server, "*:held:*"), [""; 0]);
}

#[test]
fn an_instance_that_is_killed_loses_its_pins_when_its_lease_ends_and_not_before() {
    let server = RedisServer::start();
    let plugin = PluginCommand::new(env!("CARGO_BIN_EXE_cvmcache-redis"))
        .option("CVMFS_CACHE_PLUGIN_REDIS_URL", server.url())
        .option("CVMFS_CACHE_PLUGIN_REDIS_LEASE", "3")
        .start()
        .expect("it starts");
    let mut client = Client::connect(plugin.locator(), "test.cern.ch:1").unwrap();
    client.store(NewUpload::new(id(7, 1)), content(1, 1000)).unwrap();
    let other = instance(&server);
    let pid = nix::unistd::Pid::from_raw(plugin.pid().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(other.shrink(0) > 0, "it is evicted before the lease has ended");
    eventually("the lease ends", || other.shrink(0) == 0);
    assert_eq!(other.exists(id(7, 1)), Err(Status::NoEntry));
    assert_eq!(objects(&server), [""; 0]);
}

#[test]
fn an_instance_with_an_expired_lease_pins_again_what_is_left() {
    let server = RedisServer::start();
    let a = restless(&server);
    let data = content(1, 1000);
    a.store(id(1, 1), &data).unwrap();
    a.store(id(2, 1), &data).unwrap();
    // As if it had slept for longer than its lease: others let go, and one object is evicted.
    for shard in ["01", "02"] {
        server.ask::<()>(
            redis::cmd("ZADD").arg(format!("cvmfs:1:{{{shard}}}:alive")).arg(0).arg("x"),
        );
        let holders: Vec<String> = keys(&server, &format!("*{{{shard}}}:held:*"));
        assert_eq!(holders.len(), 1);
        server.ask::<()>(redis::cmd("DEL").arg(&holders));
        server.ask::<()>(redis::cmd("DEL").arg(format!("cvmfs:1:{{{shard}}}:alive")));
    }
    server.ask::<()>(redis::cmd("UNLINK").arg(keys(&server, "*{02}*")));
    eventually("it holds again what is there", || keys(&server, "*{01}:held:*").len() == 1);
    eventually("it knows what is lost", || a.exists(id(2, 1)) == Err(Status::NoEntry));
    assert_eq!(a.read(id(2, 1), 0, 10), Err(Status::NoEntry));
    assert_eq!(a.read_all(id(1, 1)).unwrap(), data);
    // The references of sessions go on counting.
    a.store(id(2, 1), &data).unwrap();
    assert_eq!(a.read_all(id(2, 1)).unwrap(), data);
    assert_eq!(a.close(id(2, 1)), Ok(()));
    assert_eq!(a.close(id(2, 1)), Ok(()));
    assert_ne!(a.close(id(2, 1)), Ok(()));
}

#[test]
fn an_object_that_exists_is_kept_and_an_upload_of_it_leaves_nothing_behind() {
    let server = RedisServer::start();
    let (a, b) = (instance(&server), instance(&server));
    for len in [10, 2_000_000] {
        let (id, data) = (id(len as u8, 1), content(1, len));
        a.store(id, &data).unwrap();
        let used = a.info().used_bytes;
        let data_keys = keys(&server, &format!("*:d:{id}:*"));
        b.store(id, &content(2, len)).unwrap();
        assert_eq!(b.read_all(id).unwrap(), data, "the first one is kept");
        assert_eq!(b.info().used_bytes, used);
        assert_eq!(keys(&server, &format!("*:d:{id}:*")), data_keys);
        eventually("the upload is gone", || keys(&server, "*:u:*").is_empty());
        a.close(id).unwrap();
        assert_eq!(a.shrink(0), used, "the second holds it");
        b.close(id).unwrap();
        assert_eq!(b.shrink(0), 0);
    }
}

#[test]
fn of_concurrent_commits_one_wins_and_all_pin_the_object() {
    let server = RedisServer::start();
    let instances: Vec<Instance> = (0..4).map(|_| instance(&server)).collect();
    for round in 0..20 {
        let (id, data) = (id(round, 1), content(u64::from(round), 600_000));
        let barrier = Barrier::new(2 * instances.len());
        thread::scope(|scope| {
            for instance in instances.iter().chain(&instances) {
                let (data, barrier) = (&data, &barrier);
                scope.spawn(move || {
                    let mut upload = instance.begin(id).unwrap();
                    for part in data.chunks(PART) {
                        upload.write(data.slice_ref(part)).unwrap();
                    }
                    barrier.wait();
                    upload.commit().unwrap();
                });
            }
        });
        for instance in &instances {
            assert_eq!(instance.read_all(id).unwrap(), data);
            assert_eq!([(); 3].map(|()| instance.close(id).is_ok()), [true, true, false]);
        }
    }
    for instance in &instances {
        instance.info();
    }
    assert_eq!(instances[0].shrink(0), 0);
    eventually("nothing is left", || keys(&server, "*:[odu]:*").is_empty());
}

#[test]
fn an_upload_that_is_dropped_leaves_no_keys() {
    let server = RedisServer::start();
    let a = instance(&server);
    let upload = upload(&a);
    assert!(!keys(&server, "*:u:*").is_empty());
    drop(upload);
    eventually("a dropped upload is gone", || objects(&server).is_empty());
}

#[test]
fn an_idle_upload_is_committed_after_several_leases() {
    let server = RedisServer::start();
    let mut config = config(&server);
    config.lease = Duration::from_secs(3);
    let a = with(config);
    let upload = upload(&a);
    let token = &keys(&server, "*:u:*")[0];
    // Each of them is longer than what is left of the last one.
    let mut left: i64 = server.ask(redis::cmd("PTTL").arg(token));
    for _ in 0..4 {
        eventually("the lease of the upload is renewed", || {
            let before = left;
            left = server.ask(redis::cmd("PTTL").arg(token));
            assert!(left > 0, "it has expired");
            left > before
        });
    }
    upload.commit().unwrap();
    assert_eq!(a.read_all(id(1, 1)).unwrap(), content(1, 4 * PART));
}

#[test]
fn an_upload_of_a_plugin_that_died_is_gone_after_its_lease() {
    let server = RedisServer::start();
    let a = restless(&server);
    let upload = upload(&a);
    // As if its process were killed.
    std::mem::forget(upload);
    drop(a);
    eventually("its lease is over", || keys(&server, "*:u:*").is_empty());
}

#[test]
fn an_upload_whose_keys_are_gone_stores_nothing() {
    let server = RedisServer::start();
    let a = restless(&server);
    let upload = upload(&a);
    server.ask::<()>(redis::cmd("UNLINK").arg(keys(&server, "*:u:*")));
    assert_eq!(upload.commit(), Err(Status::NoSpace));
    assert_eq!(a.exists(id(1, 1)), Err(Status::NoEntry));
    assert_eq!(a.info().used_bytes, 0);
}

/// An upload of four parts, before its commit.
fn upload(instance: &Instance) -> Box<dyn Transaction> {
    let mut upload = instance.begin(id(1, 1)).expect("it is stored");
    for part in content(1, 4 * PART).chunks(PART) {
        upload.write(part.to_vec().into()).expect("it is stored");
    }
    upload
}

#[test]
fn an_object_that_exists_throughout_a_listing_is_in_it_exactly_once() {
    let server = RedisServer::start();
    let (a, b) = (instance(&server), instance(&server));
    let data = content(1, 10);
    for number in 0..=255 {
        for shard in [1, 2, 3] {
            let kind = ObjectType::ALL[usize::from(number) % 3];
            a.store_as(id(shard, number), kind, &data).unwrap();
        }
    }
    for kind in ObjectType::ALL {
        let mut listing = b.cache.list(&b.session, kind).unwrap();
        let mut listed = vec![listing.next().unwrap().unwrap().id];
        // What is opened and closed meanwhile changes its place in the index.
        for number in 0..=255 {
            a.close(id(2, number)).unwrap();
            a.open(id(3, number)).unwrap();
        }
        a.info();
        listed.extend(listing.map(|entry| entry.unwrap().id));
        for number in 0..=255 {
            a.open(id(2, number)).unwrap();
        }
        let count = listed.len();
        listed.sort();
        listed.dedup();
        assert_eq!(listed.len(), count, "nothing twice");
        assert_eq!(count, if kind == ObjectType::Regular { 3 * 86 } else { 3 * 85 });
    }
    a.close(id(1, 0)).unwrap();
    a.info();
    let entry = |id| b.list(ObjectType::Regular).into_iter().find(|entry| entry.id == id).unwrap();
    assert!(!entry(id(1, 0)).pinned);
    assert!(entry(id(1, 3)).pinned);
}
