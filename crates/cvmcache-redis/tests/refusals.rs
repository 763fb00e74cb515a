//! Clients while the server refuses requests: what can be done is done, the rest has a status, and the log
//! has the remedy.

mod plugin;

use cvmcache::plugin::Status;
use cvmcache_testkit::PluginProcess;
use redis::cmd;

use plugin::{close, connect, finally, open, read, start, start_impatient, store, with_jobs};
use redis_test_servers::{Proxy, RedisServer, Setup, eventually};

#[test]
fn clients_see_nothing_of_a_failover_within_the_timeout() {
    let (old, new) = (Setup::new().tcp().start(), Setup::new().tcp().start());
    let proxy = Proxy::to(old.port());
    let plugin = start(&proxy.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    store(&mut client, 1004).unwrap();
    new.say(&format!("REPLICAOF 127.0.0.1 {}", old.port()));
    eventually("it is replicated", || new.info("master_sync_in_progress") == 0);
    eventually("it has the object", || new.ask::<u64>(&cmd("DBSIZE")) >= old.ask(&cmd("DBSIZE")));
    with_jobs(&plugin, |jobs| {
        new.say("REPLICAOF NO ONE");
        old.say(&format!("REPLICAOF 127.0.0.1 {}", new.port()));
        eventually("a request was refused", || plugin.log().contains("READONLY"));
        proxy.lead_to(new.port());
        jobs.recover();
        assert_eq!(jobs.failures(), 0);
    });
    read(&mut client, 1004).unwrap();
    store(&mut client, 1009).unwrap();
    assert!(plugin.log().contains("connecting again"), "{}", plugin.log());
}

#[test]
fn a_plugin_follows_a_name_that_leads_to_the_new_primary_after_the_timeout() {
    let (old, new) = (Setup::new().tcp().start(), Setup::new().tcp().start());
    let proxy = Proxy::to(old.port());
    let plugin = start_impatient(&proxy.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    store(&mut client, 4).unwrap();
    with_jobs(&plugin, |jobs| {
        old.say("REPLICAOF 127.0.0.1 1");
        // Reads go on, uploads fail.
        jobs.notice();
        jobs.recover();
        proxy.lead_to(new.port());
        jobs.recover();
    });
    finally(|| store(&mut client, 1009)).unwrap();
    eventually("the new server has it", || new.ask::<u64>(&cmd("DBSIZE")) > 0);
}

#[test]
fn a_replica_serves_reads_and_refuses_uploads() {
    let master = Setup::new().tcp().start();
    let writer = start(&master.url());
    let mut client = connect(&writer, "test.cern.ch:c");
    store(&mut client, 3).unwrap();
    let replica = Setup::new().tcp().start();
    let plugin = start_impatient(&replica.url());
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
fn reads_of_a_server_that_only_refuses_to_write_are_served() {
    let refusals: [(&str, &[&str], &[&str], &str); 3] = [
        (
            "MISCONF",
            &["CONFIG|SET|save|3600 1", "CONFIG|SET|dbfilename|taken", "BGSAVE"],
            &["CONFIG|SET|stop-writes-on-bgsave-error|no"],
            "make room on its disk",
        ),
        (
            "NOREPLICAS",
            &["CONFIG|SET|min-replicas-to-write|1"],
            &["CONFIG|SET|min-replicas-to-write|0"],
            "min-replicas-to-write",
        ),
        ("READONLY", &["REPLICAOF|127.0.0.1|1"], &["REPLICAOF|NO|ONE"], "name its primary"),
    ];
    for (code, begin, end, remedy) in refusals {
        let server = Setup::new().tcp().line("enable-protected-configs yes").start();
        // The file of the dump cannot be replaced by this.
        std::fs::create_dir(server.socket().with_file_name("taken")).unwrap();
        let plugin = start_impatient(&server.url());
        let mut client = connect(&plugin, "test.cern.ch:c");
        for n in [3, 4] {
            store(&mut client, n).unwrap();
        }
        close(&mut client, 4).unwrap();
        say(&server, begin);
        eventually("it refuses to write", || store(&mut client, 1004) == Err(Status::IoErr));
        // Also over a connection that is opened now.
        server.say("CLIENT KILL TYPE normal SKIPME yes");
        for n in [3, 4].repeat(20) {
            read(&mut client, n).unwrap_or_else(|status| panic!("{code}: {n}: {status}"));
        }
        assert_eq!(store(&mut client, 1004), Err(Status::IoErr), "{code}");
        assert!(log_has_one(&plugin, code, remedy), "{}", plugin.log());
        say(&server, end);
        eventually("it stores", || store(&mut client, 1004).is_ok());
        read(&mut client, 1004).unwrap();
    }
}

#[test]
fn a_server_that_is_busy_with_a_script_is_used_again_when_that_has_ended() {
    let server = Setup::new().tcp().line("busy-reply-threshold 10").start();
    let plugin = start_impatient(&server.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    store(&mut client, 4).unwrap();
    with_jobs(&plugin, |jobs| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut script = cmd("EVAL");
                let script = script.arg("while true do end").arg(0);
                assert!(script.exec(&mut server.connect()).is_err(), "it is killed");
            });
            jobs.notice();
            server.say("SCRIPT KILL");
        });
        jobs.recover();
    });
    assert!(log_has_one(&plugin, "BUSY", "SCRIPT KILL"), "{}", plugin.log());
    finally(|| read(&mut client, 4)).unwrap();
}

