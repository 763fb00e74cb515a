//! The commands that use the administration socket of a plugin, as their users see them.

mod support;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cvmcache::Locator;
use cvmcache::client::{Client, NewUpload};
use cvmcache::plugin::ObjectId;
use cvmcache_testkit::{PluginCommand, PluginProcess};
use nix::unistd::geteuid;
use serde_json::Value;
use snapbox::cmd::cargo_bin;
use snapbox::str;
use support::shelf::{Served, Shelf};
use support::terminal::Terminal;
use support::{cvmcache, example, ram, start_ram};

/// The commands of this page, with what makes them harmless.
const COMMANDS: [&[&str]; 6] =
    [&["sessions"], &["stats"], &["detach"], &["config"], &["log-level"], &["admin"]];

fn connect(plugin: &PluginProcess, name: &str) -> Client {
    Client::connect(plugin.locator(), name.to_owned()).expect("it works")
}

/// What a command prints that succeeds.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = cvmcache(arguments).assert().success().stderr_eq("");
    String::from_utf8(output.get_output().stdout.clone()).expect("it works")
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(arguments)).expect("it works")
}

fn administration_socket(plugin: &PluginProcess) -> PathBuf {
    let Locator::Unix(path) = plugin.locator() else { unreachable!() };
    PathBuf::from(format!("{}.admin", path.display()))
}

/// The configuration file that a plugin was started with.
fn plugin_file(plugin: &PluginProcess) -> PathBuf {
    administration_socket(plugin).parent().expect("a directory").join("conf")
}

/// Stores an object, reads it, and asks for one that is not there.
fn use_cache(client: &mut Client) {
    let object = "df773e9a5cb233e9b40854d423944d70a042bc5d".parse::<ObjectId>().expect("an id");
    client.store(NewUpload::new(object), vec![7; 100_000]).expect("it works");
    client.open(&object).expect("it works");
    client.read(&object, 0, 100_000).expect("it works");
    let missing = "0000000000000000000000000000000000000001".parse::<ObjectId>().expect("an id");
    client.open(&missing).expect_err("it is not there");
}

#[test]
fn sessions_are_listed_by_repository_with_their_clients_and_what_they_hold() {
    for plugin in [start_ram(), PluginCommand::new(example("null")).start().unwrap()] {
        let locator = plugin.locator().to_string();
        let _cms = connect(&plugin, "cms.cern.ch:1");
        let mut atlas = connect(&plugin, "atlas.cern.ch:2");
        use_cache(&mut atlas);
        let shown = printed(&["sessions", &locator]);
        let lines: Vec<Vec<_>> =
            shown.lines().map(|line| line.split_whitespace().collect()).collect();
        let pid = std::process::id().to_string();
        assert_eq!(lines[0][..4], ["id", "repository", "client", "age"], "{shown}");
        assert_eq!(lines[1][1..3], ["atlas.cern.ch", &pid], "{shown}");
        assert_eq!(lines[2][1..3], ["cms.cern.ch", &pid], "{shown}");
        assert_eq!(lines[3][0], "total", "{shown}");
        assert!(shown.ends_with("2 sessions of 2 repositories\n"), "{shown}");
        let list = json(&["sessions", "--json", &locator]);
        let atlas = &list["sessions"][1];
        assert_eq!(atlas["repository"], "atlas.cern.ch", "{list}");
        assert_eq!((&atlas["hits"], &atlas["misses"]), (&1.into(), &1.into()), "{list}");
    }
}

