//! The membership guard: a repository sees the objects that its own clients have stored, and no others.

mod cache;

use std::time::Duration;

use cache::{Instance, config, content, id, instance, keys, with};
use cvmcache::Session;
use cvmcache::plugin::*;
use cvmcache_redis::Config;
use redis_test_servers::{RedisCluster, RedisServer, Setup, eventually};

fn guarded(server: &RedisServer, name: &'static str) -> Instance {
    let mut config = config(server);
    config.per_repository = true;
    let mut instance = with(config);
    instance.session(name);
    instance
}

#[track_caller]
fn sees_nothing(instance: &Instance, id: ObjectId) {
    assert_eq!(instance.open(id), Err(Status::NoEntry));
    assert_eq!(instance.exists(id), Err(Status::NoEntry));
    assert_eq!(instance.cache.object_info(&instance.session, &id).err(), Some(Status::NoEntry));
    assert_eq!(instance.read(id, 0, 10), Err(Status::NoEntry));
}

#[test]
fn a_repository_sees_only_what_it_has_stored_itself() {
    let server = RedisServer::start();
    let mut a = guarded(&server, "atlas.cern.ch:1");
    let data = content(1, 1000);
    a.store(id(1, 1), &data).unwrap();
    assert_eq!(a.read_all(id(1, 1)).unwrap(), data);
    // Another repository on the same instance, while the object is open; and on another instance.
    let b = guarded(&server, "lhcb.cern.ch:1");
    a.session("lhcb.cern.ch:2");
    sees_nothing(&a, id(1, 1));
    sees_nothing(&b, id(1, 1));
    // After a store of its own, it sees the object, and the first one still does.
    b.store(id(1, 1), &content(2, 10)).unwrap();
    for instance in [&a, &b] {
        assert_eq!(instance.read_all(id(1, 1)).unwrap(), data);
        instance.open(id(1, 1)).unwrap();
        instance.close(id(1, 1)).unwrap();
    }
    a.session("atlas.cern.ch:3");
    assert_eq!(a.read_all(id(1, 1)).unwrap(), data);
    // A refused open leaves no reference.
    a.session("cms.cern.ch:1");
    sees_nothing(&a, id(1, 1));
    a.close(id(1, 1)).unwrap();
    b.close(id(1, 1)).unwrap();
    a.info();
    assert_eq!(b.shrink(0), 0);
}

#[test]
fn revoking_takes_effect_everywhere_at_once_for_one_repository() {
    let server = RedisServer::start();
    let mut a = guarded(&server, "atlas.cern.ch:1");
    let b = guarded(&server, "lhcb.cern.ch:1");
    let c = guarded(&server, "atlas.cern.ch:2");
    let data = content(1, 1000);
    for instance in [&a, &b] {
        instance.store(id(1, 1), &data).unwrap();
    }
    c.open(id(1, 1)).unwrap();
    a.cache.revoke(b"atlas.cern.ch").unwrap();
    sees_nothing(&a, id(1, 1));
    sees_nothing(&c, id(1, 1));
    assert_eq!(b.read_all(id(1, 1)).unwrap(), data);
    // What was open can be closed, and what is stored again is seen again.
    c.close(id(1, 1)).unwrap();
    a.store(id(1, 1), &data).unwrap();
    assert_eq!(c.read_all(id(1, 1)).unwrap(), data);
    a.close(id(1, 1)).unwrap();
    a.close(id(1, 1)).unwrap();
    a.session("lhcb.cern.ch:2");
    assert_eq!(a.read_all(id(1, 1)).unwrap(), data);
}

#[test]
fn a_member_without_object_and_an_object_without_member_are_misses() {
    let server = RedisServer::start();
    let a = guarded(&server, "atlas.cern.ch:1");
    // A member without an object: the set forgets it.
    let members = || -> Vec<String> {
        server.ask(redis::cmd("SMEMBERS").arg("cvmfs:1:{repo:atlas.cern.ch}"))
    };
    a.leave(id(1, 1), &content(1, 10));
    assert_eq!(members(), [id(1, 1).to_string()]);
    assert_eq!(a.shrink(0), 0);
    assert_eq!(members().len(), 1, "the two parts know nothing of each other");
    sees_nothing(&a, id(1, 1));
    eventually("the member is forgotten", || members().is_empty());
    // An object without a member: one that was stored before the guard was on.
    let without = instance(&server);
    without.store(id(1, 2), &content(2, 10)).unwrap();
    sees_nothing(&a, id(1, 2));
    a.store(id(1, 2), &content(2, 10)).unwrap();
    assert_eq!(a.read_all(id(1, 2)).unwrap(), content(2, 10));
    assert_eq!(without.read_all(id(1, 2)).unwrap(), content(2, 10));
    // Neither.
    sees_nothing(&a, id(1, 3));
}

