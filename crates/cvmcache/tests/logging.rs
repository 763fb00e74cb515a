//! The log of plugins: its targets, its limits, and lines that clients cannot forge.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Instant;

use cvmcache::client::{Client, NewUpload, Operation, ReplyBody, Request};
use cvmcache::plugin::{Breadcrumb, ObjectType, Status};
use nix::sys::signal::Signal;
use support::id;
use support::plugin::{LIMIT, Plugin, Supervised, eventually};
use support::syslog::Syslog;

/// Starts a plugin whose standard error is the file `stderr`.
fn logging(name: &'static str, lines: &str) -> Plugin {
    let mut plugin = Plugin::new(name);
    let config = plugin.configure(lines);
    let mut command = plugin.command(&[config.as_ref()]);
    command.stdout(Stdio::null()).stderr(File::create(plugin.path("stderr")).expect("a file"));
    plugin.spawn(&mut command);
    eventually("it listens", || UnixStream::connect(plugin.path("socket")).is_ok());
    plugin
}

fn log(plugin: &Plugin, name: &str) -> String {
    fs::read_to_string(plugin.path(name)).expect("a log")
}

/// Sends bytes that are no frame, so that the server closes the connection, and logs that.
fn talk_nonsense(plugin: &Plugin) {
    let mut socket = UnixStream::connect(plugin.path("socket")).expect("it listens");
    socket.write_all(&[0xff; 64]).expect("it is taken");
    let _ = socket.read_to_end(&mut Vec::new());
}

#[test]
fn lines_that_each_connection_provokes_are_suppressed_beyond_their_limit() {
    let mut plugin = logging("null", "");
    for _ in 0..2000 {
        talk_nonsense(&plugin);
    }
    plugin.client().info().unwrap();
    plugin.signal(Signal::SIGTERM);
    assert_eq!(plugin.wait(), 0);
    let log = log(&plugin, "stderr");
    let said = log.matches("not a frame").count();
    assert!((20..100).contains(&said), "{said}");
    assert!(log.len() < 32 * 1024, "{}", log.len());
    let suppressed: usize = log
        .lines()
        .filter(|line| line.contains("suppressed") && line.contains("shutdown.rs"))
        .map(|line| {
            let count = line.split("more lines").next().unwrap().split_whitespace().last();
            count.unwrap().parse::<usize>().unwrap()
        })
        .sum();
    assert_eq!(said + suppressed, 2000, "{log}");
}

#[test]
fn control_characters_in_client_names_are_escaped_in_the_log() {
    let plugin = logging("null", "");
    let name = &b"repo\n2026-01-01T00:00:00Z ERROR made up\x1b[2J\xff:1"[..];
    let client = Client::builder().name(name).timeout(LIMIT).connect(&plugin.locator()).unwrap();
    let mut connection = client.into_connection();
    connection.send_raw(&[0xff; 64]).unwrap();
    eventually("it is logged", || log(&plugin, "stderr").contains("not a frame"));
    let log = log(&plugin, "stderr");
    let escaped = r"repo\n2026-01-01T00:00:00Z ERROR made up\x1b[2J\xff:1 (session 1)";
    assert!(log.contains(escaped), "{log}");
    assert!(!log.contains("\n2026-01-01") && !log.contains('\x1b'), "{log}");
}

#[test]
fn sigusr1_writes_a_status_report() {
    for workers in ["0", "2"] {
        let plugin = logging("ram", &format!("CVMFS_CACHE_PLUGIN_WORKERS={workers}\n"));
        let named = |name: &'static str| {
            Client::builder().name(name).timeout(LIMIT).connect(&plugin.locator()).unwrap()
        };
        let mut first = named("atlas.cern.ch:1");
        first.store(NewUpload::new(id(1)), "abc").unwrap();
        first.store(NewUpload::new(id(2)), "abc").unwrap();
        let mut upload = first.begin_upload(NewUpload::new(id(3)).expected_size(300_000));
        upload.write(&mut first, vec![7; 262_144]).unwrap();
        let _others: Vec<_> = (0..60).map(|_| named("cms.cern.ch:2\n")).collect();
        plugin.signal(Signal::SIGUSR1);
        eventually("it reports", || log(&plugin, "stderr").contains("bytes used"));
        let log = log(&plugin, "stderr");
        for line in [
            "state of cvmcache ram, process ".to_owned(),
            "Limits { max_object_size: 262144, ".to_owned(),
            "61 connections, 61 sessions, 1 uploads with 262144 bytes, 0 clients away".to_owned(),
            " 2 objects open, 1 uploads with 262144 bytes, 0 listings, 0 requests".to_owned(),
            r"cms.cern.ch:2\n (session ".to_owned(),
            "11 more sessions: 0 objects open, 0 uploads with 0 bytes".to_owned(),
            format!("{}, 262144 of 300000 bytes, begun 0s ago", id(3)),
        ] {
            assert!(log.contains(&line), "{log} lacks {line}");
        }
        let report = log.lines().skip_while(|line| !line.contains("state of"));
        assert!(report.count() < 65, "{log}");
        first.info().unwrap();
    }
}