#[test]
fn statistics_have_windows_operations_and_the_gauges_of_the_plugin() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    use_cache(&mut connect(&plugin, "atlas.cern.ch:2"));
    let shown = printed(&["stats", &locator]);
    let has = |words: &[&str]| {
        shown.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == words)
    };
    assert!(has(&["hit", "ratio", "50", "%", "50", "%"]), "{shown}");
    assert!(has(&["since", "start", "last", "minute"]), "{shown}");
    assert!(shown.lines().any(|line| line.trim() == "NOENTRY 1"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    let answer = json(&["stats", "--json", "--zero", &locator]);
    assert_eq!(answer["since_start"]["hits"], 1);
    assert_eq!(answer["since_zero"]["hits"], 0);
    assert!(printed(&["stats", &locator]).contains("since zero"));
}

#[test]
fn statistics_are_a_line_each_time_on_a_pipe() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    for (pause, is_json) in [(Some("0.1"), false), (None, false), (Some("0.1"), true)] {
        let mut command = Command::new(cargo_bin!("cvmcache"));
        command.args(["stats", "--watch"]).args(pause).arg(&locator);
        command.args(is_json.then_some("--json"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap();
        let (first, second) = (next(), next());
        if is_json {
            assert!(serde_json::from_str::<Value>(&second).is_ok(), "{second}");
        } else {
            assert!(first.contains("req/s"), "{first}");
            assert_eq!(second.len(), first.len(), "{second}");
        }
        // Its reader has gone, which is no error.
        drop(lines);
        assert!(child.wait().unwrap().success());
    }
    cvmcache(&["stats", &locator, "--watch", "0"]).assert().code(2).stdout_eq("").stderr_eq(str![
        [r#"
cvmcache: --watch "0": write a number of seconds from 0.1 to 86400

"#]
    ]);
}

#[test]
fn statistics_are_drawn_in_place_on_a_terminal() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    let mut client = connect(&plugin, "atlas.cern.ch:2");
    let mut terminal = Terminal::start(&["stats", "--watch", "0.1", &locator], (80, 24));
    let has_row = |shown: &str, name: &str, value: &str| {
        shown.lines().any(|line| line.starts_with(name) && line.contains(value))
    };
    terminal.wait_until(|shown| has_row(shown, "hit ratio", " - "));
    use_cache(&mut client);
    terminal.wait_until(|shown| {
        let row = |name: &str, value: &str| has_row(shown, name, value);
        let rows = row("hit ratio", " 50 % ") && row("open ", " 2 ") && row("read", " 97.7 KiB ");
        // From the top, each time.
        rows && shown.starts_with("cvmcache ram ") && shown.lines().count() <= 24
    });
    terminal.press("\x03");
    terminal.wait_for_end();
}

#[test]
fn a_detach_asks_all_clients_and_tells_how_many_they_are() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    assert_eq!(printed(&["detach", &locator]), "no client is connected\n");
    let mut clients = ["a:1", "b:2"].map(|name| connect(&plugin, name));
    assert_eq!(printed(&["detach", &locator]), "2 sessions are asked\n");
    for client in &mut clients {
        client.info().unwrap();
        assert_eq!(client.detach_requests(), 1);
    }
    assert_eq!(json(&["detach", "--json", &locator])["asked"], 2);
}

#[test]
fn the_configuration_has_values_and_where_they_come_from() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    let shown = printed(&["config", &locator]);
    assert!(shown.contains("\nfile     CVMFS_CACHE_PLUGIN_SIZE=100\n"), "{shown}");
    assert!(shown.contains("\ndefault  CVMFS_CACHE_PLUGIN_POLL: 200\n"), "{shown}");
    let mut changed: Vec<_> =
        printed(&["config", "--changed", &locator]).lines().map(str::to_owned).collect();
    changed.sort();
    assert_eq!(
        changed,
        [
            format!("# {}", plugin_file(&plugin).display()),
            format!("file  CVMFS_CACHE_PLUGIN_LOCATOR={locator}"),
            "file  CVMFS_CACHE_PLUGIN_SIZE=100".to_owned(),
        ]
    );
    let list = json(&["config", "--changed", "--json", &locator]);
    assert_eq!(list["settings"].as_array().unwrap().len(), 2, "{list}");
}

