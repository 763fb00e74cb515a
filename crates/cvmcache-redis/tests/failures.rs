//! Clients while the server fails, and afterwards: every request has a reply, on the
//! connection that they have, and no read returns a wrong byte.

mod plugin;

use cvmcache::client::Client;
use cvmcache::plugin::{Breadcrumb, ObjectType, Status};
use cvmcache_testkit::PluginProcess;
use redis::cmd;

use plugin::{
    close, command, connect, finally, object, open, read, start, start_impatient, store, with_jobs,
};
use redis_test_servers::{RedisServer, Setup, eventually};

#[test]
fn a_server_that_restarts_empty_has_lost_its_objects_and_stores_new_ones() {
    let mut killed = Killed::twice(&Setup::new().tcp());
    let client = &mut killed.client;
    for n in [OPEN, CLOSED] {
        assert_eq!(finally(|| read(client, n)), Err(Status::NoEntry));
        assert_eq!(open(client, n), Err(Status::NoEntry));
        store(client, n).unwrap();
        read(client, n).unwrap();
    }
    killed.client.quit().unwrap();
}

#[test]
fn a_server_that_restarts_with_its_data_serves_it() {
    let mut killed = Killed::twice(&Setup::new().persistent());
    let client = &mut killed.client;
    finally(|| read(client, OPEN)).unwrap();
    open(client, CLOSED).unwrap();
    read(client, CLOSED).unwrap();
    killed.client.quit().unwrap();
}

/// Two objects, one of which stays open.
const OPEN: u64 = 1001;
const CLOSED: u64 = 1002;

/// A server that has been killed and started again while clients worked with it, the plugin, and a
/// client of it that stored both objects before.
struct Killed {
    client: Client,
    _plugin: PluginProcess,
    _server: RedisServer,
}

impl Killed {
    fn twice(server: &Setup) -> Self {
        let mut server = server.start();
        let plugin = start_impatient(&server.url());
        let mut client = connect(&plugin, "test.cern.ch:c");
        store(&mut client, OPEN).expect("it is stored");
        store(&mut client, CLOSED).expect("it is stored");
        close(&mut client, CLOSED).expect("it is open");
        with_jobs(&plugin, |jobs| {
            for _ in 0..2 {
                server.kill();
                jobs.notice();
                server.restart();
                jobs.recover();
            }
        });
        Self { client, _plugin: plugin, _server: server }
    }
}

#[test]
fn clients_see_nothing_of_connections_that_are_killed() {
    let server = Setup::new().tcp().start();
    let plugin = start(&server.url());
    with_jobs(&plugin, |jobs| {
        for _ in 0..30 {
            server.say("CLIENT KILL TYPE normal SKIPME yes");
            jobs.recover();
        }
        assert_eq!(jobs.failures(), 0);
    });
    eventually("the log says so", || plugin.log().contains("lost with requests in flight"));
}

#[test]
fn clients_see_nothing_of_a_server_that_restarts_within_the_timeout() {
    let mut server = Setup::new().tcp().persistent().start();
    let plugin = start(&server.url());
    with_jobs(&plugin, |jobs| {
        for _ in 0..3 {
            server.kill();
            server.restart();
            jobs.recover();
        }
        assert_eq!(jobs.failures(), 0);
    });
}

#[test]
fn a_server_with_small_output_buffers_answers_all_reads() {
    let server = Setup::new().tcp().line("client-output-buffer-limit normal 2mb 1mb 1").start();
    let plugin = command(&server.url()).option("CVMFS_CACHE_PLUGIN_WORKERS", "48").start().unwrap();
    let mut client = connect(&plugin, "test.cern.ch:c");
    let objects: Vec<_> = (0..48).map(|n| 5 * n + 4).collect();
    objects.iter().for_each(|&n| store(&mut client, n).unwrap());
    std::thread::scope(|scope| {
        for &n in &objects {
            let plugin = &plugin;
            scope.spawn(move || {
                let mut client = connect(plugin, "test.cern.ch:r");
                (0..5).for_each(|_| read(&mut client, n).unwrap());
            });
        }
    });
}

#[test]
fn requests_to_a_server_that_hangs_end_at_their_timeout() {
    let server = RedisServer::start();
    let deadline = "CVMFS_CACHE_PLUGIN_REDIS_TIMEOUT";
    let plugin = command(&server.url()).option(deadline, "1000").start().unwrap();
    with_jobs(&plugin, |jobs| {
        for _ in 0..2 {
            server.pause();
            jobs.notice();
            server.resume();
            jobs.recover();
        }
    });
}

