//! Plugins as processes: their start, their output, and their end.

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use bytes::Bytes;
use cvmcache::Locator;
use cvmcache::client::{Client, NewUpload};
use cvmcache::plugin::*;
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use support::id;
use support::plugin::{Plugin, Supervised, eventually};

#[test]
fn without_arguments_a_plugin_serves_and_prints_its_locator() {
    for name in ["null", "ram"] {
        let mut plugin = Plugin::new(name);
        let runtime = plugin.path("runtime");
        fs::create_dir(&runtime).unwrap();
        let mut command = plugin.command(&[]);
        command.env("XDG_RUNTIME_DIR", &runtime);
        let stdout = plugin.spawn(&mut command).stdout.take().unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(stdout).lines();
        while !said.contains("can connect") {
            said += &(lines.next().unwrap().unwrap() + "\n");
        }
        let socket = runtime.join("cvmcache").join(format!("{name}.socket"));
        for line in [
            format!("CVMFS_CACHE_PRIMARY={name}"),
            format!("CVMFS_CACHE_{name}_TYPE=external"),
            format!("CVMFS_CACHE_{name}_LOCATOR=unix={}", socket.display()),
        ] {
            assert!(said.contains(&line), "{said}");
        }
        let mut client = Client::connect(&Locator::Unix(socket.clone()), "repo:1").unwrap();
        client.store(NewUpload::new(id(1)), "abc").unwrap();
        assert_eq!(client.plugin_name(), format!("cvmcache {name}").as_bytes());
        plugin.signal(Signal::SIGTERM);
        assert_eq!(plugin.wait(), 0);
        assert!(!socket.exists());
    }
}

#[test]
fn sigterm_and_sigint_end_a_plugin_and_other_signals_do_not() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut plugin = Plugin::new("null");
        plugin.start("");
        let mut client = plugin.client();
        for harmless in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGPIPE] {
            plugin.signal(harmless);
            client.info().unwrap();
        }
        plugin.signal(signal);
        assert_eq!(plugin.wait(), 0);
        assert!(!plugin.path("socket").exists());
    }
}

#[test]
fn a_plugin_starts_at_the_locator_of_one_that_was_killed() {
    let mut plugin = Plugin::new("null");
    plugin.start("");
    plugin.signal(Signal::SIGKILL);
    plugin.child.take().unwrap().wait().unwrap();
    assert!(plugin.path("socket").exists());
    plugin.start("");
    plugin.client().info().unwrap();
}