#[test]
fn the_level_of_the_log_is_shown_and_changed() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    assert_eq!(printed(&["log-level", &locator]), "info\n");
    assert_eq!(printed(&["log-level", &locator, "debug"]), "debug\n");
    let short = cvmcache(&["log-level"]).env("CVMCACHE_LOCATOR", &locator);
    short.assert().success().stdout_eq("debug\n");
    let short = cvmcache(&["log-level", "warn"]).env("CVMCACHE_LOCATOR", &locator);
    short.assert().success().stdout_eq("warn\n");
    cvmcache(&["log-level", &locator, "loud"]).assert().code(2).stdout_eq("").stderr_eq(str![[
        r#"
cvmcache: "loud" is no level: write error, warn, info, debug or trace (status 400)

"#
    ]]);
}

#[test]
fn commands_are_listed_and_run() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    assert!(printed(&["admin", &locator]).contains("\nPOST  /v1/report "));
    let list = json(&["admin", "--json", &locator]);
    assert!(list["resources"].as_array().unwrap().len() >= 12);
    assert_eq!(json(&["admin", &locator, "report"])["written_to"], "log");
    let shrunk = json(&["admin", &locator, "shrink", "{\"bytes\": 0}"]);
    assert_eq!(shrunk["is_reached"], true);
    for (arguments, said) in [
        (
            &["nonsense"][..],
            "there is no command \"nonsense\": cvmcache admin without one lists them",
        ),
        (&["sessions"], "there is no command \"sessions\": cvmcache admin without one lists them"),
        (&["shrink", "[]"], "\"[]\" is no JSON object "),
        (&["shrink", "{\"byte\": 0}"], "unknown field `byte`"),
    ] {
        let all = [&["admin", locator.as_str()][..], arguments].concat();
        let output = cvmcache(&all).assert().code(2).stdout_eq("");
        let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(stderr.contains(said), "{stderr}");
    }
}

#[test]
fn without_the_socket_each_command_names_the_reason_and_what_the_protocol_can() {
    let command = PluginCommand::new(ram()).option("CVMFS_CACHE_PLUGIN_ADMIN", "no");
    let configured = command.option("CVMFS_CACHE_PLUGIN_SIZE", "100").start().unwrap();
    let old = Served::new(Shelf::new(vec![]));
    let remedies = [
        "cvmcache info, ls and top",
        "cvmcache info and top show",
        "press R and Enter",
        "cvmcache doctor",
        "its configuration sets it",
        "cvmcache info, ls, shrink and top",
    ];
    for (command, remedy) in COMMANDS.iter().zip(remedies) {
        for (locator, reason) in [
            (configured.locator().to_string(), "its configuration has CVMFS_CACHE_PLUGIN_ADMIN=no"),
            (old.locator(), "socket.admin does not exist: its SDK is older"),
        ] {
            let arguments = [*command, &[locator.as_str()]].concat();
            let output = cvmcache(&arguments).assert().code(1).stdout_eq("");
            let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
            assert!(said.contains(" has no administration socket: "), "{said}");
            assert!(said.contains(reason) && said.contains(remedy), "{command:?}: {said}");
        }
        let output = cvmcache(&[*command, &["unix=/nowhere"]].concat()).assert().code(1);
        let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(said.contains("/nowhere does not exist, so no plugin runs there"), "{said}");
        cvmcache(command).assert().code(2).stdout_eq("");
    }
}

#[test]
fn a_socket_that_the_configuration_puts_elsewhere_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("elsewhere");
    let path = path.to_str().unwrap();
    let command = PluginCommand::new(ram()).option("CVMFS_CACHE_PLUGIN_ADMIN", path);
    let plugin = command.option("CVMFS_CACHE_PLUGIN_SIZE", "100").start().unwrap();
    let locator = plugin.locator().to_string();
    printed(&["sessions", &locator]);
    assert!(printed(&["info", &locator]).contains("\nhits          0\n"));
    // And by its name alone.
    printed(&["sessions", "--admin", path]);
    assert_eq!(printed(&["log-level", "--admin", path, "warn"]), "warn\n");
}

