//! The reports of crashes and panics.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::UNIX_EPOCH;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use support::crash_command;
use support::crashes::{Crashing, assert_contains, children, is_there, read_to_end, send_command};
use support::plugin::{eventually, program};

const SIGNALS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    Signal::SIGQUIT,
    Signal::SIGXFSZ,
];

#[test]
fn every_signal_on_a_thread_is_reported_and_ends_the_process() {
    for signal in SIGNALS {
        for workers in ["0", "2"] {
            let lines = format!("CVMFS_CACHE_PLUGIN_WORKERS={workers}\n");
            let mut f = Crashing::start(&lines);
            let (pid, watchdog) = (f.pid(), f.watchdog());
            assert_eq!(f.crash(signal as u8), signal);
            let thread = if workers == "0" { "(io)" } else { "(worker-" };
            let process = format!("process {pid} crashed: {signal}\n");
            let sent = format!("signal:     {signal}, sent by this process (user {})", geteuid());
            let version = format!("version:    cvmcache {}\n", env!("CARGO_PKG_VERSION"));
            let executable = format!("executable: {}\n", program("crashing").display());
            let fields =
                [&process, &sent, &version, &executable, thread, "time: ", "errno: ", "at: "];
            assert_contains(&f.dump(), &fields);
            assert_contains(
                &f.dump(),
                &["raise", "Crashing as cvmcache::plugin::CachePlugin>::read"],
            );
            assert_eq!(f.dump().matches("==== end").count(), 1);
            eventually("the watchdog ends", || !is_there(watchdog));
        }
    }
}

#[test]
fn every_signal_on_the_main_thread_is_reported_and_ends_the_process() {
    for signal in SIGNALS {
        let mut f = Crashing::new();
        let mut command = f.command(&format!("CRASHING_SIGNAL={}\n", signal as i32));
        f.plugin.spawn(&mut command);
        let pid = f.pid();
        assert_eq!(f.plugin.wait_for_signal(), signal);
        let thread = format!("thread:     {pid} (crashing)");
        assert_contains(&f.dump(), &[&thread, "sent by this process", "crashing::make"]);
    }
}

#[test]
fn sigquit_from_outside_is_reported_with_its_sender() {
    let mut f = Crashing::start("");
    f.plugin.signal(Signal::SIGQUIT);
    assert_eq!(f.plugin.wait_for_signal(), Signal::SIGQUIT);
    let sender = format!("SIGQUIT, sent by process {} ", std::process::id());
    assert_contains(&f.dump(), &[&sender, "crashing::main"]);
}

#[test]
fn without_gdb_all_threads_have_stacks_with_names_and_lines() {
    let mut f = Crashing::start("CVMFS_CACHE_PLUGIN_WORKERS=2\n");
    assert_eq!(f.crash(crash_command::USE_NULL), Signal::SIGSEGV);
    let dump = f.dump();
    assert_contains(
        &dump,
        &[
            "crashed: SIGSEGV at address 0x0\n",
            "address:    0x0000000000000000\n",
            "code 1: nothing is mapped there",
            "stacks:     by the watchdog, because gdb is not installed",
            "in crashing::use_null at ",
            "support/crashing.rs:",
            "in cvmcache::server::event_loop::EventLoop",
            "in crashing::main at ",
            "(io):",
            "(worker-",
        ],
    );
    // Main, the watchdog's, two of the log, the signals', the socket's, I/O, two workers, and two of the
    // administration socket. One that has only just been started has neither its name nor a stack yet.
    assert_eq!(dump.lines().filter(|line| line.starts_with("Thread ")).count(), 11, "{dump}");
    // Whole ones: up to where threads and the program begin.
    assert!(dump.matches("thread_start").count() >= 2, "{dump}");
    assert!(dump.contains("in _start ") && !dump.contains("the rest is not known"), "{dump}");
    // The one that crashed is the first, without the handler.
    let first = dump.split("\n\n").nth(1).unwrap();
    assert!(first.contains("use_null") && !first.contains("handler::handle"), "{first}");
}

#[test]
fn with_gdb_the_stacks_are_those_of_gdb() {
    let crash = || {
        let mut f = Crashing::new();
        let mut command = f.command("CVMFS_CACHE_PLUGIN_WORKERS=1\n");
        command.env("PATH", std::env::var_os("PATH").unwrap());
        f.spawn(&mut command);
        assert_eq!(f.crash(crash_command::USE_NULL), Signal::SIGSEGV);
        f.dump()
    };
    // On a machine that is busy enough, gdb does not have the time it needs, and the watchdog is
    // right to end it.
    let mut dumps = (0..5).map(|_| crash());
    let dump = dumps.find(|dump| !dump.contains("gdb did not end within")).unwrap();
    assert!(!dump.contains("gdb is not installed"), "apt-get install gdb\n{dump}");
    assert_contains(
        &dump,
        &[
            "stacks:     by gdb\n",
            "crashing::use_null",
            "<signal handler called>",
            "\"io\"",
            "\"worker-0\"",
            "crashing::main",
        ],
    );
}

