//! What is left of a plugin that crashes, and of its watchdog.

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid, mkfifo};
use support::crashes::{
    Crashing, assert_contains, children, is_there, read_to_end, tell, watchdog_of,
};
use support::plugin::{LIMIT, Plugin, Supervised, eventually, program};
use support::syslog::Syslog;
use support::told_to;

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
    assert_eq!(f.crash(told_to::USE_NULL), Signal::SIGSEGV);
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
    // Main, the watchdog's, two of the log, the signals', I/O, two workers. One that has only just been
    // started has neither its name nor a stack yet.
    assert_eq!(dump.lines().filter(|line| line.starts_with("Thread ")).count(), 8, "{dump}");
    // Whole ones: up to where threads and the program begin.
    assert!(dump.matches("thread_start").count() >= 2, "{dump}");
    assert!(dump.contains("in _start ") && !dump.contains("the rest is not known"), "{dump}");
    // The one that crashed is the first, without the handler.
    let first = dump.split("\n\n").nth(1).unwrap();
    assert!(first.contains("use_null") && !first.contains("handler::handle"), "{first}");
}

#[test]
fn with_gdb_the_stacks_are_its() {
    let crash = || {
        let mut f = Crashing::new();
        let mut command = f.command("CVMFS_CACHE_PLUGIN_WORKERS=1\n");
        command.env("PATH", std::env::var_os("PATH").unwrap());
        f.spawn(&mut command);
        assert_eq!(f.crash(told_to::USE_NULL), Signal::SIGSEGV);
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
    let gdb = f.plugin.path("gdb");
    // It stops the process, and then does nothing.
    let pid = f.plugin.path("gdb.pid");
    let script = format!(
        "#!/bin/sh\nPATH=/usr/bin:/bin\necho $$ >{}\nexec gdb -ex 'shell sleep 1000' \"$@\"\n",
        pid.display()
    );
    fs::write(&gdb, script).unwrap();
    fs::set_permissions(&gdb, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = f.command("");
    command.env("PATH", f.plugin.directory.path());
    f.spawn(&mut command);
    assert_eq!(f.crash(told_to::USE_NULL), Signal::SIGSEGV);
    assert_contains(&f.dump(), &["because gdb did not end within 20 s", "crashing::use_null"]);
    let gdb: i32 = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    eventually("gdb is ended", || !is_there(gdb) && children(gdb).is_empty());
}

#[test]
fn a_stack_overflow_on_a_thread_is_reported() {
    for workers in ["0", "1"] {
        let mut f = Crashing::start(&format!("CVMFS_CACHE_PLUGIN_WORKERS={workers}\n"));
        assert_eq!(f.crash(told_to::OVERFLOW), Signal::SIGSEGV);
        let overflow = ["a stack overflow\n", "in crashing::overflow at ", "#99 ", "and so on\n"];
        assert_contains(&f.dump(), &overflow);
    }
}

#[test]
fn a_thread_of_c_without_an_alternate_stack_ends_the_process_and_leaves_a_line() {
    let mut f = Crashing::start("");
    let (stderr, watchdog) = (f.take_stderr(), f.watchdog());
    assert_eq!(f.crash(told_to::OVERFLOW_IN_C), Signal::SIGSEGV);
    assert_contains(&read_to_end(stderr), &["has ended without a report"]);
    assert_contains(&f.dump(), &["has ended without a report"]);
    eventually("the watchdog ends", || !is_there(watchdog));
}

#[test]
fn an_abort_is_reported() {
    let mut f = Crashing::start("");
    assert_eq!(f.crash(told_to::ABORT), Signal::SIGABRT);
    assert_contains(&f.dump(), &["crashed: SIGABRT\n", "std::process::abort"]);
}

#[test]
fn a_panic_in_a_callback_is_reported_and_the_plugin_goes_on() {
    let mut f = Crashing::start("");
    f.tell(told_to::PANIC);
    let dump = f.dump.clone();
    let is_written = || fs::read_to_string(&dump).is_ok_and(|text| text.contains("==== end"));
    eventually("the panic is in the dump", is_written);
    assert_contains(
        &f.dump(),
        &[
            "panicked: thread io panicked at ",
            "told to panic",
            "stack backtrace:",
            "Crashing as cvmcache::plugin::CachePlugin>::read",
        ],
    );
    tell(&mut f.plugin.client(), told_to::NOTHING);
    assert_eq!(f.crash(Signal::SIGSEGV as u8), Signal::SIGSEGV);
    assert_eq!(f.dump().matches("==== end").count(), 2);
}

#[test]
fn panics_without_end_do_not_fill_the_disk() {
    let mut f = Crashing::start("");
    let mut client = f.plugin.client();
    // Nobody reads standard error, which is soon full. Each panics only when the one before is
    // written, so that none is lost.
    for count in 1..=101 {
        tell(&mut client, told_to::PANIC);
        eventually("it is written", || {
            fs::read_to_string(&f.dump).is_ok_and(|text| text.matches("==== end").count() == count)
        });
    }
    assert_contains(&f.dump(), &["panics on; no more is said of it here"]);
    tell(&mut client, told_to::PANIC);
    f.plugin.signal(Signal::SIGTERM);
    assert_eq!(f.plugin.wait(), 0);
    assert_eq!(f.dump().matches("==== end").count(), 101);
}

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
    f.tell(told_to::NOTHING);
    assert_eq!(f.crash(told_to::USE_NULL), Signal::SIGSEGV);
    assert!(!f.dump.exists());
    let said = read_to_end(stderr);
    assert_contains(&said, &["the watchdog has ended", "will not be reported"]);
}

#[test]
fn a_crash_in_the_handler_ends_the_process_and_leaves_a_line() {
    let mut f = Crashing::start("");
    let (stderr, watchdog) = (f.take_stderr(), f.watchdog());
    assert_eq!(f.crash(told_to::CRASH_IN_HANDLER), Signal::SIGSEGV);
    assert_contains(&read_to_end(stderr), &["has ended without a report"]);
    eventually("the watchdog ends", || !is_there(watchdog));
}

#[test]
fn a_dump_that_cannot_be_written_is_on_standard_error() {
    for (path, reason) in [
        ("/dev/full", "No space left on device"),
        ("/nowhere/dump", "No such file or directory"),
        ("/", "Is a directory"),
    ] {
        let mut f = Crashing { plugin: Plugin::new("crashing"), dump: path.into() };
        let mut command = f.command("");
        f.spawn(&mut command);
        let (stderr, watchdog) = (f.take_stderr(), f.watchdog());
        assert_eq!(f.crash(told_to::USE_NULL), Signal::SIGSEGV);
        let said = read_to_end(stderr);
        assert_contains(
            &said,
            &[
                &format!("cannot write the report to {path}: {reason}"),
                "crashing::use_null",
                "==== end",
            ],
        );
        let warning = format!("CVMFS_CACHE_PLUGIN_CRASH_DUMP={path}: {reason}");
        assert_eq!(said.contains(&warning), path != "/dev/full", "{warning} in {said}");
        eventually("the watchdog ends", || !is_there(watchdog));
    }
}

#[test]
fn started_by_a_client_it_leaves_a_dump() {
    let plugin = Plugin::new("crashing");
    let dump = plugin.path("dump");
    let config = plugin.configure(&format!("CVMFS_CACHE_PLUGIN_CRASH_DUMP={}\n", dump.display()));
    let mut supervised = Supervised::start(plugin, &config);
    assert_eq!(supervised.answer(), Some(b'C'));
    let pid = supervised.plugin.child.as_ref().unwrap().id() as i32;
    let watchdog = watchdog_of(pid);
    tell(&mut supervised.plugin.client(), told_to::USE_NULL);
    assert_eq!(supervised.plugin.wait_for_signal(), Signal::SIGSEGV);
    assert_contains(&fs::read_to_string(&dump).unwrap(), &["crashing::use_null", "==== end"]);
    eventually("the watchdog ends", || !is_there(watchdog));
}

#[test]
fn in_the_background_it_leaves_a_dump() {
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
    tell(&mut client, told_to::USE_NULL);
    eventually("both end", || !is_there(pid) && !is_there(watchdog));
    assert_contains(&fs::read_to_string(&dump).unwrap(), &["crashing::use_null", "==== end"]);
}

#[test]
fn a_normal_end_leaves_no_process_and_no_report() {
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
    f.tell(told_to::EXIT);
    assert_eq!(f.plugin.wait(), 3);
    eventually("the watchdog ends", || !is_there(watchdog));
    assert!(!f.dump.exists());
}

#[test]
fn signals_for_the_plugins_group_do_not_end_its_watchdog() {
    let f = Crashing::start("");
    let watchdog = f.watchdog();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        kill(Pid::from_raw(watchdog), signal).unwrap();
    }
    let mut f = f;
    assert_eq!(f.crash(told_to::USE_NULL), Signal::SIGSEGV);
    assert_contains(&f.dump(), &["crashing::use_null"]);
}

