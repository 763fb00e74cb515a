//! The metrics of a plugin, and scrapers that misbehave.

#[path = "support/metrics.rs"]
mod scraped;
mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use cvmcache::client::{Client, NewUpload};
use cvmcache::plugin::*;
use cvmcache::{CachePlugin, Server, Session};
use scraped::{configuration, scrape, url, value};
use support::id;
use support::plugin::{LIMIT, Plugin, eventually};

fn measured(name: &'static str, lines: &str) -> (Plugin, String) {
    let mut plugin = Plugin::new(name);
    let lines = configuration(&plugin) + lines;
    plugin.start(&lines);
    let url = url(&plugin);
    (plugin, url)
}

fn requests(text: &str, operation: &str, status: &str) -> f64 {
    value(text, "cvmcache_requests_total", &[("operation", operation), ("status", status)])
}

#[test]
fn requests_are_counted_by_operation_and_status() {
    for workers in ["0", "2"] {
        let (plugin, url) = measured("ram", &format!("CVMFS_CACHE_PLUGIN_WORKERS={workers}\n"));
        let mut client = plugin.client();
        assert_eq!(client.open(&id(1)).unwrap_err().status(), Some(Status::NoEntry));
        client.store(NewUpload::new(id(1)), vec![7; 300_000]).unwrap();
        client.open(&id(1)).unwrap();
        assert_eq!(client.read(&id(1), 0, 1000).unwrap().len(), 1000);
        client.close(&id(1)).unwrap();
        client.close(&id(1)).unwrap();
        assert_eq!(client.close(&id(1)).unwrap_err().status(), Some(Status::BadCount));
        client.info().unwrap();

        let text = scrape(&url);
        for (operation, status, count) in [
            ("handshake", "OK", 1.0),
            ("open", "NOENTRY", 1.0),
            ("open", "OK", 1.0),
            ("store", "OK", 2.0),
            ("read", "OK", 1.0),
            ("close", "OK", 2.0),
            ("close", "BADCOUNT", 1.0),
            ("info", "OK", 1.0),
            ("shrink", "OK", 0.0),
        ] {
            assert_eq!(requests(&text, operation, status), count, "{operation} {status}");
            let durations =
                value(&text, "cvmcache_request_duration_seconds", &[("operation", operation)]);
            assert!(durations >= count, "{operation}: {durations}");
        }
        for (name, count) in [
            ("cvmcache_hits_total", 1.0),
            ("cvmcache_misses_total", 1.0),
            ("cvmcache_read_bytes_total", 1000.0),
            ("cvmcache_stored_bytes_total", 300_000.0),
            ("cvmcache_stored_objects_total", 1.0),
            ("cvmcache_connections_total", 1.0),
        ] {
            assert_eq!(value(&text, name, &[]), count, "{name}");
        }
    }
}

#[test]
fn gauges_are_updated_every_few_seconds() {
    for workers in ["0", "2"] {
        let (plugin, url) = measured("ram", &format!("CVMFS_CACHE_PLUGIN_WORKERS={workers}\n"));
        let mut client = plugin.client();
        client.store(NewUpload::new(id(1)), "abc").unwrap();
        let mut upload = client.begin_upload(NewUpload::new(id(2)));
        upload.write(&mut client, vec![7; 262_144]).unwrap();
        let level = |name: &str| value(&scrape(&url), name, &[]);
        eventually("the upload is seen", || level("cvmcache_upload_bytes") == 262_144.0);
        let text = scrape(&url);
        let level = |name: &str| value(&text, name, &[]);
        assert_eq!(level("cvmcache_connections"), 1.0);
        assert_eq!(level("cvmcache_sessions"), 1.0);
        assert_eq!(level("cvmcache_uploads"), 1.0);
        assert!(level("cvmcache_size_bytes") > level("cvmcache_used_bytes"));
        eventually("pinned bytes are seen", || {
            value(&scrape(&url), "cvmcache_pinned_bytes", &[]) > 0.0
        });
    }
}

#[test]
fn evictions_of_the_ram_cache_are_counted() {
    let (plugin, url) = measured("ram", "CVMFS_CACHE_PLUGIN_SIZE=100\n");
    let mut client = plugin.client();
    for number in 0..120 {
        client.store(NewUpload::new(id(number)), vec![number; 1 << 20]).unwrap();
        client.close(&id(number)).unwrap();
    }
    let text = scrape(&url);
    let objects = value(&text, "cvmcache_evicted_objects_total", &[]);
    let bytes = value(&text, "cvmcache_evicted_bytes_total", &[]);
    assert!(objects >= 20.0 && bytes >= objects * f64::from(1 << 20), "{objects} {bytes}");
}

#[test]
fn the_book_has_every_metric_and_no_other() {
    let book = include_str!("../../../docs/operations.md");
    let rows = book.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (names, kind) = (cells.next()?, cells.next()?);
        let names = names.split('`').filter(|name| name.starts_with("cvmcache_"));
        let is_kind = ["counter", "gauge", "histogram"].contains(&kind);
        is_kind
            .then(|| names.map(move |name| format!("{} {kind}", name.split('{').next().unwrap())))
    });
    // The Redis cache compares its own.
    let is_own = |row: &String| !row.starts_with("cvmcache_redis_");
    let documented: BTreeSet<_> = rows.flatten().filter(is_own).collect();
    let (_plugin, url) = measured("ram", "");
    let text = scrape(&url);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let existing: BTreeSet<_> = types.map(str::to_owned).collect();
    assert_eq!(documented, existing);
}

