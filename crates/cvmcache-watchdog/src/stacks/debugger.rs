//! Stacks of all threads by gdb, if it is installed.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use thiserror::Error;

use super::MAX_FRAMES;

/// How long gdb may take. It reads all of the debugging information, and nodes may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// The maximum of its output, in bytes.
const MAX_OUTPUT: u64 = 4 * 1024 * 1024;

/// Variables of a service manager for the plugin, and for no other program.
const FOR_THE_PLUGIN: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// There are no stacks from gdb.
#[derive(Debug, Error)]
pub(super) enum NoStacks {
    #[error("gdb is not installed")]
    NotInstalled,
    #[error("gdb cannot be started ({0})")]
    Start(#[source] io::Error),
    #[error("gdb did not end within {} s", PATIENCE.as_secs())]
    TooSlow,
    #[error("gdb failed ({0})")]
    Failed(String),
}

/// Asks gdb for the stacks of all threads.
pub(super) fn stacks(process: Pid) -> Result<String, NoStacks> {
    let said = ask(process)?;
    match said.find("\nThread ") {
        Some(threads) if said.contains("\n#0 ") => Ok(said[threads + 1..].to_owned()),
        _ => Err(NoStacks::Failed(said.lines().last().unwrap_or("it said nothing").to_owned())),
    }
}

fn ask(process: Pid) -> Result<String, NoStacks> {
    let (receiver, sender) = io::pipe().map_err(NoStacks::Start)?;
    let mut command = Command::new("gdb");
    command
        // No commands of a user's or a program's files, and nothing from the network.
        .args(["-nx", "-batch", "-iex", "set auto-load off"])
        .args(["-ex", &format!("set backtrace limit {MAX_FRAMES}")])
        .args(["-ex", "thread apply all backtrace"])
        .args(["-p", &process.to_string()])
        .env_remove("DEBUGINFOD_URLS")
        .stdin(Stdio::null())
        .stdout(sender.try_clone().map_err(NoStacks::Start)?)
        .stderr(sender)
        // It may be a script that starts the real one.
        .process_group(0);
    for variable in FOR_THE_PLUGIN {
        command.env_remove(variable);
    }
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NoStacks::NotInstalled,
        _ => NoStacks::Start(error),
    })?;
    // It has the writing end of the pipe.
    drop(command);
    let (done, said) = mpsc::channel();
    let reader = thread::Builder::new().spawn(move || {
        let mut text = Vec::new();
        let _ = receiver.take(MAX_OUTPUT).read_to_end(&mut text);
        let _ = done.send(text);
    });
    let said = reader.map(|_| said.recv_timeout(PATIENCE));
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    let _ = child.wait();
    let said = said.map_err(NoStacks::Start)?.map_err(|_| NoStacks::TooSlow)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}