#[test]
fn the_watchdog_holds_nothing_of_the_plugins() {
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
fn socket_and_lock_are_free_while_the_watchdog_still_writes() {
    let mut f = Crashing::new();
    // Whoever writes to it waits for somebody to read.
    mkfifo(&f.dump, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut command = f.command("");
    f.spawn(&mut command);
    let watchdog = f.watchdog();
    assert_eq!(f.crash(told_to::USE_NULL), Signal::SIGSEGV);
    assert!(is_there(watchdog));
    // At the same place.
    let mut command = f.command("CVMFS_CACHE_PLUGIN_CRASH_DUMP=/dev/null\n");
    f.spawn(&mut command);
    f.tell(told_to::NOTHING);
    assert!(is_there(watchdog));
    let mut dump = String::new();
    File::open(&f.dump).unwrap().read_to_string(&mut dump).unwrap();
    assert_contains(&dump, &["crashing::use_null", "==== end"]);
    eventually("the watchdog ends", || !is_there(watchdog));
}

#[test]
fn syslog_has_the_report() {
    let mut f = Crashing::new();
    let syslog = Syslog::new(f.plugin.directory.path());
    let plain = f.command("");
    let mut without_debugger = Command::new("env");
    without_debugger.arg("PATH=/nowhere").arg(plain.get_program()).args(plain.get_args());
    let mut command = syslog.seen_by(&without_debugger);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    f.spawn(&mut command);
    let pid = f.pid();
    assert_eq!(f.crash(told_to::USE_NULL), Signal::SIGSEGV);
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
fn the_dump_is_for_its_user_only() {
    let mut f = Crashing::start("");
    f.crash(told_to::USE_NULL);
    let mode = fs::metadata(&f.dump).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