#[test]
fn a_plugin_may_start_before_its_server() {
    let mut server = Setup::new().tcp().start();
    server.kill();
    let plugin = start(&server.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    assert_eq!(store(&mut client, 1), Err(Status::IoErr));
    server.restart();
    eventually("it is found", || store(&mut client, 1).is_ok());
    read(&mut client, 1).unwrap();
}

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

#[test]
fn a_replica_serves_reads_and_refuses_uploads() {
    let master = Setup::new().tcp().start();
    let writer = start(&master.url());
    let mut client = connect(&writer, "test.cern.ch:c");
    store(&mut client, 3).unwrap();
    let replica = Setup::new().tcp().start();
    let plugin = start(&replica.url());
    replica.say(&format!("REPLICAOF 127.0.0.1 {}", master.port()));
    let mut reader = connect(&plugin, "test.cern.ch:r");
    eventually("it has got all", || read(&mut reader, 3).is_ok());
    assert_eq!(store(&mut reader, 4), Err(Status::IoErr));
    assert_eq!(read(&mut reader, 4), Err(Status::NoEntry));
    replica.say("REPLICAOF NO ONE");
    eventually("it takes objects", || store(&mut reader, 4).is_ok());
    read(&mut reader, 4).unwrap();
}

#[test]
fn a_server_out_of_memory_evicts_or_refuses() {
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
fn a_server_that_evicts_by_itself_holds_what_fits_and_is_warned_of() {
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
fn stores_go_on_when_the_server_drops_uploads_and_may_not_be_asked_for_its_memory() {
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
fn requests_fail_while_the_password_is_wrong() {
    let server = Setup::new().tcp().password("s3cret").start();
    let plugin = start(&server.url());
    with_jobs(&plugin, |jobs| {
        server.say("CONFIG SET requirepass other");
        server.say("CLIENT KILL TYPE normal");
        jobs.notice();
        server.say("CONFIG SET requirepass s3cret");
        jobs.recover();
    });
}

#[test]
fn the_log_has_one_line_for_an_outage_and_never_the_password() {
    let mut server = Setup::new().tcp().password("s3cret").start();
    let directory = tempfile::tempdir().unwrap();
    let everything = directory.path().join("log");
    let plugin = command(&server.url())
        .option("CVMFS_CACHE_PLUGIN_DEBUGLOG", everything.display().to_string())
        .option("CVMFS_CACHE_PLUGIN_REDIS_TIMEOUT", "2000")
        .start()
        .unwrap();
    let mut client = connect(&plugin, "test.cern.ch:c");
    store(&mut client, 1).unwrap();
    server.kill();
    for _ in 0..500 {
        // The plugin notices with its next request.
        let _ = store(&mut client, 1);
    }
    assert_eq!(store(&mut client, 1), Err(Status::IoErr));
    server.restart();
    eventually("it is back", || store(&mut client, 1).is_ok());
    client.quit().unwrap();
    plugin.end().unwrap();
    let log = std::fs::read_to_string(&everything).unwrap();
    let lines = |text| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("the Redis server is away"), 1, "{log}");
    assert_eq!(lines("the Redis server is back"), 1, "{log}");
    assert_eq!(lines("s3cret"), 0, "{log}");
}

#[test]
fn a_plugin_that_is_denied_access_at_start_prints_the_remedy() {
    let server = Setup::new().tcp().password("right").start();
    let url = format!("redis://:wr0ng@127.0.0.1:{}", server.port());
    let error = command(&url).start().unwrap_err().to_string();
    for part in ["ended with status 1", "CVMFS_CACHE_PLUGIN_REDIS_URL", "127.0.0.1"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("wr0ng"), "{error}");
}

#[test]
fn the_documented_permissions_are_enough_and_no_more() {
    let documentation = include_str!("../../../docs/redis.md");
    let rule = documentation.lines().find(|line| line.starts_with("user cvmcache ")).unwrap();
    let server = Setup::new().tcp().line("user default off").line(rule).start();
    let url = format!("redis://cvmcache:s3cret@127.0.0.1:{}", server.port());
    let plugin =
        command(&url).option("CVMFS_CACHE_PLUGIN_REDIS_PER_REPOSITORY", "on").start().unwrap();
    let mut client = connect(&plugin, "test.cern.ch:c");
    with_jobs(&plugin, |jobs| {
        for _ in 0..10 {
            jobs.recover();
        }
        assert_eq!(jobs.failures(), 0);
    });
    store(&mut client, 1004).unwrap();
    close(&mut client, 1004).unwrap();
    let (id, _) = object(1004);
    let listed = client.list(ObjectType::Regular).unwrap();
    assert!(listed.iter().any(|entry| entry.id == id));
    let breadcrumb = Breadcrumb { catalog: id, timestamp: 1, revision: Some(1) };
    client.store_breadcrumb("test.cern.ch", breadcrumb).unwrap();
    assert_eq!(client.load_breadcrumb("test.cern.ch").unwrap(), breadcrumb);
    client.shrink(0).unwrap();
    assert_eq!(client.info().unwrap().used_bytes, 0);
    assert!(!plugin.log().contains("NOPERM"), "{}", plugin.log());

    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    for words in ["FLUSHALL", "KEYS *", "CONFIG GET *", "GET elsewhere", "CLIENT LIST"] {
        let mut denied = redis::Cmd::new();
        let error = denied.arg(words.split(' ').collect::<Vec<_>>()).exec(&mut connection);
        assert_eq!(error.unwrap_err().code(), Some("NOPERM"), "{words}");
    }
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
