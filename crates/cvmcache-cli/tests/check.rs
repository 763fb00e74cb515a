//! `cvmcache check`, as its users see it.

mod support;

use std::fs;
use std::io::{self, Write};

use cvmcache::plugin::{Capabilities, Data, ObjectId, ObjectInfo, PluginResult, Status};
use snapbox::str;
use support::{cvmcache, ram, start_ram};

#[test]
fn a_conforming_plugin_passes() {
    let command = ram().display().to_string();
    let check = ["check", "--spawn", &command, "--filter", "object-s", "--filter", "undeclared"];
    cvmcache(&check).assert().success().stderr_eq("").stdout_eq(str![[r#"
skipped  capability-undeclared: the plugin declares everything
ok       object-stored
ok       object-sizes
ok       object-stored-again

3 passed, 0 failed, 1 skipped in [..] s

"#]]);
}

/// A plugin that denies what it has.
struct Denies;

impl cvmcache::CachePlugin for Denies {
    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }
    fn object_info(&self, _: &cvmcache::Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
        let _ = io::stderr().write_all(b"the disk \x1b[31mis gone\n");
        Err(Status::IoErr)
    }
    fn read(&self, _: &cvmcache::Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
        Err(Status::IoErr)
    }
}

/// Not a test, but a plugin for one: the configuration file is the last argument.
#[test]
#[ignore = "it is started by a test"]
fn serves_a_plugin_that_denies() {
    let conf = std::env::args_os().next_back().unwrap();
    let options = cvmcache::Options::from_file(conf.as_ref()).unwrap();
    let locator = options.get("CVMFS_CACHE_PLUGIN_LOCATOR").unwrap().to_str().unwrap();
    let server = cvmcache::Server::builder(Denies);
    server.listen(&locator.parse().unwrap()).unwrap().spawn().unwrap().wait().unwrap();
}

#[test]
fn a_failure_shows_what_the_plugin_has_printed() {
    let program = std::env::current_exe().unwrap().display().to_string();
    let command = format!("'{program}' --ignored --nocapture --exact serves_a_plugin_that_denies");
    let check = ["check", "--spawn", &command, "--filter", "object-absent"];
    let text = cvmcache(&check).assert().code(1).stdout_eq(str![[r#"
FAILED   object-absent
...
    received: IOERR
    printed:  [..]
...
[..]the disk [..]is gone
...
"#]]);
    assert!(!text.get_output().stdout.contains(&b'\x1b'));
    let json = cvmcache(&check).arg("--json").assert().code(1);
    let document: serde_json::Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    let printed = document["cases"][0]["printed"].as_array().unwrap();
    assert!(printed.contains(&"the disk \x1b[31mis gone".into()), "{printed:?}");
}

#[test]
fn a_failure_has_the_request_the_expectation_and_the_reply() {
    let directory = tempfile::tempdir().unwrap();
    let locator = format!("unix={}", directory.path().join("socket").display());
    let server = cvmcache::Server::builder(Denies);
    let running = server.listen(&locator.parse().unwrap()).unwrap().spawn().unwrap();

    let junit = directory.path().join("junit.xml");
    let check = ["check", &locator, "--filter", "object-absent", "--seed", "7"];
    let command = cvmcache(&check).arg("--junit").arg(&junit);
    command.assert().code(1).stderr_eq("").stdout_eq(str![[r#"
FAILED   object-absent
    meaning:  To open, check or get the info of an absent object is NOENTRY.
    before:   handshake as "test.cern.ch:conformance" → OK
    sent:     refcount +0 of [..]
    expected: NOENTRY
    received: IOERR

0 passed, 1 failed, 0 skipped in [..] s
The same objects again: --seed 7

"#]]);
    let junit = fs::read_to_string(junit).unwrap();
    assert!(junit.contains(r#"<failure message="expected NOENTRY, received IOERR">"#), "{junit}");

    let json = cvmcache(&check).arg("--json").assert().code(1);
    let document: serde_json::Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!(document["failed"], 1);
    assert_eq!(document["cases"][0]["received"], "IOERR");

    running.handle().terminate();
    running.wait().unwrap();
}

#[test]
fn cases_that_evict_are_skipped_on_a_running_plugin() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    let check = ["check", &locator, "--filter", "evict-all"];
    cvmcache(&check).assert().code(1).stdout_eq(str![[r#"
skipped  evict-all: it needs the cache for itself, or evicts objects of other clients

0 passed, 0 failed, 1 skipped in [..] s
No case was run: see why they were skipped.

"#]]);
    cvmcache(&check).arg("--evict").assert().success();
}

#[test]
fn a_check_with_the_seed_of_an_earlier_one_passes() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    let check = ["check", &locator, "--filter", "object-", "--filter", "upload-", "--seed", "7"];
    cvmcache(&check).assert().success();
    cvmcache(&check).assert().success();
}

#[test]
fn a_closed_pipe_does_not_change_the_exit_status() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    // Nothing is tried, which is no success.
    let check = ["check", &locator, "--filter", "evict-all"];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cvmcache"));
    let status = command.args(check).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn invalid_arguments_are_an_error_before_any_case_runs() {
    let cases: [(&[&str], _); 5] = [
        (&["check"], "which plugin?[..]--spawn[..]"),
        (&["check", "unix=/x", "--set", "A=B"], "--set and --tcp are for a plugin[..]--spawn[..]"),
        (
            &["check", "unix=/x", "--filter", "zzz"],
            "no case has \"zzz\" in its name;[..]--list[..]",
        ),
        (&["check", "unix=/x", "--filter", "frame-"], "only hostile cases[..]: add --hostile"),
        (&["check", "--list", "--filter", "zzz"], "no case has \"zzz\" in its name;[..]"),
    ];
    for (arguments, message) in cases {
        let expected = format!("cvmcache: {message}\n");
        cvmcache(arguments).assert().code(2).stdout_eq("").stderr_eq(expected);
    }
    let lines = [
        ("CVMFS_CACHE_PLUGIN_LOCATOR=unix=/x", "a place of its own[..]--tcp"),
        ("A=1\nB=2", "more than one line: repeat --set for each"),
    ];
    for (line, message) in lines {
        cvmcache(&["check", "--spawn", "x", "--set", line])
            .assert()
            .code(2)
            .stderr_eq(format!("...\n[..]{message}[..]\n...\n"));
    }
    let check = ["check", "unix=/x", "--junit", "/nowhere/x"];
    cvmcache(&check).assert().code(1).stderr_eq(str![[r#"
cvmcache: cannot write "/nowhere/x": No such file or directory (os error 2); name a file in a directory that you can write to

"#]]);
}

#[test]
fn a_plugin_that_does_not_start_is_an_error_with_its_standard_error() {
    let command = ram().display().to_string();
    let check = ["check", "--spawn", &command, "--set", "CVMFS_CACHE_PLUGIN_SIZE=much"];
    cvmcache(&check).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
cvmcache: "[..]/cvmcache-ram" ended with status 1 before it served a client; it has printed:
[..]CVMFS_CACHE_PLUGIN_SIZE[..]
...
"#]]);
}

#[test]
fn list_prints_the_cases_with_their_meanings() {
    cvmcache(&["check", "--list", "--filter", "read-short"]).assert().success().stdout_eq(str![[
        r#"
What clients rely on

read-short  needs write
    A read across the end of an object returns the bytes up to the end.


"#
    ]]);
}

#[test]
fn a_case_for_which_there_are_no_threads_is_skipped_and_nothing_panics() {
    let server = cvmcache::Server::builder(Denies).listen(&"tcp=127.0.0.1:0".parse().unwrap());
    let server = server.unwrap();
    let locator = server.locator().unwrap().to_string();
    let running = server.spawn().unwrap();
    let program = snapbox::cmd::cargo_bin!("cvmcache").to_owned();
    let (mut skipped, mut finished) = (0, 0);
    for limit in 1..100 {
        let mut command = std::process::Command::new("prlimit");
        command.arg(format!("--nproc={limit}:{limit}"));
        if nix::unistd::geteuid().is_root() {
            // Limits do not bind root; this is a user without any other process.
            command.args(["setpriv", "--clear-groups", "--reuid=59400"]);
        }
        command.arg(&program).args(["check", &locator, "--hostile", "--filter", "load-flood"]);
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.contains("panic"), "{limit}: {said}");
        skipped +=
            usize::from(said.contains("skipped") && said.contains("cannot start the thread"));
        finished += usize::from(said.contains("FAILED   load-flood"));
        if finished == 2 {
            break;
        }
    }
    // This plugin fails the case once there are threads for it.
    assert!(skipped > 0 && finished == 2, "{skipped} skipped, {finished} finished");
    running.handle().terminate();
    running.wait().unwrap();
}
