//! `--check`: a configuration judged as a start would, without serving.

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use support::plugin::Plugin;

/// The exit status and the lines of `--check` for a configuration with these lines.
fn checked(plugin: &Plugin, lines: &str) -> (i32, Vec<String>) {
    let config = plugin.configure(lines);
    let mut command = plugin.command(&["--check".as_ref(), config.as_ref()]);
    let Output { status, stderr, stdout } = command.output().expect("it prints text and exits");
    assert_eq!(String::from_utf8(stderr).expect("it prints text and exits"), "");
    let lines = String::from_utf8(stdout)
        .expect("it prints text and exits")
        .lines()
        .map(str::to_owned)
        .collect();
    (status.code().expect("it prints text and exits"), lines)
}

#[test]
fn a_configuration_that_is_checked_leaves_no_files_and_is_ok() {
    let plugin = Plugin::new("ram");
    let lines = format!("CVMFS_CACHE_PLUGIN_DEBUGLOG={}\n", plugin.path("log").display());
    assert_eq!(checked(&plugin, &lines), (0, vec!["ok".to_owned()]));
    let left: Vec<_> = fs::read_dir(plugin.directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "the configuration, and {left:?}");
}

#[test]
fn a_check_prints_all_errors_at_once() {
    let plugin = Plugin::new("ram");
    fs::write(plugin.path("socket"), "").unwrap();
    let (status, lines) = checked(
        &plugin,
        "CVMFS_CACHE_PLUGIN_SZIE=1\nnonsense\nCVMFS_CACHE_PLUGIN_WORKERS=many\n\
         CVMFS_CACHE_PLUGIN_POLL=1001\nCVMFS_CACHE_PLUGIN_ALLOW=home\n\
         CVMFS_CACHE_PLUGIN_ALLOW_USERS=no-such-user\nCVMFS_CACHE_PLUGIN_DEBUGLOG=/\n\
         CVMFS_CACHE_PLUGIN_CRASH_DUMP=/nowhere/at/all/dump\n\
         CVMFS_CACHE_PLUGIN_METRICS=somewhere\nCVMFS_CACHE_PLUGIN_SIZE=0%\n",
    );
    assert_eq!(status, 1);
    for (line, expected) in lines.iter().zip([
        "conf:3: the line is skipped",
        "is CVMFS_CACHE_PLUGIN_SIZE meant?",
        "is not a socket: remove it",
        "WORKERS=\"many\"",
        "POLL=\"1001\"",
        "ALLOW=\"home\"",
        "ALLOW_USERS=\"no-such-user\"",
        "DEBUGLOG=\"/\"",
        "CRASH_DUMP=\"/nowhere/at/all/dump\"",
        "METRICS=\"somewhere\"",
        "SIZE=\"0%\"",
    ]) {
        assert!(line.contains(expected), "{line} lacks {expected}");
    }
    assert_eq!(lines.len(), 11, "{lines:#?}");
    let missing = plugin.command(&["--check".as_ref(), "/nowhere/conf".as_ref()]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let nothing = plugin.command(&["--check".as_ref()]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
}

#[test]
fn a_port_for_both_clients_and_metrics_is_an_error_of_the_check() {
    let plugin = Plugin::new("ram");
    let config = plugin.path("both");
    let lines = "CVMFS_CACHE_PLUGIN_LOCATOR=tcp=127.0.0.1:29470\n\
                 CVMFS_CACHE_PLUGIN_METRICS=127.0.0.1:29470\n";
    fs::write(&config, lines).unwrap();
    let output = plugin.command(&["--check".as_ref(), config.as_ref()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("CVMFS_CACHE_PLUGIN_LOCATOR has this port; set another"), "{said}");
}

#[test]
fn warnings_of_the_start_are_warnings_of_the_check() {
    let (status, lines) = checked(&Plugin::new("ram"), "CVMFS_CACHE_PLUGIN_SIZE=5\n");
    assert_eq!(status, 0);
    assert!(lines[0].starts_with("warning: CVMFS_CACHE_PLUGIN_SIZE: "), "{lines:?}");
    assert_eq!(lines[1..], ["ok"]);
}

#[test]
fn a_check_does_not_disturb_a_plugin_that_serves() {
    let mut plugin = Plugin::new("ram");
    plugin.start("");
    let mut client = plugin.client();
    let (status, lines) = checked(&plugin, "");
    assert_eq!(status, 0);
    let pid = plugin.pid();
    assert!(lines[0].starts_with(&format!("note: process {pid} serves unix=")), "{lines:?}");
    client.info().unwrap();
    // A supervised plugin ends with its last client, and a check is none.
    drop(client);
    plugin.client().info().unwrap();
}

#[test]
fn an_administration_socket_that_another_plugin_has_is_a_warning_of_the_check() {
    let mut plugin = Plugin::new("ram");
    plugin.start("");
    let (_, lines) = checked(&plugin, "");
    assert_eq!(lines.len(), 2, "its own is none: {lines:?}");
    let other = Plugin::new("ram");
    let taken = plugin.path("socket.admin").display().to_string();
    let (status, lines) = checked(&other, &format!("CVMFS_CACHE_PLUGIN_ADMIN={taken}\n"));
    let expected = format!(
        "warning: there would be no administration socket {taken}: process {} serves there; set \
         CVMFS_CACHE_PLUGIN_ADMIN to another path, or to no",
        plugin.pid()
    );
    assert_eq!((status, lines), (0, vec![expected, "ok".to_owned()]));
    let (status, lines) = checked(&other, "CVMFS_CACHE_PLUGIN_ADMIN=relative\n");
    assert_eq!(status, 1);
    assert!(lines[0].contains("write no, or an absolute path"), "{lines:?}");
}

#[test]
fn the_check_makes_no_directory_for_the_administration_socket_of_a_tcp_plugin() {
    let plugin = Plugin::new("ram");
    let config = plugin.path("tcp");
    fs::write(&config, "CVMFS_CACHE_PLUGIN_LOCATOR=tcp=127.0.0.1:0\n").unwrap();
    let runtime = plugin.path("runtime");
    fs::create_dir(&runtime).unwrap();
    let mut command = plugin.command(&["--check".as_ref(), config.as_ref()]);
    command.env("XDG_RUNTIME_DIR", &runtime).env_remove("RUNTIME_DIRECTORY");
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "ok\n");
    assert_eq!(fs::read_dir(&runtime).unwrap().count(), 0);
    fs::write(runtime.join("cvmcache"), "").unwrap();
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(said.starts_with("warning: there is no administration socket: "), "{said}");
    assert!(said.ends_with(", or set CVMFS_CACHE_PLUGIN_ADMIN\nok\n"), "{said}");
}

#[test]
fn a_metrics_port_is_an_error_unless_the_plugin_itself_has_it() {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plugin = Plugin::new("ram");
    let own = free().local_addr().unwrap().port();
    let own = format!("CVMFS_CACHE_PLUGIN_METRICS={own}\n");
    plugin.start(&own);
    let (status, lines) = checked(&plugin, &own);
    assert_eq!(status, 0, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("as for its metrics")), "{lines:?}");
    let other = free();
    let port = other.local_addr().unwrap().port();
    let (status, lines) = checked(&plugin, &format!("CVMFS_CACHE_PLUGIN_METRICS={port}\n"));
    assert_eq!(status, 1, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("set another port")), "{lines:?}");
}