#[test]
fn the_socket_of_a_plugin_that_listens_on_tcp_is_found() {
    let command = PluginCommand::new(ram()).option("CVMFS_CACHE_PLUGIN_SIZE", "100").tcp();
    let plugin = command.start().unwrap();
    let _client = connect(&plugin, "atlas.cern.ch:1");
    let shown = printed(&["sessions", &plugin.locator().to_string()]);
    assert!(shown.contains(" 127.0.0.1"), "{shown}");
    let Locator::Tcp { port, .. } = plugin.locator() else { unreachable!() };
    printed(&["sessions", &format!("tcp=localhost:{port}")]);
}

#[test]
fn another_user_is_refused() {
    let plugin = start_ram();
    let socket = administration_socket(&plugin);
    let locator = plugin.locator().to_string();
    // Its directory is reachable for all, and a copy of the program, too.
    let directory = tempfile::tempdir().unwrap();
    for directory in [directory.path(), socket.parent().unwrap()] {
        fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    }
    let program = directory.path().join("cvmcache");
    fs::copy(cargo_bin!("cvmcache"), &program).unwrap();
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--clear-groups", "--reuid=65534", "--regid=65534"]).arg(&program);
        command
    } else {
        // Another user cannot be had; the owner of a socket without permissions is refused as one.
        fs::set_permissions(&socket, Permissions::from_mode(0o000)).unwrap();
        Command::new(&program)
    };
    let output = command.args(["sessions", &locator]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let path = socket.display().to_string();
    assert!(said.contains(&format!("cannot connect to {path}: user ")), "{said}");
    assert!(said.contains(" may not; administrators are "), "{said}");
}

#[test]
fn what_is_no_administration_socket_is_an_error_with_a_remedy() {
    let plugin = start_ram();
    let Locator::Unix(own) = plugin.locator() else { unreachable!() };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let said = |path: &Path| {
        let arguments = ["sessions", "--timeout", "5", "--admin", path.to_str().unwrap()];
        let output = cvmcache(&arguments).assert().code(1).stdout_eq("");
        String::from_utf8_lossy(&output.get_output().stderr).into_owned()
    };
    let text = said(&file);
    assert!(text.contains("no process listens there"), "{text}");
    let text = said(&directory.path().join("nothing"));
    assert!(text.contains("it does not exist: compare it with the log"), "{text}");
    let text = said(own);
    assert!(text.contains(own.to_str().unwrap()), "{text}");
}

#[test]
fn a_thousand_sessions_are_listed_while_clients_work() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    let idle: Vec<_> =
        (0..1000).map(|n| connect(&plugin, &format!("repository-{}.cern.ch:{n}", n % 7))).collect();
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        for n in 0..50 {
            let (plugin, ends) = (&plugin, &ends);
            scope.spawn(move || {
                let mut client = connect(plugin, &format!("busy.cern.ch:{n}"));
                let missing = "0000000000000000000000000000000000000001".parse().unwrap();
                while !ends.load(Ordering::Relaxed) {
                    client.open(&missing).unwrap_err();
                    client.info().unwrap();
                }
            });
        }
        let is_busy = |list: &Value| {
            let sessions = list["sessions"].as_array().unwrap();
            let busy = sessions.iter().filter(|session| session["repository"] == "busy.cern.ch");
            busy.filter(|session| session["misses"].as_u64() > Some(0)).count() == 50
        };
        while !is_busy(&json(&["sessions", "--json", &locator])) {}
        let shown = printed(&["sessions", &locator]);
        ends.store(true, Ordering::Relaxed);
        assert_eq!(shown.lines().count(), 1 + 1050 + 2, "{shown}");
        assert!(shown.ends_with("1,050 sessions of 8 repositories\n"), "{shown}");
    });
    drop(idle);
}
