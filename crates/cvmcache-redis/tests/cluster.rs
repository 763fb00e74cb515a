//! Clients while a Cluster changes: every request has a reply, on the connection that they
//! have, and no read returns a wrong byte.

mod plugin;

use cvmcache::plugin::Status;

use plugin::{connect, finally, object, read, start, start_impatient, store, with_jobs};
use redis_test_servers::{RedisCluster, Setup, eventually};

#[test]
fn a_cluster_serves_again_after_a_server_was_killed_and_restarted() {
    let mut cluster = RedisCluster::with(&Setup::new().persistent());
    let plugin = start_impatient(&cluster.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    for n in 1000..1030 {
        store(&mut client, n).unwrap();
    }
    with_jobs(&plugin, |jobs| {
        for n in 0..2 {
            cluster.servers[n].kill();
            jobs.notice();
            cluster.servers[n].restart();
            cluster.wait();
            jobs.recover();
        }
    });
    for n in 1000..1030 {
        eventually("it is there", || read(&mut client, n).is_ok());
    }
}

#[test]
fn a_cluster_serves_while_its_slots_migrate() {
    let cluster = RedisCluster::start();
    let plugin = start(&cluster.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    for n in 1000..1010 {
        store(&mut client, n).unwrap();
    }
    with_jobs(&plugin, |jobs| {
        for n in 1000..1004 {
            let shard = shard(n);
            cluster.move_slot(&shard, (cluster.owner(&shard) + 1) % 3);
            jobs.recover();
        }
    });
    for n in 1000..1010 {
        finally(|| read(&mut client, n)).unwrap();
    }
}

#[test]
fn a_replica_that_takes_over_serves_what_was_replicated() {
    let setup = Setup::new().line("cluster-replica-validity-factor 0");
    let mut cluster = RedisCluster::with_a_replica(&setup);
    let plugin = start_impatient(&cluster.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    let (replicated, late) = (1000..1030, 1030..1060);
    for n in replicated.clone() {
        store(&mut client, n).unwrap();
    }
    let is_concerned = |cluster: &RedisCluster, n| cluster.owner(&shard(n)) == 0;
    let lost: Vec<_> = late.clone().filter(|&n| is_concerned(&cluster, n)).collect();
    assert!(!lost.is_empty() && replicated.clone().any(|n| is_concerned(&cluster, n)));
    cluster.cut_off_the_replica();
    for n in late.clone() {
        store(&mut client, n).unwrap();
    }
    with_jobs(&plugin, |jobs| {
        cluster.servers[0].kill();
        jobs.notice();
        cluster.let_the_replica_take_over();
        jobs.recover();
    });
    for n in replicated.chain(late) {
        let expected = if lost.contains(&n) { Err(Status::NoEntry) } else { Ok(()) };
        assert_eq!(finally(|| read(&mut client, n)), expected, "object {n}");
    }
    for n in lost {
        store(&mut client, n).unwrap();
        read(&mut client, n).unwrap();
    }
    client.quit().unwrap();
}

#[test]
fn clients_see_nothing_of_a_failover_in_a_cluster_within_the_timeout() {
    let setup = Setup::new().line("cluster-replica-validity-factor 0");
    let mut cluster = RedisCluster::with_a_replica(&setup);
    cluster.wait_for_the_replica();
    let plugin = start(&cluster.url());
    with_jobs(&plugin, |jobs| {
        cluster.servers[0].kill();
        cluster.let_the_replica_take_over();
        jobs.recover();
        assert_eq!(jobs.failures(), 0, "{}", plugin.log());
    });
}

/// The keys in the slot of an object.
fn shard(n: u64) -> String {
    format!("{{{}}}", &object(n).0.to_string()[..2])
}