#[test]
fn status_reports_are_written_at_most_once_a_second() {
    let mut plugin = logging("null", "");
    let mut client = plugin.client();
    let begun = Instant::now();
    for _ in 0..200 {
        plugin.signal(Signal::SIGUSR1);
        client.info().unwrap();
    }
    client.quit().unwrap();
    plugin.signal(Signal::SIGTERM);
    assert_eq!(plugin.wait(), 0);
    let most = 1 + begun.elapsed().as_secs() as usize;
    let reports = log(&plugin, "stderr").matches("state of ").count();
    assert!((1..=most).contains(&reports), "{reports} of {most}");
}

#[test]
fn the_last_lines_before_an_exit_are_logged() {
    let mut first = Plugin::new("null");
    first.start("");
    let second = Plugin::new("null");
    let debug_log = second.path("debug.log");
    let config = first.configure(&format!("CVMFS_CACHE_PLUGIN_DEBUGLOG={}\n", debug_log.display()));
    let mut supervised = Supervised::start(second, &config);
    assert_eq!(supervised.answer(), Some(b'C'));
    assert_eq!(supervised.plugin.wait(), 0);
    let log = log(&supervised.plugin, "debug.log");
    assert!(log.contains("leaving the client to the other process"), "{log}");
}

#[test]
fn lines_for_the_journal_begin_with_their_severity() {
    let mut plugin = Plugin::new("null");
    let config = plugin.configure("");
    let stderr = File::create(plugin.path("stderr")).expect("a file");
    let metadata = stderr.metadata().expect("a file");
    let mut command = plugin.command(&[config.as_ref()]);
    command.env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino()));
    plugin.spawn(command.stdout(Stdio::null()).stderr(stderr));
    eventually("it listens", || UnixStream::connect(plugin.path("socket")).is_ok());
    talk_nonsense(&plugin);
    eventually("it is logged", || log(&plugin, "stderr").contains("not a frame"));
    let log = log(&plugin, "stderr");
    assert!(log.lines().all(|line| line.starts_with("<6>INFO ")), "{log}");
}

#[test]
fn lines_lost_on_a_full_disk_are_reported() {
    let mut plugin = logging("null", "CVMFS_CACHE_PLUGIN_DEBUGLOG=/dev/full\n");
    plugin.client().quit().unwrap();
    plugin.signal(Signal::SIGTERM);
    assert_eq!(plugin.wait(), 0);
    let log = log(&plugin, "stderr");
    assert!(log.contains("lines lost: cannot write to the log: No space left on device"), "{log}");
}

#[test]
fn a_supervised_plugin_logs_to_syslog() {
    let plugin = Plugin::new("null");
    let syslog = Syslog::new(plugin.directory.path());
    let config = plugin.configure("");
    let mut supervised =
        Supervised::start_with(plugin, &config, |command| *command = syslog.seen_by(command));
    assert_eq!(supervised.answer(), Some(b'C'));
    talk_nonsense(&supervised.plugin);
    let said = syslog.read_until("not a frame");
    let process = format!(" cvmcache-null[{}]: ", supervised.plugin.pid());
    // 3 is the facility for daemons, and 6 the severity of what is worth knowing.
    let last = said.last().unwrap();
    assert!(last.starts_with("<30>") && last.contains(&process), "{last}");
}

#[test]
fn an_error_at_the_start_of_a_supervised_plugin_is_in_syslog() {
    for (lines, complaint) in [
        ("CVMFS_CACHE_PLUGIN_WORKERS=many\n", "write a number from 0 to 1024"),
        ("CVMFS_CACHE_PLUGIN_DEBUGLOG=/nowhere/log\n", "name a regular file in a directory"),
    ] {
        let plugin = Plugin::new("null");
        let syslog = Syslog::new(plugin.directory.path());
        let config = plugin.configure(lines);
        let mut supervised =
            Supervised::start_with(plugin, &config, |command| *command = syslog.seen_by(command));
        assert_eq!(supervised.answer(), Some(b'F'));
        assert_eq!(supervised.plugin.wait(), 1);
        let said = syslog.read_until("the plugin ends");
        let last = said.last().unwrap();
        assert!(last.starts_with("<27>") && last.contains(complaint), "{last}");
    }
}

/// The lines of the debug log about requests, as fields.
fn requests(log: &str) -> Vec<String> {
    log.lines()
        .filter(|line| line.contains("cvmcache::request: answered"))
        .map(Into::into)
        .collect()
}