#[test]
fn a_replica_that_has_lost_its_primary_and_serves_nothing_is_used_again_when_it_serves() {
    let server = Setup::new().tcp().line("replica-serve-stale-data no").start();
    let plugin = start_impatient(&server.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    store(&mut client, 4).unwrap();
    with_jobs(&plugin, |jobs| {
        server.say("REPLICAOF 127.0.0.1 1");
        jobs.notice();
        server.say("REPLICAOF NO ONE");
        jobs.recover();
    });
    assert!(log_has_one(&plugin, "MASTERDOWN", "fail over"), "{}", plugin.log());
    finally(|| read(&mut client, 4)).unwrap();
    open(&mut client, 4).unwrap();
}

#[test]
fn clients_see_nothing_of_a_server_that_loads_its_data_within_the_timeout() {
    let server = loading_slowly();
    let plugin = start(&server.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    store(&mut client, 4).unwrap();
    with_jobs(&plugin, |jobs| {
        while_it_loads(&server, || {
            eventually("a request was refused", || plugin.log().contains("LOADING"));
        });
        jobs.recover();
        assert_eq!(jobs.failures(), 0);
    });
    read(&mut client, 4).unwrap();
}

#[test]
fn a_server_that_loads_its_data_is_used_again_when_that_has_ended() {
    let server = loading_slowly();
    let plugin = start_impatient(&server.url());
    let mut client = connect(&plugin, "test.cern.ch:c");
    store(&mut client, 4).unwrap();
    with_jobs(&plugin, |jobs| {
        while_it_loads(&server, || jobs.notice());
        jobs.recover();
    });
    assert!(log_has_one(&plugin, "LOADING", "wait until it is ready"), "{}", plugin.log());
    finally(|| read(&mut client, 4)).unwrap();
}

/// A server with so many keys that DEBUG RELOAD takes a minute, unless the delay of each key is removed.
fn loading_slowly() -> RedisServer {
    let server = Setup::new()
        .tcp()
        .line("key-load-delay 60000")
        .line("loading-process-events-interval-bytes 1024")
        .start();
    server.say("DEBUG POPULATE 1000 filler 1000");
    server
}

/// Has the server load its data from a dump as after a restart, but with its connections.
fn while_it_loads(server: &RedisServer, fault: impl FnOnce()) {
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| server.say("DEBUG RELOAD"));
        fault();
        server.say("CONFIG SET key-load-delay 0");
        reload.join().expect("it has loaded its data");
    });
}

/// Sends commands, the words of which have `|` between them.
fn say(server: &RedisServer, commands: &[&str]) {
    for command in commands {
        let mut words = redis::Cmd::new();
        words.arg(command.split('|').collect::<Vec<_>>());
        server.ask::<redis::Value>(&words);
    }
}

/// Whether one to three lines (one a minute of each kind) name a refusal, and have the remedy.
fn log_has_one(plugin: &PluginProcess, code: &str, remedy: &str) -> bool {
    let log = plugin.log();
    let lines = log.lines().filter(|line| line.contains(code)).count();
    (1..=3).contains(&lines) && log.contains(remedy)
}