#[test]
fn no_text_of_a_client_becomes_a_label() {
    let (plugin, url) = measured("ram", "");
    let lines = scrape(&url).lines().count();
    for number in 0..20 {
        let name = format!("mischief-{number}:\"}}\n");
        let builder = Client::builder().name(name).timeout(LIMIT);
        let mut client = builder.connect(&plugin.locator()).unwrap();
        client.store(NewUpload::new(id(1)).description("mischief"), "abc").unwrap();
    }
    let text = scrape(&url);
    assert!(!text.contains("mischief"), "{text}");
    assert_eq!(text.lines().count(), lines);
}

#[test]
fn an_unusable_metrics_key_is_an_error_at_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (value, expected) in [
        ("yes".to_owned(), "METRICS=\"yes\" in ".to_owned()),
        ("localhost:9469".to_owned(), "use 127.0.0.1:PORT".to_owned()),
        (address.to_string(), format!("cannot serve metrics at {address}: Address already in use")),
    ] {
        let plugin = Plugin::new("ram");
        let config = plugin.configure(&format!("CVMFS_CACHE_PLUGIN_METRICS={value}\n"));
        let output = plugin.command(&[config.as_ref()]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&expected), "{said} lacks {expected}");
        assert!(!plugin.path("socket").exists());
    }
}

#[test]
fn a_port_that_becomes_free_is_waited_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut plugin = Plugin::new("ram");
    let config = plugin.configure(&format!("CVMFS_CACHE_PLUGIN_METRICS={address}\n"));
    let mut command = plugin.command(&[config.as_ref()]);
    plugin.spawn(&mut command);
    // It listens to clients before it finds the port in use.
    eventually("the socket is there", || plugin.path("socket").exists());
    drop(taken);
    plugin.client().info().unwrap();
    assert!(scrape(&format!("http://{address}/metrics")).contains("cvmcache_build_info"));
}

/// All bytes that a connection receives until it closes.
fn told(url: &str, request: &[u8]) -> String {
    let mut socket = connect(url);
    socket.write_all(request).expect("it is taken");
    let mut answer = Vec::new();
    // It may be reset after the reply, because of bytes that were sent and not read.
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8(answer).expect("text")
}

fn connect(url: &str) -> TcpStream {
    let address = url.trim_start_matches("http://").trim_end_matches("/metrics");
    let socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(LIMIT)).expect("a socket");
    socket
}

#[test]
fn a_request_for_another_path_is_answered_with_an_http_error() {
    let (_plugin, url) = measured("ram", "");
    for (request, answer) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP/1.1 404 "),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 "),
        (b"HEAD /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 200 "),
        (b"GET /metrics?x HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 "),
        (b"\x16\x03\x01\x02\x00", "HTTP/1.1 400 "),
        (&[b'x'; 8 * 1024], "HTTP/1.1 431 "),
    ] {
        let told = told(&url, request);
        assert!(told.starts_with(answer), "{told}");
    }
    let head = told(&url, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.ends_with("\r\n\r\n") && !head.contains("cvmcache_"), "{head}");
}

#[test]
fn scrapers_that_hang_delay_neither_clients_nor_the_next_scrape() {
    let (plugin, url) = measured("ram", "");
    let mut client = plugin.client();
    let threads = |plugin: &Plugin| {
        let process = plugin.child.as_ref().unwrap().id();
        std::fs::read_dir(format!("/proc/{process}/task")).unwrap().count()
    };
    let before = threads(&plugin);
    let mut silent: Vec<_> = (0..6).map(|_| connect(&url)).collect();
    for socket in &mut silent {
        socket.write_all(b"GET /metr").unwrap();
    }
    client.info().unwrap();
    assert_eq!(threads(&plugin), before);
    assert!(scrape(&url).contains("cvmcache_build_info"));
    client.info().unwrap();
}

struct Panicking;

impl CachePlugin for Panicking {
    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
        panic!("panic on purpose")
    }

    fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
        Err(Status::NoEntry)
    }
}

#[test]
fn a_program_with_a_recorder_of_its_own_gets_the_metrics_and_panics_are_counted() {
    let registry = prometheus::Registry::new();
    metrics_prometheus::Recorder::builder().with_registry(&registry).build_and_install();
    let directory = tempfile::tempdir().unwrap();
    let locator = cvmcache::Locator::Unix(directory.path().join("socket"));
    let server = Server::builder(Panicking).metrics(true).listen(&locator).unwrap();
    let running = server.spawn().unwrap();
    let mut client = Client::connect(&locator, "repo:1").unwrap();
    assert_eq!(client.object_info(&id(1)).unwrap_err().status(), Some(Status::IoErr));
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert_eq!(value(&text, "cvmcache_callback_panics_total", &[]), 1.0);
    assert_eq!(requests(&text, "object_info", "IOERR"), 1.0);
    running.handle().terminate();
    running.wait().unwrap();
}
