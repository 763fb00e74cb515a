//! What an administrator sees of the Redis cache, and has it do.

mod plugin;

use std::time::{Duration, Instant};

use cvmcache::admin::Value;
use cvmcache::plugin::Status;
use cvmcache_testkit::{AdminClient, PluginProcess};
use redis_test_servers::{Proxy, RedisCluster, RedisServer, Setup, eventually};

use plugin::{close, command, connect, read, start, start_impatient, store, with_jobs};

fn admin(plugin: &PluginProcess) -> AdminClient {
    AdminClient::of(plugin.locator())
}

/// The only server.
#[track_caller]
fn server(admin: &AdminClient) -> Value {
    let servers = admin.gauge("servers");
    let all = servers.as_array().expect("an array");
    assert_eq!(all.len(), 1, "{servers}");
    all[0].clone()
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no time"))
}

/// The least time that the plugins of `start_impatient` let requests wait.
const IMPATIENT: Duration = Duration::from_secs(2);

#[test]
fn every_resource_has_the_fields_of_the_schema_with_and_without_workers() {
    let server = Setup::new().memory(1024).start();
    for workers in ["0", "8"] {
        let plugin = command(&server.url()).option("CVMFS_CACHE_PLUGIN_WORKERS", workers);
        let plugin = plugin.start().unwrap();
        let _client = connect(&plugin, "test.cern.ch:c");
        admin(&plugin).check_schema();
        let wrong = admin(&plugin).post("/v1/plugin/renew", r#"{"now": true}"#).unwrap();
        assert_eq!(wrong.status, 400, "{wrong}");
    }
}

#[test]
fn gauges_follow_what_clients_and_other_plugins_do() {
    let redis = Setup::new().memory(1024).start();
    let plugin = start(&redis.url());
    let (admin, mut client) = (admin(&plugin), connect(&plugin, "test.cern.ch:c"));
    store(&mut client, 4).unwrap();
    store(&mut client, 9).unwrap();
    close(&mut client, 9).unwrap();
    let seen = server(&admin);
    let expected = [
        ("address", Value::from(redis.socket().display().to_string())),
        ("state", "connected".into()),
        ("reason", Value::Null),
        ("role", "primary".into()),
        ("maxmemory_bytes", (1024 << 20).into()),
        ("maxmemory_policy", "noeviction".into()),
        ("reconnects", 0.into()),
    ];
    for (name, value) in expected {
        assert_eq!(seen[name], value, "{name}");
    }
    eventually("one is open", || admin.number("pinned_objects") == 1);
    assert!(admin.number("used_bytes") > 1_200_000);
    assert_eq!(admin.number("size_bytes"), 500 << 20);
    assert_eq!(admin.number("limit_bytes"), 500 << 20);
    let other = command(&redis.url()).option("CVMFS_CACHE_PLUGIN_SIZE", "300").start().unwrap();
    let mut theirs = connect(&other, "test.cern.ch:d");
    store(&mut theirs, 14).unwrap();
    eventually("the other one has recorded its size", || {
        admin.gauge("recorded_size_bytes") == 300 << 20
    });
    assert_eq!(admin.number("smallest_size_bytes"), 300 << 20);
    let leases = admin.gauge("leases");
    let leases = leases.as_array().unwrap();
    let own: Vec<_> = leases.iter().filter(|lease| lease["is_own"] == true).collect();
    assert_eq!((leases.len(), own.len()), (2, 1), "{leases:?}");
    assert_eq!(own[0]["instance"], admin.gauge("instance"));
    assert!(leases.iter().all(|lease| lease["pinned_objects"] == 1), "{leases:?}");
    assert_eq!(admin.post("/v1/shrink", r#"{"bytes": 0}"#).unwrap().status, 200);
    assert_eq!(admin.number("evicted_objects"), 1);
    assert!(admin.number("evicted_bytes") > 600_000);
}

#[test]
fn a_server_that_is_away_is_told_with_its_reason_until_it_is_back() {
    let mut redis = Setup::new().tcp().start();
    let plugin = start_impatient(&redis.url());
    let admin = admin(&plugin);
    redis.kill();
    eventually("it is away", || server(&admin)["state"] == "away");
    let begun = Instant::now();
    let (seen, used) = (server(&admin), admin.gauge("used_bytes"));
    assert!(begun.elapsed() < 4 * IMPATIENT);
    assert!(seen["reason"].as_str().unwrap().contains("refused"), "{seen}");
    assert!(seconds(&seen["since_seconds"]) < begun.elapsed().as_secs_f64() + 60.0);
    assert_eq!((&seen["role"], used), (&Value::Null, Value::Null));
    admin.check_schema();
    let renewed = admin.post("/v1/plugin/renew", "").unwrap();
    assert_eq!(renewed.status, 409, "{renewed}");
    redis.restart();
    assert_eq!(admin.post("/v1/plugin/reconnect", "").unwrap().status, 200);
    eventually("it is back", || server(&admin)["state"] == "connected");
    assert_eq!(server(&admin)["reconnects"], 1);
}

#[test]
fn no_answer_waits_longer_than_the_timeout_for_a_server_that_hangs() {
    let redis = Setup::new().tcp().start();
    let plugin = start_impatient(&redis.url());
    let admin = admin(&plugin);
    redis.pause();
    for _ in 0..3 {
        let begun = Instant::now();
        let used = admin.gauge("used_bytes");
        let took = begun.elapsed();
        assert!(took < 2 * IMPATIENT, "{took:?}");
        assert_eq!(used, Value::Null);
    }
    redis.resume();
    eventually("it answers", || admin.gauge("used_bytes") == 0);
}

#[test]
fn what_the_server_refuses_is_told_with_its_code_and_since_when() {
    let redis = Setup::new().tcp().start();
    let plugin = start_impatient(&redis.url());
    let (admin, mut client) = (admin(&plugin), connect(&plugin, "test.cern.ch:c"));
    redis.say("REPLICAOF 127.0.0.1 1");
    assert_eq!(store(&mut client, 4), Err(Status::IoErr));
    let seen = server(&admin);
    assert_eq!((&seen["state"], &seen["role"]), (&"refusing".into(), &"replica".into()), "{seen}");
    assert!(seen["reason"].as_str().unwrap().contains("READONLY"), "{seen}");
    let since = seconds(&seen["since_seconds"]);
    assert!((0.5..60.0).contains(&since), "{since}");
    let failures = admin.gauge("failures");
    let of_it = failures
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["reason"].as_str().is_some_and(|reason| reason.contains("READONLY")));
    assert!(of_it.unwrap()["requests"].as_u64() > Some(0), "{failures}");
    redis.say("REPLICAOF NO ONE");
    eventually("it takes objects", || store(&mut client, 4).is_ok());
}

#[test]
fn clients_see_nothing_of_a_reconnect_which_follows_the_name_of_the_server() {
    let (old, new) = (Setup::new().tcp().start(), Setup::new().tcp().start());
    let proxy = Proxy::to(old.port());
    let plugin = start(&proxy.url());
    let admin = admin(&plugin);
    with_jobs(&plugin, |jobs| {
        for _ in 0..5 {
            let before = server(&admin)["reconnects"].as_u64();
            assert_eq!(admin.post("/v1/plugin/reconnect", "").unwrap().status, 200);
            eventually("another connection", || server(&admin)["reconnects"].as_u64() > before);
            jobs.recover();
        }
        assert_eq!(jobs.failures(), 0);
    });
    proxy.lead_to(new.port());
    assert_eq!(admin.post("/v1/plugin/reconnect", "").unwrap().status, 200);
    let mut client = connect(&plugin, "test.cern.ch:c");
    eventually("the new server has it", || {
        store(&mut client, 1004).unwrap();
        new.ask::<u64>(&redis::cmd("DBSIZE")) > 1
    });
}

#[test]
fn a_lease_is_renewed_on_request() {
    let redis = RedisServer::start();
    let plugin = start(&redis.url());
    let (admin, mut client) = (admin(&plugin), connect(&plugin, "test.cern.ch:c"));
    store(&mut client, 4).unwrap();
    // A server that has lost everything but is not noticed to have, for a lease of ten minutes.
    let before = seconds(&admin.gauge("renewed_seconds"));
    let answer = admin.post("/v1/plugin/renew", "").unwrap();
    assert_eq!((answer.status, &answer.body["pinned_objects"]), (200, &1.into()), "{answer}");
    assert!(seconds(&admin.gauge("renewed_seconds")) < before + 10.0);
    redis.say("FLUSHALL");
    assert_eq!(admin.post("/v1/plugin/renew", "").unwrap().status, 200);
    assert_eq!(read(&mut client, 4), Err(Status::NoEntry));
}

#[test]
fn passwords_are_in_no_answer() {
    let redis = Setup::new().tcp().password("sw0rdfish").start();
    let plugin = start_impatient(&redis.url());
    let admin = admin(&plugin);
    let resources =
        ["", "/sessions", "/statistics", "/configuration", "/health", "/version", "/plugin"];
    let all = || {
        let answers = resources.map(|it| admin.get(&format!("/v1{it}")).unwrap().body.to_string());
        answers.concat()
    };
    let told = all();
    assert!(told.contains("redis://") && !told.contains("sw0rdfish"), "{told}");
    redis.say("CONFIG SET requirepass other-w0rd");
    redis.say("CLIENT KILL TYPE normal SKIPME yes");
    eventually("it is refused", || server(&admin)["state"] == "refusing");
    let told = all();
    assert!(!told.contains("sw0rdfish") && !told.contains("w0rd"), "{told}");
}

#[test]
fn each_server_of_a_cluster_is_told() {
    let cluster = RedisCluster::start();
    let plugin = start(&cluster.url());
    let (admin, mut client) = (admin(&plugin), connect(&plugin, "test.cern.ch:c"));
    store(&mut client, 4).unwrap();
    let servers = admin.gauge("servers");
    let all = servers.as_array().unwrap();
    assert_eq!(all.len(), cluster.servers.len(), "{servers}");
    assert!(
        all.iter().all(|it| it["state"] == "connected" && it["role"] == "primary"),
        "{servers}"
    );
    assert_eq!(admin.post("/v1/plugin/reconnect", "").unwrap().body["servers"], all.len());
    eventually("all are back", || {
        let servers = admin.gauge("servers");
        servers.as_array().unwrap().iter().all(|it| it["reconnects"] == 1)
    });
    read(&mut client, 4).unwrap();
}
