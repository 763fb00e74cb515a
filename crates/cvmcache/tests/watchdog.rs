//! What a plugin that crashes leaves behind, and its watchdog.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::crash_command;
use support::crashes::{
    Crashing, assert_contains, children, is_there, read_to_end, send_command, watchdog_of,
};
use support::plugin::{Plugin, Supervised, eventually};
use support::syslog::Syslog;

#[test]
fn a_plugin_that_is_killed_leaves_a_line_and_no_watchdog() {
    let mut f = Crashing::start("");
    let (stderr, watchdog) = (f.take_stderr(), f.watchdog());
    f.plugin.signal(Signal::SIGKILL);
    assert_eq!(f.plugin.wait_for_signal(), Signal::SIGKILL);
    assert_contains(&read_to_end(stderr), &["has ended without a report: killed by SIGKILL"]);
    assert_contains(&f.dump(), &["has ended without a report: killed by SIGKILL"]);
    eventually("the watchdog ends", || !is_there(watchdog));
}

#[test]
fn a_plugin_whose_watchdog_is_killed_goes_on_and_ends_by_the_right_signal() {
    let mut f = Crashing::start("");
    let watchdog = f.watchdog();
    let stderr = f.take_stderr();
    kill(Pid::from_raw(watchdog), Signal::SIGKILL).unwrap();
    // Not even as a zombie.
    eventually("the watchdog is gone", || !is_there(watchdog));
    let line = lines_of(stderr).find(|line| line.contains("the watchdog has ended"));
    assert_contains(&line.expect("a line about the watchdog"), &["will not be reported"]);
    f.send_command(crash_command::NOTHING);
    assert_eq!(f.crash(crash_command::USE_NULL), Signal::SIGSEGV);
    assert!(!f.dump.exists());
}

#[test]
fn a_crash_in_the_signal_handler_ends_the_process_and_leaves_a_line() {
    let mut f = Crashing::start("");
    let (stderr, watchdog) = (f.take_stderr(), f.watchdog());
    assert_eq!(f.crash(crash_command::CRASH_IN_HANDLER), Signal::SIGSEGV);
    assert_contains(&read_to_end(stderr), &["has ended without a report"]);
    eventually("the watchdog ends", || !is_there(watchdog));
}

#[test]
fn a_crash_dump_that_cannot_be_written_goes_to_standard_error() {
    for (path, reason) in [
        ("/dev/full", "No space left on device"),
        ("/nowhere/dump", "No such file or directory"),
        ("/", "Is a directory"),
    ] {
        let mut f = Crashing { plugin: Plugin::new("crashing"), dump: path.into() };
        let mut command = f.command("");
        f.spawn(&mut command);
        let watchdog = f.watchdog();
        let mut lines = lines_of(f.take_stderr());
        let mut said = String::new();
        if path != "/dev/full" {
            let warning = format!("CVMFS_CACHE_PLUGIN_CRASH_DUMP={path}: {reason}").to_lowercase();
            said = lines.find(|line| line.to_lowercase().contains(&warning)).expect("a warning");
        }
        assert_eq!(f.crash(crash_command::USE_NULL), Signal::SIGSEGV);
        said.extend(lines.map(|line| line + "\n"));
        assert_contains(
            &said,
            &[
                &format!("cannot write the report to {path}: {reason}"),
                "crashing::use_null",
                "==== end",
            ],
        );
        assert!(path != "/dev/full" || !said.contains("WARN"), "{said}");
        eventually("the watchdog ends", || !is_there(watchdog));
    }
}

#[test]
fn a_supervised_plugin_writes_a_crash_dump() {
    let plugin = Plugin::new("crashing");
    let dump = plugin.path("dump");
    let config = plugin.configure(&format!("CVMFS_CACHE_PLUGIN_CRASH_DUMP={}\n", dump.display()));
    let mut supervised = Supervised::start(plugin, &config);
    assert_eq!(supervised.answer(), Some(b'C'));
    let pid = supervised.plugin.child.as_ref().unwrap().id() as i32;
    let watchdog = watchdog_of(pid);
    send_command(&mut supervised.plugin.client(), crash_command::USE_NULL);
    assert_eq!(supervised.plugin.wait_for_signal(), Signal::SIGSEGV);
    assert_contains(&fs::read_to_string(&dump).unwrap(), &["crashing::use_null", "==== end"]);
    eventually("the watchdog ends", || !is_there(watchdog));
}

#[test]
fn a_plugin_in_the_background_writes_a_crash_dump() {
    let plugin = Plugin::new("crashing");
    let dump = plugin.path("dump");
    let lines =
        format!("CVMFS_CACHE_PLUGIN_CRASH_DUMP={}\nCVMFS_CACHE_PLUGIN_TEST=yes\n", dump.display());
    let config = plugin.configure(&lines);
    let output = plugin.command(&[config.as_ref()]).output().unwrap();
    let pid: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let watchdog = watchdog_of(pid);
    let mut client = plugin.client();
    assert_eq!(client.plugin_pid(), Some(pid as u64));
    send_command(&mut client, crash_command::USE_NULL);
    eventually("both end", || !is_there(pid) && !is_there(watchdog));
    assert_contains(&fs::read_to_string(&dump).unwrap(), &["crashing::use_null", "==== end"]);
}