#[test]
fn a_check_says_what_its_user_may_not_do() {
    // A test run by root drops to another user; any other is refused by modes of its own files.
    const OTHER: u32 = 65534;
    let plugin = Plugin::new("ram");
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // The programs that are tested may be in a directory that is closed to others.
    let program = plugin.path("program");
    fs::copy(support::plugin::program("ram"), &program).unwrap();
    mode(plugin.directory.path(), 0o555);
    let check = |config: &Path| {
        let mut command = Command::new(&program);
        if geteuid().is_root() {
            command.uid(OTHER).gid(OTHER);
        }
        let output = command.arg("--check").arg(config).current_dir("/").output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let other = tempfile::tempdir().unwrap();
    mode(other.path(), 0o777);
    let config = other.path().join("conf");
    let write = |directory: &Path| {
        let path = directory.display();
        let lines = format!(
            "CVMFS_CACHE_PLUGIN_LOCATOR=unix={path}/socket\nCVMFS_CACHE_PLUGIN_DEBUGLOG={path}/log\n"
        );
        fs::write(&config, lines).unwrap();
    };
    write(plugin.directory.path());
    let (status, said) = check(&config);
    assert_eq!(status, 1, "{said}");
    for expected in ["error: cannot lock ", "DEBUGLOG=", "Permission denied"] {
        assert!(said.contains(expected), "{said} lacks {expected}");
    }
    write(other.path());
    assert_eq!(check(&config), (0, "ok\n".to_owned()));
    mode(&config, 0o000);
    let (status, said) = check(&config);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("Permission denied"), "{said}");
    mode(plugin.directory.path(), 0o755);
}

#[test]
fn an_unknown_key_is_a_warning_with_the_nearest_known_one() {
    let mut plugin = Plugin::new("ram");
    let log = plugin.path("log");
    let lines = format!(
        "CVMFS_CACHE_ram_SZIE=100\nCVMFS_CACHE_ram_TYPE=external\nCVMFS_CACHE_PLUGIN_FOO=1\n\
         CVMFS_CACHE_PLUGIN_DEBUGLOG={}\n",
        log.display()
    );
    plugin.start(&lines);
    plugin.client().info().unwrap();
    plugin.signal(Signal::SIGTERM);
    assert_eq!(plugin.wait(), 0);
    let log = fs::read_to_string(log).unwrap();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("there is no key")).collect();
    assert_eq!(warnings.len(), 2, "{log}");
    assert!(warnings[0].contains("WARN") && warnings[0].contains("_PLUGIN_FOO: remove"), "{log}");
    assert!(warnings[1].contains("ram_SZIE: is CVMFS_CACHE_PLUGIN_SIZE meant?"), "{log}");
}