#[test]
fn a_gdb_that_hangs_is_ended_and_replaced() {
    let mut f = Crashing::new();
    let pid = f.plugin.path("gdb.pid");
    // It stops the process, and then does nothing.
    let script = format!("echo $$ >{}\nexec gdb -ex 'shell sleep 1000' \"$@\"\n", pid.display());
    start_with_gdb(&mut f, &script);
    assert_eq!(f.crash(crash_command::USE_NULL), Signal::SIGSEGV);
    assert_contains(&f.dump(), &["because gdb did not end within 20 s", "crashing::use_null"]);
    let gdb: i32 = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    eventually("gdb is ended", || !is_there(gdb) && children(gdb).is_empty());
}

#[test]
fn gdb_runs_with_termination_signals_blocked_and_sigchld_not() {
    let mut f = Crashing::new();
    start_with_gdb(
        &mut f,
        "while read -r key value; do case $key in SigBlk:) echo $value; esac; done </proc/$$/status\n",
    );
    assert_eq!(f.crash(crash_command::USE_NULL), Signal::SIGSEGV);
    let dump = f.dump();
    let blocked = dump.split("gdb failed (").nth(1).and_then(|rest| rest.split(')').next());
    let blocked = u64::from_str_radix(blocked.unwrap(), 16).unwrap();
    let is_blocked = |signal: Signal| blocked & 1 << (signal as u64 - 1) != 0;
    assert!(!is_blocked(Signal::SIGCHLD), "{blocked:x}");
    for signal in [Signal::SIGABRT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        assert!(is_blocked(signal), "{signal}, {blocked:x}");
    }
}

/// Starts it where gdb is this script.
fn start_with_gdb(f: &mut Crashing, script: &str) {
    let gdb = f.plugin.path("gdb");
    fs::write(&gdb, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}")).expect("a file");
    fs::set_permissions(&gdb, fs::Permissions::from_mode(0o755)).expect("a file");
    let mut command = f.command("");
    command.env("PATH", f.plugin.directory.path());
    f.spawn(&mut command);
}

#[test]
fn a_stack_overflow_on_a_thread_is_reported() {
    for workers in ["0", "1"] {
        let mut f = Crashing::start(&format!("CVMFS_CACHE_PLUGIN_WORKERS={workers}\n"));
        assert_eq!(f.crash(crash_command::OVERFLOW), Signal::SIGSEGV);
        let overflow = ["a stack overflow\n", "in crashing::overflow at ", "#99 ", "and so on\n"];
        assert_contains(&f.dump(), &overflow);
    }
}

#[test]
fn a_thread_of_c_without_an_alternate_stack_ends_the_process_and_leaves_a_line() {
    let mut f = Crashing::start("");
    let (stderr, watchdog) = (f.take_stderr(), f.watchdog());
    assert_eq!(f.crash(crash_command::OVERFLOW_IN_C), Signal::SIGSEGV);
    assert_contains(&read_to_end(stderr), &["has ended without a report"]);
    assert_contains(&f.dump(), &["has ended without a report"]);
    eventually("the watchdog ends", || !is_there(watchdog));
}

#[test]
fn an_abort_is_reported() {
    let mut f = Crashing::start("");
    assert_eq!(f.crash(crash_command::ABORT), Signal::SIGABRT);
    assert_contains(&f.dump(), &["crashed: SIGABRT\n", "std::process::abort"]);
}

#[test]
fn a_panic_in_a_callback_is_reported_and_the_plugin_goes_on() {
    let mut f = Crashing::start("");
    f.send_command(crash_command::PANIC);
    let dump = f.dump.clone();
    let is_written = || fs::read_to_string(&dump).is_ok_and(|text| text.contains("==== end"));
    eventually("the panic is in the dump", is_written);
    assert_contains(
        &f.dump(),
        &[
            "panicked: thread io panicked at ",
            "panic on purpose",
            "stack backtrace:",
            "Crashing as cvmcache::plugin::CachePlugin>::read",
        ],
    );
    send_command(&mut f.plugin.client(), crash_command::NOTHING);
    assert_eq!(f.crash(Signal::SIGSEGV as u8), Signal::SIGSEGV);
    assert_eq!(f.dump().matches("==== end").count(), 2);
}

#[test]
fn panics_without_end_do_not_fill_the_disk() {
    let mut f = Crashing::start("");
    let mut client = f.plugin.client();
    // Standard error is not read, and soon full. Each panics only when the one before is
    // written, so that none is lost.
    for count in 1..=101 {
        send_command(&mut client, crash_command::PANIC);
        eventually("it is written", || {
            fs::read_to_string(&f.dump).is_ok_and(|text| text.matches("==== end").count() == count)
        });
    }
    assert_contains(&f.dump(), &["panics on; no more is said of it here"]);
    send_command(&mut client, crash_command::PANIC);
    f.plugin.signal(Signal::SIGTERM);
    assert_eq!(f.plugin.wait(), 0);
    assert_eq!(f.dump().matches("==== end").count(), 101);
}

#[test]
fn a_report_has_the_time_of_what_happened() {
    let mut f = Crashing::start("");
    let second = || UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    let started = second();
    eventually("another second begins", || second() > started);
    let before = second();
    f.plugin.signal(Signal::SIGKILL);
    assert_eq!(f.plugin.wait_for_signal(), Signal::SIGKILL);
    eventually("it is reported", || f.dump.exists() && f.dump().contains("==== end"));
    let dump = f.dump();
    let time = dump.lines().find_map(|line| line.strip_prefix("time:       ")).unwrap();
    let time = humantime::parse_rfc3339(time).unwrap();
    let since = time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((before..=second()).contains(&since), "{dump}");
}