#[test]
fn in_test_mode_a_plugin_prints_its_process_id_and_goes_to_the_background() {
    let plugin = Plugin::new("ram");
    let config = plugin.configure("CVMFS_CACHE_PLUGIN_TEST=yes\n");
    let output = plugin.command(&[config.as_ref()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let pid: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let mut client = plugin.client();
    assert_eq!(client.plugin_pid(), Some(pid as u64));
    client.info().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    eventually("the socket is removed", || !plugin.path("socket").exists());
}

#[test]
fn in_test_mode_an_error_is_printed_before_going_to_the_background() {
    let plugin = Plugin::new("ram");
    let config = plugin.configure("CVMFS_CACHE_PLUGIN_TEST=yes\nCVMFS_CACHE_PLUGIN_SIZE=much\n");
    let output = plugin.command(&[config.as_ref()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("CVMFS_CACHE_PLUGIN_SIZE=\"much\""));
}

#[test]
fn a_supervised_plugin_reports_to_its_supervisor_and_ends_with_the_last_connection() {
    for name in ["null", "ram"] {
        let plugin = Plugin::new(name);
        let config = plugin.configure("");
        let mut supervised = Supervised::start(plugin, &config);
        assert_eq!(supervised.answer(), Some(b'C'));
        let plugin = &mut supervised.plugin;
        let (first, mut second) = (plugin.client(), plugin.client());
        second.store(NewUpload::new(id(1)), "abc").unwrap();
        first.quit().unwrap();
        // A client that reloads is away for a while, and there is no other client.
        let reload = second.announce_reload().unwrap();
        let mut second = Client::finish_reload(reload).unwrap();
        assert_eq!(second.read(&id(1), 0, 3).unwrap(), "abc");
        second.close(&id(1)).unwrap();
        second.quit().unwrap();
        assert_eq!(plugin.wait(), 0);
        assert!(!plugin.path("socket").exists());
    }
}

#[test]
fn a_second_supervised_plugin_reports_success_and_leaves_the_socket_to_the_first() {
    let mut first = Plugin::new("null");
    first.start("");
    let mut second = Plugin::new("null");
    let config = first.configure("");
    std::mem::swap(&mut first.directory, &mut second.directory);
    let mut supervised = Supervised::start(second, &config);
    assert_eq!(supervised.answer(), Some(b'C'));
    assert_eq!(supervised.plugin.wait(), 0);
    supervised.plugin.client().info().unwrap();
}

#[test]
fn a_supervised_plugin_that_cannot_start_reports_failure() {
    for (lines, extra) in [
        ("CVMFS_CACHE_PLUGIN_LOCATOR=unix=/nowhere/at/all/socket\n", "unusable locator"),
        ("CVMFS_CACHE_PLUGIN_LOCATOR=nonsense\n", "no locator"),
        ("CVMFS_CACHE_PLUGIN_SIZE=much\n", "no size"),
    ] {
        let plugin = Plugin::new("ram");
        let config = plugin.configure(lines);
        let mut supervised = Supervised::start(plugin, &config);
        assert_eq!(supervised.answer(), Some(b'F'), "{extra}");
        assert_eq!(supervised.plugin.wait(), 1, "{extra}");
    }
    let plugin = Plugin::new("ram");
    let config = plugin.path("no such file");
    let mut supervised = Supervised::start(plugin, &config);
    assert_eq!(supervised.answer(), Some(b'F'));
}

#[test]
fn a_plugin_with_invalid_arguments_prints_the_remedy() {
    let plugin = Plugin::new("ram");
    let complaint = |arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        let Output { status, stderr, stdout } = plugin.command(&arguments).output().unwrap();
        assert_eq!(stdout, b"");
        (status.code().unwrap(), String::from_utf8(stderr).unwrap())
    };
    let config = plugin.path("conf");
    let with = |text: &str| {
        fs::write(&config, text).unwrap();
        complaint(&[config.to_str().unwrap()])
    };
    let locator = format!("CVMFS_CACHE_PLUGIN_LOCATOR={}\n", plugin.locator());
    for ((status, said), expected_status, expected) in [
        (complaint(&["--size", "7"]), 2, "unknown option \"--size\""),
        (complaint(&["a", "b"]), 2, "unexpected argument \"b\""),
        (complaint(&["/nowhere/conf"]), 1, "\"/nowhere/conf\": No such file"),
        (with(""), 1, "CVMFS_CACHE_PLUGIN_LOCATOR is missing in "),
        (with("CVMFS_CACHE_PLUGIN_LOCATOR=socket\n"), 1, "use unix=/path/to/socket or tcp="),
        (with(&(locator.clone() + "CVMFS_CACHE_PLUGIN_SIZE=0%\n")), 1, "SIZE=\"0%\" in "),
        (with(&(locator.clone() + "CVMFS_CACHE_PLUGIN_WORKERS=some\n")), 1, "WORKERS=\"some\" in "),
        (with(&(locator.clone() + "CVMFS_CACHE_PLUGIN_POLL=1001\n")), 1, "POLL=\"1001\" in "),
        (with(&(locator.clone() + "CVMFS_CACHE_PLUGIN_DEBUGLOG=/\n")), 1, "DEBUGLOG=\"/\" in "),
        (with(&(locator + "CVMFS_CACHE_PLUGIN_ALLOW=home\n")), 1, "\"home\" is not a network"),
    ] {
        assert_eq!(status, expected_status, "{said}");
        assert!(said.starts_with("cvmcache ram: "), "{said}");
        assert!(said.contains(expected), "{said} lacks {expected}");
    }
}

#[test]
fn help_lists_the_keys_of_the_plugin() {
    let help = Plugin::new("ram").command(&["--help".as_ref()]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("\n  CVMFS_CACHE_PLUGIN_SIZE=MB|N%  how much memory"), "{help}");
    for key in cvmcache::config_keys::KEYS {
        assert!(help.contains(&format!("\n  {key}\n")), "{help}");
    }
}

#[test]
fn help_and_version_are_printed() {
    let plugin = Plugin::new("null");
    let help = plugin.command(&["--help".as_ref()]).output().unwrap();
    assert!(help.status.success());
    assert!(String::from_utf8(help.stdout).unwrap().contains("Usage:"));
    let version = plugin.command(&["-V".as_ref()]).output().unwrap();
    let expected = format!("cvmcache null {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
}

#[test]
fn names_that_are_not_utf8_are_carried_as_they_are() {
    let mut plugin = Plugin::new("ram");
    let socket = plugin.directory.path().join(OsStr::from_bytes(b"caf\xe9"));
    let mut config = b"CVMFS_CACHE_PLUGIN_LOCATOR=unix=".to_vec();
    config.extend_from_slice(socket.as_os_str().as_bytes());
    fs::write(plugin.path("conf"), config).unwrap();
    let config = plugin.path("conf");
    let mut command = plugin.command(&[config.as_ref()]);
    let stdout = plugin.spawn(&mut command).stdout.take().unwrap();
    BufReader::new(stdout).read_until(b'\n', &mut Vec::new()).unwrap();

    let mut client = Client::connect(&Locator::Unix(socket), &b"caf\xe9.cern.ch:1"[..]).unwrap();
    let path = Bytes::from_static(b"/caf\xe9/\xff");
    client.store(NewUpload::new(id(1)).description(path.clone()), "abc").unwrap();
    let entry = ListEntry::new(id(1), true, Some(path));
    assert_eq!(client.list(ObjectType::Regular).unwrap(), [entry]);
    let breadcrumb = Breadcrumb { catalog: id(1), timestamp: 1, revision: None };
    let repository = &b"caf\xe9.cern.ch"[..];
    client.store_breadcrumb(repository, breadcrumb).unwrap();
    assert_eq!(client.load_breadcrumb(repository).unwrap(), breadcrumb);
}

#[test]
fn sigusr2_drops_the_breadcrumbs_of_the_ram_cache() {
    let mut plugin = Plugin::new("ram");
    plugin.start("");
    let mut client = plugin.client();
    let breadcrumb = Breadcrumb { catalog: id(1), timestamp: 1, revision: Some(2) };
    client.store_breadcrumb("repo", breadcrumb).unwrap();
    assert_eq!(client.load_breadcrumb("repo").unwrap(), breadcrumb);
    plugin.signal(Signal::SIGUSR2);
    eventually("it is forgotten", || match client.load_breadcrumb("repo") {
        Ok(_) => false,
        Err(error) => error.status() == Some(Status::NoEntry),
    });
}

#[test]
fn the_debug_log_has_the_debug_lines_of_a_session() {
    let mut plugin = Plugin::new("null");
    let log = plugin.path("log");
    plugin.start(&format!("CVMFS_CACHE_PLUGIN_DEBUGLOG={}\n", log.display()));
    plugin.client().quit().unwrap();
    plugin.signal(Signal::SIGTERM);
    assert_eq!(plugin.wait(), 0);
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("session opened") && log.contains("connection closed"), "{log}");
}

#[test]
fn on_a_terminal_r_asks_clients_to_detach_and_end_of_file_ends_the_plugin() {
    let mut plugin = Plugin::new("null");
    let config = plugin.configure("");
    let terminal = openpty(None, None).unwrap();
    let mut command = plugin.command(&[config.as_ref()]);
    command.stdin(terminal.slave);
    let stdout = plugin.spawn(&mut command).stdout.take().unwrap();
    drop(command);
    let mut lines = BufReader::new(stdout).lines().map(Result::unwrap);
    lines.find(|line| line.contains("Ctrl+D quits")).unwrap();
    let mut client = plugin.client();
    let mut keyboard = File::from(terminal.master);
    keyboard.write_all(b"\xe9 is no command\nR\n").unwrap();
    client.wait_for_detach().unwrap();
    lines.find(|line| line.contains("asking clients")).unwrap();
    // End of file, as Ctrl+D on an empty line.
    keyboard.write_all(&[4]).unwrap();
    assert_eq!(plugin.wait(), 0);
    lines.find(|line| line.contains("good bye")).unwrap();
}

#[test]
fn a_fifo_in_place_of_a_file_delays_no_start() {
    for key in ["DEBUGLOG", "CRASH_DUMP", "LOCATOR"] {
        let plugin = Plugin::new("null");
        let fifo = plugin.path("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let value = match key {
            "LOCATOR" => format!("unix={}", fifo.display()),
            _ => fifo.display().to_string(),
        };
        let config = plugin.configure(&format!("CVMFS_CACHE_PLUGIN_{key}={value}\n"));
        let mut supervised = Supervised::start(plugin, &config);
        // A plugin starts without a crash dump.
        let expected = if key == "CRASH_DUMP" { b'C' } else { b'F' };
        assert_eq!(supervised.answer(), Some(expected), "{key}");
    }
    let plugin = Plugin::new("null");
    let config = plugin.path("fifo");
    mkfifo(&config, Mode::S_IRWXU).unwrap();
    let output = plugin.command(&[config.as_ref()]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("it is a FIFO, not a regular file; name a regular file"), "{said}");
    let mut supervised = Supervised::start(plugin, &config);
    assert_eq!(supervised.answer(), Some(b'F'));
}

#[test]
fn the_start_line_names_the_users_whose_clients_are_let_in() {
    for (users, expected, mode) in [("", "root", 0o600), ("*", "all users", 0o666)] {
        let mut plugin = Plugin::new("null");
        let lines = match users {
            "" => String::new(),
            users => format!("CVMFS_CACHE_PLUGIN_ALLOW_USERS={users}\n"),
        };
        let config = plugin.configure(&lines);
        let mut command = plugin.command(&[config.as_ref()]);
        let stdout = BufReader::new(plugin.spawn(&mut command).stdout.take().unwrap());
        let line = stdout.lines().map(Result::unwrap).find(|line| line.contains("can connect"));
        assert!(line.as_ref().is_some_and(|line| line.contains(expected)), "{line:?}");
        assert_eq!(fs::metadata(plugin.path("socket")).unwrap().permissions().mode() & 0o777, mode);
    }
}
