//! What plugins log: what is worth it, on lines of their own, and never without an end.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Instant;

use cvmcache::client::{Client, NewUpload};
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

/// Says what makes the server close the connection, and log that it did.
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
