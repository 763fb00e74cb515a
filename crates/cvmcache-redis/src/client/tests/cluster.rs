//! A Cluster: its slots migrate, its servers hang or are killed.

use std::thread;

use redis::{Script, cmd, pipe};

use super::*;
use crate::config::Tls;
use redis_test_servers::{Certificates, RedisCluster, Setup, eventually};

#[test]
fn a_cluster_serves() {
    let cluster = RedisCluster::start();
    connected(&config(&cluster.url(), LONG)).serves();
}

#[test]
fn a_cluster_serves_while_its_slots_migrate() {
    let cluster = RedisCluster::start();
    serves_while_slots_move(&cluster, &connected(&config(&cluster.url(), LONG)));
}

#[test]
fn a_cluster_with_tls_serves_while_its_slots_migrate() {
    let certificates = Certificates::new().mutual();
    let cluster = RedisCluster::with(&Setup::new().tls(&certificates));
    let (own, key) = (certificates.path("client"), certificates.key_path("client"));
    let tls = Tls::new(Some(&certificates.path("ca")), Some((&own, &key))).unwrap();
    let client = connected(&Config { tls: Some(tls), ..config(&cluster.url(), LONG) });
    client.serves();
    serves_while_slots_move(&cluster, &client);
}

fn serves_while_slots_move(cluster: &RedisCluster, client: &Connected) {
    let keys: Vec<_> = (0..6).map(|n| format!("{{{n}}}key")).collect();
    let mut gets = pipe();
    for key in &keys {
        client.set(key).unwrap();
        gets.cmd("GET").arg(key);
    }
    let script = Script::new("return redis.call('GET', KEYS[1])");
    for turn in 1..3 {
        for key in &keys {
            cluster.move_slot(key, (cluster.owner(key) + turn) % 3);
        }
        for server in &cluster.servers {
            server.say("SCRIPT FLUSH");
        }
        assert_eq!(
            client.client.wait(client.client.pipeline::<Vec<String>>(Traits::REPEATABLE, &gets)),
            Ok(keys.clone())
        );
        for key in &keys {
            assert_eq!(client.get(key), Ok(Some(key.clone())));
            assert_eq!(client.script(script.key(key)), Ok(key.clone()));
        }
    }
}

#[test]
fn a_server_of_a_cluster_that_hangs_delays_no_other() {
    let cluster = RedisCluster::with(&Setup::new().line("cluster-require-full-coverage no"));
    let client = connected(&config(&cluster.url(), LONG));
    let key_of = |n| (0..).map(|k| format!("{k}")).find(|key| cluster.owner(key) == n).unwrap();
    let keys = [key_of(0), key_of(1), key_of(2)];
    for key in &keys {
        client.set(key).unwrap();
    }
    let client = connected(&config(&cluster.url(), Duration::from_secs(5)));
    for paused in 0..3 {
        cluster.servers[paused].pause();
        thread::scope(|scope| {
            let hanging = scope.spawn(|| client.get(&keys[paused]));
            for (n, key) in keys.iter().enumerate().filter(|(n, _)| *n != paused) {
                assert_eq!(client.get(key), Ok(Some(key.clone())), "{n} while {paused} hangs");
            }
            assert!(hanging.join().unwrap().is_err());
        });
        for key in keys.iter().filter(|key| **key != keys[paused]) {
            assert_eq!(client.get(key), Ok(Some(key.clone())));
        }
        cluster.servers[paused].resume();
        eventually("it serves again", || client.get(&keys[paused]).is_ok());
        cluster.wait();
    }
}

#[test]
fn a_cluster_serves_again_after_each_server_was_killed() {
    let mut cluster = RedisCluster::with(&Setup::new().persistent());
    let client = connected(&config(&cluster.url(), Duration::from_secs(2)));
    let keys: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    for key in &keys {
        client.set(key).unwrap();
    }
    // Also the one that the plugin is configured with.
    for n in 0..3 {
        cluster.servers[n].kill();
        for key in &keys {
            assert!(timed(|| client.get(key)).1);
        }
        cluster.servers[n].restart();
        cluster.wait();
        for key in &keys {
            eventually("it is there again", || client.get(key) == Ok(Some(key.clone())));
        }
    }
}

#[test]
fn a_request_waits_while_the_cluster_is_down_and_fails_at_once_if_that_goes_on() {
    let mut cluster = RedisCluster::start();
    let patient = connected(&config(&cluster.url(), LONG));
    let impatient = connected(&config(&cluster.url(), Duration::from_secs(1)));
    // The plugins are configured with the first server, which stays.
    let key = (0..).map(|k| k.to_string()).find(|key| cluster.owner(key) == 0).unwrap();
    for client in [&patient, &impatient] {
        client.set(&key).unwrap();
    }
    cluster.servers[2].kill();
    let is_down = || {
        let state: String = cluster.servers[0].ask(cmd("CLUSTER").arg("INFO"));
        state.contains("cluster_state:fail")
    };
    eventually("the Cluster is down", is_down);
    let down = Failure::Unready("CLUSTERDOWN".to_owned());
    assert_eq!(impatient.get(&key), Err(down.clone()));
    let begin = Instant::now();
    (0..100).for_each(|_| assert_eq!(impatient.get(&key), Err(down.clone())));
    assert!(begin.elapsed() < AT_ONCE);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| timed(|| patient.get(&key)));
        cluster.servers[2].restart();
        cluster.wait();
        assert_eq!(waiting.join().unwrap(), (Ok(Some(key.clone())), true));
    });
    eventually("it serves", || impatient.get(&key).is_ok());
}
