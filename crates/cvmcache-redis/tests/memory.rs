//! Clients while the server is out of memory, or evicts by itself: every request has a reply, on
//! the connection that they have, and no read returns a wrong byte.

mod plugin;

use cvmcache::plugin::Status;
use cvmcache_testkit::PluginProcess;
use redis::cmd;

use plugin::{close, command, connect, read, start, store};
use redis_test_servers::{RedisServer, Setup, eventually};

#[test]
fn a_plugin_whose_server_is_out_of_memory_evicts_or_answers_nospace() {
    let server = Setup::new().memory(40).start();
    let plugin = start(&server.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    // 600 kB each: three times the memory of the server.
    let large = (0..200).map(|n| 5 * n + 4);
    let mut stored = 0;
    for n in large.clone() {
        match store(&mut client, n) {
            Ok(()) => {
                stored += 1;
                close(&mut client, n).unwrap();
            }
            Err(status) => assert_eq!(status, Status::NoSpace),
        }
    }
    assert!(stored > 100, "only {stored} of 200 fit, one after the other");
    // Pinned objects stay, so the cache becomes full.
    let mut held = Vec::new();
    let full = large.clone().find_map(|n| match store(&mut client, n) {
        Ok(()) => {
            held.push(n);
            None
        }
        Err(status) => Some(status),
    });
    assert_eq!(full, Some(Status::NoSpace));
    for &n in &held {
        read(&mut client, n).unwrap();
        close(&mut client, n).unwrap();
    }
    eventually("there is room again", || store(&mut client, 1004).is_ok());
    read(&mut client, 1004).unwrap();
}

#[test]
fn a_plugin_keeps_below_the_maxmemory_of_a_server_that_evicts_by_itself_and_warns() {
    for policy in ["volatile-lru", "volatile-ttl", "allkeys-lru"] {
        let line = format!("maxmemory-policy {policy}");
        let server = Setup::new().line("maxmemory 40mb").line(&line).start();
        let plugin = start(&server.url());
        eventually("the log says so", || plugin.log().contains(&line));
        let mut client = connect(&plugin, "test.cern.ch:c");
        for n in (0..90).map(|n| 5 * n + 4) {
            store(&mut client, n).unwrap_or_else(|status| panic!("{policy}: object {n}: {status}"));
            close(&mut client, n).unwrap();
            read(&mut client, n).unwrap();
        }
    }
}

#[test]
fn a_plugin_without_permission_for_info_goes_on_storing_when_the_server_evicts_uploads() {
    let server = Setup::new()
        .line("maxmemory 40mb")
        .line("maxmemory-policy volatile-lru")
        .line("user default on nopass ~* &* +@all -info")
        .start();
    let plugin = start(&server.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    let mut stored = 0;
    for n in (0..90).map(|n| 5 * n + 4) {
        match store(&mut client, n) {
            Ok(()) => {
                stored += 1;
                close(&mut client, n).unwrap();
            }
            Err(status) => assert_eq!(status, Status::NoSpace),
        }
    }
    assert!(stored > 45, "only {stored} of 90");
}

#[test]
fn a_plugin_with_less_size_than_is_used_evicts_when_it_starts() {
    let server = RedisServer::start();
    let large = start(&server.url());
    let mut client = connect(&large, "test.cern.ch:c");
    for n in (0..250).map(|n| 5 * n + 4) {
        store(&mut client, n).unwrap();
        close(&mut client, n).unwrap();
    }
    let size = 100 << 20;
    assert!(client.info().unwrap().used_bytes > size);
    let _small = command(&server.url()).option("CVMFS_CACHE_PLUGIN_SIZE", "100").start().unwrap();
    eventually("it evicts", || client.info().unwrap().used_bytes < size);
}

#[test]
fn a_maxmemory_that_is_lowered_while_the_plugin_runs_is_followed() {
    let server = Setup::new().memory(200).start();
    let plugin = start(&server.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    for n in (0..100).map(|n| 5 * n + 4) {
        store(&mut client, n).unwrap();
        close(&mut client, n).unwrap();
    }
    server.say("CONFIG SET maxmemory 40mb");
    // It is read again at the next connect.
    server.say("CLIENT KILL TYPE normal SKIPME yes");
    eventually("it evicts", || client.info().unwrap().used_bytes < 40 << 20);
    store(&mut client, 1004).unwrap();
}

#[test]
fn plugins_with_different_sizes_warn_of_each_other_with_both_sizes() {
    let server = RedisServer::start();
    let large = command(&server.url()).option("CVMFS_CACHE_PLUGIN_SIZE", "300").start().unwrap();
    let recorded =
        |size: u64| server.ask::<Option<u64>>(cmd("GET").arg("cvmfs:1:size")) == Some(size << 20);
    eventually("the size is recorded", || recorded(300));
    let small = command(&server.url()).option("CVMFS_CACHE_PLUGIN_SIZE", "100").start().unwrap();
    let warns = |plugin: &PluginProcess, other: &str, own: &str| {
        let log = plugin.log();
        log.contains(other) && log.contains(own) && log.contains("the smallest rules")
    };
    eventually("the second warns", || warns(&small, "CVMFS_CACHE_PLUGIN_SIZE=300", "has 100"));
    eventually("its size is recorded", || recorded(100));
    assert!(!large.log().contains("the smallest rules"));
    // It looks again at the next connect, or within a minute.
    server.say("CLIENT KILL TYPE normal SKIPME yes");
    eventually("the first warns", || warns(&large, "CVMFS_CACHE_PLUGIN_SIZE=100", "has 300"));
    let alike = command(&server.url()).option("CVMFS_CACHE_PLUGIN_SIZE", "100").start().unwrap();
    let mut client = connect(&alike, "test.cern.ch:c");
    store(&mut client, 4).unwrap();
    assert!(!alike.log().contains("the smallest rules"), "{}", alike.log());
}