#[test]
fn a_normal_exit_leaves_no_watchdog_and_no_report() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut f = Crashing::start("");
        let watchdog = f.watchdog();
        f.plugin.signal(signal);
        assert_eq!(f.plugin.wait(), 0);
        assert!(!is_there(watchdog));
        assert!(!f.dump.exists());
    }
    let mut f = Crashing::start("");
    let watchdog = f.watchdog();
    f.send_command(crash_command::EXIT);
    assert_eq!(f.plugin.wait(), 3);
    eventually("the watchdog ends", || !is_there(watchdog));
    assert!(!f.dump.exists());
}

#[test]
fn a_plugin_that_is_terminated_while_it_starts_leaves_no_watchdog_and_no_report() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        // While the plugin is made.
        let mut f = Crashing::new();
        let mut command = f.command(&format!("CRASHING_SIGNAL={}\n", signal as i32));
        f.plugin.spawn(&mut command);
        let stderr = f.take_stderr();
        assert_eq!(f.plugin.wait_for_signal(), signal);
        assert_eq!(read_to_end(stderr), "");
        assert!(!f.dump.exists());
        // As soon as there is a watchdog, before it is ready, and a little later.
        for delay in 0..20 {
            let mut f = Crashing::new();
            let mut command = f.command("");
            f.plugin.spawn(&mut command);
            let (stderr, pid) = (f.take_stderr(), f.pid());
            eventually("there is a watchdog", || !children(pid).is_empty());
            for _ in 0..delay {
                children(pid);
            }
            f.plugin.signal(signal);
            let status = f.plugin.child.take().unwrap().wait().unwrap();
            assert!(status.success() || status.signal() == Some(signal as i32), "{status}");
            let said = read_to_end(stderr);
            assert!(!said.contains("without a report"), "{said}");
            assert!(!f.dump.exists());
        }
    }
}

#[test]
fn signals_that_do_not_end_a_plugin_do_not_end_its_start() {
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        let mut f = Crashing::new();
        let mut command = f.command(&format!("CRASHING_SIGNAL={}\n", signal as i32));
        f.spawn(&mut command);
        f.send_command(crash_command::NOTHING);
    }
}

#[test]
fn signals_for_the_plugins_group_do_not_end_its_watchdog() {
    let f = Crashing::start("");
    let watchdog = f.watchdog();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        kill(Pid::from_raw(watchdog), signal).unwrap();
    }
    let mut f = f;
    assert_eq!(f.crash(crash_command::USE_NULL), Signal::SIGSEGV);
    assert_contains(&f.dump(), &["crashing::use_null"]);
}

#[test]
fn the_watchdog_holds_no_descriptor_of_the_plugin() {
    let f = Crashing::start("");
    let descriptors = fs::read_dir(format!("/proc/{}/fd", f.watchdog())).unwrap();
    let mut names: Vec<_> = descriptors
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .map(|name| name.split(':').next().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["/dev/null", "/dev/null", "pipe", "socket"]);
    let cwd = fs::read_link(format!("/proc/{}/cwd", f.watchdog())).unwrap();
    assert_eq!(cwd, Path::new("/"));
}

#[test]
fn socket_and_lock_file_are_free_while_the_watchdog_is_there() {
    let mut f = Crashing::start("");
    let watchdog = f.watchdog();
    kill(Pid::from_raw(watchdog), Signal::SIGSTOP).unwrap();
    f.plugin.signal(Signal::SIGKILL);
    assert_eq!(f.plugin.wait_for_signal(), Signal::SIGKILL);
    // At the same place.
    let mut command = f.command("CVMFS_CACHE_PLUGIN_CRASH_DUMP=/dev/null\n");
    f.spawn(&mut command);
    f.send_command(crash_command::NOTHING);
    assert!(is_there(watchdog));
    kill(Pid::from_raw(watchdog), Signal::SIGCONT).unwrap();
    eventually("the watchdog ends", || !is_there(watchdog));
    assert_contains(&f.dump(), &["has ended without a report: killed by SIGKILL"]);
}

#[test]
fn the_crash_report_is_in_syslog() {
    let mut f = Crashing::new();
    let syslog = Syslog::new(f.plugin.directory.path());
    let plain = f.command("");
    let mut without_debugger = Command::new("env");
    without_debugger.arg("PATH=/nowhere").arg(plain.get_program()).args(plain.get_args());
    let mut command = syslog.seen_by(&without_debugger);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    f.spawn(&mut command);
    let pid = f.pid();
    assert_eq!(f.crash(crash_command::USE_NULL), Signal::SIGSEGV);
    let said = syslog.read_until("==== end");
    // 3 is the facility for daemons, and 3 the severity of errors.
    assert!(said.iter().all(|line| line.starts_with("<27>")), "{said:?}");
    assert!(
        said.iter().all(|line| line.contains(&format!(" cvmcache-crashing[{pid}]: "))),
        "{said:?}"
    );
    assert_contains(&said.concat(), &["crashed: SIGSEGV at address 0x0", "crashing::use_null"]);
}

#[test]
fn the_crash_dump_is_readable_by_its_user_only() {
    let mut f = Crashing::start("");
    f.crash(crash_command::USE_NULL);
    let mode = fs::metadata(&f.dump).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// What is on standard error, line by line as it is written. A crash takes lines with it that still
/// wait to be written: a test that needs one takes it from here before the crash.
fn lines_of(stderr: Option<ChildStderr>) -> impl Iterator<Item = String> {
    BufReader::new(stderr.expect("piped")).lines().map_while(Result::ok)
}
