//! Commands that end by a signal leave no process and no directory behind.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

/// Sends a signal to a command, and to no other process, while it waits for a plugin that it has
/// started.
#[allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
fn interrupt(command: &str, signal: Signal) {
    let directory = tempfile::tempdir().unwrap();
    let (fifo, tmp) = (directory.path().join("fifo"), directory.path().join("tmp"));
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    fs::create_dir(&tmp).unwrap();
    let plugin = format!("sh -c 'echo $$ > {}; exec sleep 1000' {{conf}}", fifo.display());
    // Signals that the test runner ignores would be ignored here, too.
    let mut running = Command::new("env")
        .args(["--default-signal", env!("CARGO_BIN_EXE_cvmcache"), command, "--spawn", &plugin])
        .env("TMPDIR", &tmp)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = fs::read_to_string(&fifo).unwrap();
    kill(Pid::from_raw(running.id().cast_signed()), signal).unwrap();
    assert_eq!(running.wait().unwrap().signal(), Some(signal as i32));
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the plugin still runs");
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0, "its directory is still there");
}

#[test]
fn a_plugin_started_by_check_ends_on_an_interrupt() {
    interrupt("check", Signal::SIGINT);
}

#[test]
fn a_plugin_started_by_bench_ends_on_an_interrupt() {
    interrupt("bench", Signal::SIGTERM);
}

#[test]
fn a_plugin_started_by_soak_ends_on_an_interrupt() {
    interrupt("soak", Signal::SIGHUP);
}
