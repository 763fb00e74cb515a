//! Clients while the server denies access, and the permissions that are enough: every request has a reply, on
//! the connection that they have, and no read returns a wrong byte.

mod plugin;

use cvmcache::plugin::{Breadcrumb, ObjectType};

use plugin::{close, command, connect, object, start, store, with_jobs};
use redis_test_servers::Setup;

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
fn requests_fail_while_the_server_has_a_password_and_the_plugin_none() {
    let server = Setup::new().tcp().start();
    let plugin = start(&server.url());
    with_jobs(&plugin, |jobs| {
        server.say("CONFIG SET requirepass s3cret");
        // Connections stay as they are authenticated.
        jobs.recover();
        assert_eq!(jobs.failures(), 0);
        server.say("CLIENT KILL TYPE normal");
        jobs.notice();
        let log = plugin.log();
        assert!(log.contains("NOAUTH") && log.contains("REDIS_PASSWORD_FILE"), "{log}");
        server.ask::<()>(redis::cmd("CONFIG").arg("SET").arg("requirepass").arg(""));
        jobs.recover();
    });
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
