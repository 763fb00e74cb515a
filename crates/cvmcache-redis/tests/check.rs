//! `cvmcache-redis --check` with real servers: what it says, in the server's own words, and the remedy.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use redis_test_servers::{Certificates, RedisCluster, RedisServer, Setup};

/// What a check prints, and whether it finds no error.
fn check(url: &str, lines: &str) -> (String, bool) {
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("conf");
    let socket = directory.path().join("socket");
    let text = format!(
        "CVMFS_CACHE_PLUGIN_LOCATOR=unix={}\nCVMFS_CACHE_PLUGIN_REDIS_URL={url}\n\
         CVMFS_CACHE_PLUGIN_REDIS_TIMEOUT=3000\n{lines}",
        socket.display()
    );
    std::fs::write(&conf, text).unwrap();
    let program = env!("CARGO_BIN_EXE_cvmcache-redis");
    let output = Command::new(program).arg("--check").arg(&conf).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

#[track_caller]
fn says(url: &str, lines: &str, is_good: bool, words: &[&str]) {
    let (text, good) = check(url, lines);
    for word in words {
        assert!(text.contains(word), "{word:?} is missing for {url}:\n{text}");
    }
    assert_eq!(good, is_good, "{url}:\n{text}");
    assert!(!text.contains("s3cret"), "{text}");
}

/// A server that is none of Redis: it reads once, and answers what it is told, or what it has read.
fn other_server(reply: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 1000];
            let Ok(len) = stream.read(&mut buffer) else { continue };
            let _ = stream.write_all(reply.map_or(&buffer[..len], str::as_bytes));
        }
    });
    address.to_string()
}

fn path(path: PathBuf) -> String {
    path.display().to_string()
}

#[test]
fn a_server_that_serves_has_no_findings() {
    for setup in [Setup::new(), Setup::new().tcp(), Setup::new().tcp().password("s3cret")] {
        let (text, good) = check(&setup.start().url(), "");
        assert!(good && !text.to_lowercase().contains("warning"), "{text}");
    }
    let (text, good) = check(&RedisCluster::start().url(), "");
    assert!(good && !text.to_lowercase().contains("warning"), "{text}");
}

#[test]
fn a_failed_login_is_reported_with_its_reason() {
    let server = Setup::new().tcp().password("right").start();
    let port = server.port();
    says(&format!("redis://:s3cret@127.0.0.1:{port}"), "", false, &["WRONGPASS", "REDIS_URL"]);
    says(&format!("redis://127.0.0.1:{port}"), "", false, &["NOAUTH", "REDIS_PASSWORD_FILE"]);
    let open = Setup::new().tcp().start();
    let url = format!("redis://:s3cret@127.0.0.1:{}", open.port());
    says(&url, "", false, &["without any password", "has no password"]);
    let url = format!("redis://127.0.0.1:{}/77", open.port());
    says(&url, "", false, &["out of range", "number of the database"]);
}

#[test]
fn an_unreachable_server_is_reported_with_its_reason() {
    let mut gone = Setup::new().tcp().start();
    gone.kill();
    says(&gone.url(), "", true, &["refused"]);
    let hanging = Setup::new().tcp().start();
    hanging.pause();
    says(&hanging.url(), "", true, &["does not answer"]);
    let full = Setup::new().tcp().line("maxclients 1").start();
    let _only = redis::Client::open(full.url()).unwrap().get_connection().unwrap();
    says(&full.url(), "", true, &["max number of clients", "maxclients"]);
}

#[test]
fn the_words_of_a_server_that_is_no_redis_server_are_quoted() {
    let http = other_server(Some("HTTP/1.1 400 Bad Request\r\n\r\n"));
    says(&format!("redis://{http}"), "", true, &["HTTP", "400 Bad Request", "host and port"]);
    says(&format!("redis://u:s3cret@{http}"), "", true, &["HTTP"]);
    let echo = other_server(None);
    says(&format!("redis://{echo}"), "", true, &["sends back", "no Redis server"]);
    says(&format!("redis://u:s3cret@{echo}"), "", true, &["sends back"]);
    let repeating = other_server(Some("-ERR unknown command 'AUTH' 's3cret'\r\n"));
    says(&format!("redis://u:s3cret@{repeating}"), "", true, &["repeats the login"]);
}

#[test]
fn a_mismatch_of_tls_is_reported_with_its_remedy() {
    let certificates = Certificates::new();
    let with_tls = Setup::new().tls(&certificates).start();
    let ca = format!("CVMFS_CACHE_PLUGIN_REDIS_CA={}\n", path(certificates.path("ca")));
    says(&with_tls.url(), &ca, true, &[]);
    says(&with_tls.url().replace("rediss", "redis"), "", true, &["rediss://"]);
    let stranger = Certificates::new();
    let other = format!("CVMFS_CACHE_PLUGIN_REDIS_CA={}\n", path(stranger.path("ca")));
    says(&with_tls.url(), &other, true, &["REDIS_CA"]);
    let plain = Setup::new().tcp().start();
    let url = plain.url().replace("redis", "rediss");
    says(&url, &ca, true, &["speaks no TLS", "redis://"]);
    let mutual = certificates.mutual();
    let demanding = Setup::new().tls(&mutual).start();
    says(&demanding.url(), &ca, true, &["asks for a certificate", "REDIS_CERT"]);
}

#[test]
fn a_maxmemory_below_size_is_a_warning_with_the_remedy() {
    let server = Setup::new().line("maxmemory 500mb").line("maxmemory-policy volatile-lru").start();
    says(&server.url(), "", true, &["volatile-lru", "noeviction", "maxmemory", "1250 MB"]);
    let server = Setup::new().line("user default on nopass ~* &* +@all -info").start();
    says(&server.url(), "", true, &["INFO"]);
}

#[test]
fn a_node_of_a_cluster_and_a_single_server_are_told_apart() {
    let cluster = RedisCluster::start();
    says(&cluster.servers[0].url(), "", true, &["redis+cluster://"]);
    let server = Setup::new().tcp().start();
    let url = server.url().replace("redis://", "redis+cluster://");
    says(&url, "", true, &["no Cluster", "redis://"]);
    let replica = Setup::new().tcp().start();
    let master = RedisServer::start();
    drop(master);
    replica.say("REPLICAOF 127.0.0.1 1");
    says(&replica.url(), "", true, &["replica"]);
    let gone = Setup::new().tcp().start().port();
    let port = cluster.servers[1].port();
    let seeds = format!("redis+cluster://127.0.0.1:{gone},127.0.0.1:{port}");
    let (text, good) = check(&seeds, "");
    assert!(
        good && text.contains("of the other seeds") && !text.contains("requests fail"),
        "{text}"
    );
}