#[test]
fn the_debug_log_has_a_line_for_every_request() {
    for workers in ["0", "2"] {
        let mut plugin = Plugin::new("ram");
        let debug_log = plugin.path("debug.log");
        let lines = format!(
            "CVMFS_CACHE_PLUGIN_WORKERS={workers}\nCVMFS_CACHE_PLUGIN_DEBUGLOG={}\n",
            debug_log.display()
        );
        plugin.start(&lines);
        let mut client = plugin.client();
        client.open(&id(1)).unwrap_err();
        client.store(NewUpload::new(id(1)), "abc").unwrap();
        client.open(&id(1)).unwrap();
        client.object_info(&id(1)).unwrap();
        client.read(&id(1), 0, 100).unwrap();
        client.read(&id(1), 4, 100).unwrap_err();
        client.close(&id(1)).unwrap();
        client.exists(&id(1)).unwrap();
        client.list(ObjectType::Regular).unwrap();
        client.info().unwrap();
        client.shrink(0).unwrap();
        client.load_breadcrumb("repo").unwrap_err();
        let breadcrumb = Breadcrumb { catalog: id(2), timestamp: 1, revision: None };
        client.store_breadcrumb("repo", breadcrumb).unwrap();
        let session = client.session();
        let operation = Operation::Info;
        let foreign = Request { session: session + 1, id: 99, operation };
        let ticket = client.submit_request(foreign).unwrap();
        assert_eq!(client.wait(ticket).unwrap(), ReplyBody::Info(Err(Status::Forbidden)));
        client.quit().unwrap();
        plugin.signal(Signal::SIGTERM);
        assert_eq!(plugin.wait(), 0);

        let log = log(&plugin, "debug.log");
        let lines = requests(&log);
        let object = format!(" object={}", id(1));
        let expected = [
            ("handshake", "", "OK"),
            ("open", &object[..], "NOENTRY"),
            ("store", &object, "OK"),
            ("open", &object, "OK"),
            ("object_info", &object, "OK"),
            ("read", &object, "OK"),
            ("read", &object, "OUTOFBOUNDS"),
            ("close", &object, "OK"),
            ("exists", &object, "OK"),
            ("list", "", "OK"),
            ("info", "", "OK"),
            ("shrink", "", "PARTIAL"),
            ("load_breadcrumb", "", "NOENTRY"),
            ("store_breadcrumb", "", "OK"),
            ("invalid", "", "FORBIDDEN"),
        ];
        assert_eq!(lines.len(), expected.len(), "{log}");
        for (line, (operation, object, status)) in lines.iter().zip(expected) {
            let said = format!(" operation=\"{operation}\"{object} status=\"{status}\"");
            assert!(line.contains(&said), "{line} lacks {said}");
            assert!(
                line.contains(" duration_us=") && line.contains("connection{number="),
                "{line}"
            );
            if operation != "handshake" {
                assert!(line.contains("session{session=repo:1 (session "), "{line}");
            }
        }
        assert!(lines[5].contains(" bytes=3 ") && lines[5].contains("request{number="), "{log}");
    }
}

#[test]
fn requests_are_no_lines_where_there_is_no_debug_log() {
    let mut plugin = logging("null", "");
    let mut client = plugin.client();
    client.store(NewUpload::new(id(1)), "abc").unwrap();
    client.quit().unwrap();
    plugin.signal(Signal::SIGTERM);
    assert_eq!(plugin.wait(), 0);
    let log = log(&plugin, "stderr");
    assert!(!log.contains("answered") && !log.contains(&id(1).to_string()), "{log}");
}

#[test]
fn a_store_that_finds_no_room_is_a_warning_with_what_is_pinned() {
    const OBJECT: usize = 8 << 20;
    for workers in ["0", "2"] {
        let lines = format!("CVMFS_CACHE_PLUGIN_SIZE=100\nCVMFS_CACHE_PLUGIN_WORKERS={workers}\n");
        let mut plugin = logging("ram", &lines);
        let mut client = plugin.client();
        // Each of them stays open.
        let refused = (0..20).find(|&number| {
            let stored = client.store(NewUpload::new(id(number)), vec![number; OBJECT]);
            stored.is_err_and(|error| error.status() == Some(Status::NoSpace))
        });
        let refused = refused.expect("it has no room for all of them");
        for _ in 0..50 {
            client.store(NewUpload::new(id(refused)), vec![0; OBJECT]).unwrap_err();
        }
        client.quit().unwrap();
        plugin.signal(Signal::SIGTERM);
        assert_eq!(plugin.wait(), 0);
        let log = log(&plugin, "stderr");
        let refusals: Vec<_> = log.lines().filter(|line| line.contains("refused: ")).collect();
        assert!(refusals.len() < 20, "{log}");
        let first = refusals.first().expect("a warning");
        assert!(
            first.contains(" WARN ") && first.contains("no space left in the cache"),
            "{first}"
        );
        for expected in [
            "session=repo:1 (session 1)".to_owned(),
            "operation=\"store\"".to_owned(),
            format!("object={}", id(refused)),
            "status=\"NOSPACE\"".to_owned(),
            format!("size_bytes={}", 100 << 20),
            "used_bytes=".to_owned(),
            "pinned_bytes=".to_owned(),
        ] {
            assert!(first.contains(&expected), "{first} lacks {expected}");
        }
        // Those that have no line of their own are counted.
        let last = refusals.last().expect("another one");
        assert!(last.contains("suppressed="), "{log}");
    }
}
