//! Clients while data on the server changes or vanishes, and pins of plugins that died: every request has a reply, on
//! the connection that they have, and no read returns a wrong byte.

mod plugin;

use cvmcache::client::Client;
use cvmcache::plugin::Status;
use redis::cmd;

use plugin::{close, command, connect, finally, object, open, read, start, store, with_jobs};
use redis_test_servers::{RedisServer, eventually};

#[test]
fn flushed_scripts_are_loaded_again() {
    let server = RedisServer::start();
    let plugin = start(&server.url());
    with_jobs(&plugin, |jobs| {
        for _ in 0..20 {
            server.say("SCRIPT FLUSH");
            jobs.recover();
        }
        assert_eq!(jobs.failures(), 0);
    });
}

/// All keys of the server that this pattern fits.
fn keys(server: &RedisServer, pattern: &str) -> Vec<String> {
    server.ask(cmd("KEYS").arg(pattern))
}

#[test]
fn an_object_whose_bytes_change_on_the_server_is_dropped() {
    let server = RedisServer::start();
    let plugin = start(&server.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    // Of several parts, open and closed.
    for (n, is_open) in [(1004, true), (1009, false)] {
        store(&mut client, n).unwrap();
        if !is_open {
            close(&mut client, n).unwrap();
        }
        let data = keys(&server, &format!("*:d:{}:*", object(n).0));
        assert!(!data.is_empty());
        let mut byte: Vec<u8> = server.ask(cmd("GETRANGE").arg(&data[0]).arg(20_000).arg(20_000));
        byte[0] ^= 1;
        server.ask::<()>(cmd("SETRANGE").arg(&data[0]).arg(20_000).arg(byte));
        assert_eq!(read(&mut client, n), Err(Status::Corrupted));
        assert_eq!(read(&mut client, n), Err(Status::NoEntry));
        assert_eq!(keys(&server, &format!("*{}*", object(n).0)), [""; 0]);
        store(&mut client, n).unwrap();
        read(&mut client, n).unwrap();
    }
    assert!(plugin.log().contains("ERROR") || plugin.log().contains("WARN"), "{}", plugin.log());
}

#[test]
fn a_flushed_server_has_lost_its_objects_and_stores_new_ones() {
    let server = RedisServer::start();
    let plugin = start(&server.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    store(&mut client, 1003).unwrap();
    with_jobs(&plugin, |jobs| {
        for _ in 0..5 {
            server.say("FLUSHALL");
            jobs.recover();
        }
    });
    assert_eq!(finally(|| read(&mut client, 1003)), Err(Status::NoEntry));
    store(&mut client, 1003).unwrap();
    read(&mut client, 1003).unwrap();
}

#[test]
fn an_object_that_was_stored_without_the_key_is_dropped_and_logged() {
    let server = RedisServer::start();
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), [7; 32]).unwrap();
    let file = "CVMFS_CACHE_PLUGIN_REDIS_KEYFILE";
    let keyed = command(&server.url()).option(file, key.path().display().to_string());
    let (open_plugin, keyed) = (start(&server.url()), keyed.start().unwrap());
    let mut client = connect(&open_plugin, "test.cern.ch:c");
    store(&mut client, 3).unwrap();
    let mut other = connect(&keyed, "test.cern.ch:o");
    assert_eq!(open(&mut other, 3), Err(Status::NoEntry));
    eventually("the log says why", || keyed.log().contains("a plugin without a key file"));
}

#[test]
fn pins_of_a_killed_plugin_can_be_evicted_after_its_lease() {
    let server = RedisServer::start();
    let lease = "CVMFS_CACHE_PLUGIN_REDIS_LEASE";
    let plugin = command(&server.url()).option(lease, "3").start().unwrap();
    let other = start(&server.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    let mut observer = connect(&other, "test.cern.ch:o");
    store(&mut client, 3).unwrap();
    drop(plugin);
    let left = |observer: &mut Client| {
        observer.shrink(0).unwrap();
        observer.info().unwrap().used_bytes
    };
    eventually("it is evicted", || left(&mut observer) == 0);
}

#[test]
fn pins_of_a_killed_plugin_do_not_count_after_its_lease() {
    let server = RedisServer::start();
    let lease = "CVMFS_CACHE_PLUGIN_REDIS_LEASE";
    let plugin = command(&server.url()).option(lease, "6").start().unwrap();
    let other = start(&server.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    let mut observer = connect(&other, "test.cern.ch:o");
    for n in 0..20 {
        store(&mut client, 5 * n + 3).unwrap();
    }
    assert!(observer.info().unwrap().pinned_bytes > 20 * 70_000);
    drop(plugin);
    // Without an eviction, or a pin of another instance.
    eventually("nothing is pinned", || observer.info().unwrap().pinned_bytes == 0);
    assert!(observer.info().unwrap().used_bytes > 20 * 70_000);
}
