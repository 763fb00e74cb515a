//! Clients while the server is away or hangs, or connections are lost: every request has a reply, on
//! the connection that they have, and no read returns a wrong byte.

mod plugin;

use cvmcache::client::Client;
use cvmcache::plugin::Status;
use cvmcache_testkit::PluginProcess;

use plugin::{
    close, command, connect, finally, open, read, start, start_impatient, store, with_jobs,
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