#[test]
fn the_set_of_a_repository_is_bounded() {
    let server = RedisServer::start();
    let mut config = config(&server);
    config.per_repository = true;
    config.size = 1 << 20;
    let mut a = with(config);
    a.session("atlas.cern.ch:1");
    let set = "cvmfs:1:{repo:atlas.cern.ch}";
    for n in 0..400 {
        server.ask::<()>(redis::cmd("SADD").arg(set).arg(n));
    }
    let members = || -> u64 { server.ask(redis::cmd("SCARD").arg(set)) };
    (0..5).for_each(|n| a.leave(id(n, n), &content(1, 10)));
    assert_eq!(members(), 256);
    let expiry: i64 = server.ask(redis::cmd("TTL").arg(set));
    assert!(expiry > 3600);
}

#[test]
fn without_per_repository_there_are_no_sets() {
    let server = RedisServer::start();
    let mut a = instance(&server);
    a.store(id(1, 1), &content(1, 10)).unwrap();
    assert_eq!(keys(&server, "*repo*"), [""; 0]);
    a.session("lhcb.cern.ch:1");
    assert_eq!(a.read_all(id(1, 1)).unwrap(), content(1, 10));
}

#[test]
fn every_name_of_a_repository_has_a_set_of_its_own() {
    let server = RedisServer::start();
    let mut a = guarded(&server, "a}b{c:1");
    a.store(id(1, 1), &content(1, 10)).unwrap();
    for name in ["a:1", "a}b{:1", "a%7db%7bc:1", ":1", ""] {
        a.session(name);
        sees_nothing(&a, id(1, 1));
    }
    a.session("a}b{c:2");
    assert_eq!(a.read_all(id(1, 1)).unwrap(), content(1, 10));
}

#[test]
fn a_store_whose_repository_cannot_be_recorded_leaves_no_reference() {
    let server = RedisServer::start();
    let a = guarded(&server, "atlas.cern.ch:1");
    // What is no set takes no members.
    server.ask::<()>(redis::cmd("SET").arg("cvmfs:1:{repo:atlas.cern.ch}").arg("no set"));
    assert_eq!(a.store(id(1, 1), &content(1, 1000)), Err(Status::IoErr));
    assert_eq!(a.info().pinned_bytes, 0);
    assert_eq!(a.shrink(0), 0);
}

#[test]
fn requests_that_time_out_leave_no_references() {
    let cluster = RedisCluster::with(&Setup::new().line("cluster-require-full-coverage no"));
    let name = |n: u32| format!("r{n}.cern.ch");
    let owner = |key: String| cluster.owner(&key);
    let set = |n: u32| owner(format!("cvmfs:1:{{repo:{}}}", name(n)));
    let shard = |n: u8| owner(format!("cvmfs:1:{{{n:02x}}}:used"));
    // The object is on another server than what its repository may see, or the index of repositories.
    let repository = (0..).find(|&n| set(n) == 1).unwrap();
    let object = (0..).find(|&n| shard(n) == 0).unwrap();
    let mut config = Config::new(&cluster.url()).unwrap();
    config.timeout = Duration::from_secs(2);
    config.per_repository = true;
    let mut a = with(config);
    a.session = Session::new(2, format!("{}:1", name(repository)));
    a.store(id(object, 1), &content(1, 1000)).unwrap();
    a.close(id(object, 1)).unwrap();
    cluster.servers[1].pause();
    assert!(a.open(id(object, 1)).is_err());
    assert!(a.store(id(object, 2), &content(2, 1000)).is_err());
    cluster.servers[1].resume();
    cluster.wait();
    eventually("nothing is pinned", || {
        a.cache.info(Some(&a.session)).is_ok_and(|info| info.pinned_bytes == 0)
    });
}
