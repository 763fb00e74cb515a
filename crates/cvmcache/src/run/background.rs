//! Forking to the background, for tests that start a plugin and need its process id.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use nix::sys::wait::waitpid;
use nix::unistd::{self, ForkResult, Pid};

use super::terminal;
use crate::watchdog::fork;

/// The two processes after the fork.
pub(super) enum Fork {
    /// The one that was started: it ends as soon as the other one is ready, or has failed.
    Parent(ExitCode),
    /// The one that goes on.
    Child(Background),
}

/// The process in the background, which has yet to report that it is ready.
pub(super) struct Background(File);

/// Splits the process in two. To be called before there are threads.
pub(super) fn fork() -> io::Result<Fork> {
    let (receiver, sender) = unistd::pipe()?;
    match fork::fork()? {
        ForkResult::Parent { child } => {
            drop(sender);
            wait_until_ready(child, receiver.into()).map(Fork::Parent)
        }
        ForkResult::Child => {
            unistd::setsid()?;
            Ok(Fork::Child(Background(sender.into())))
        }
    }
}

fn wait_until_ready(child: Pid, mut receiver: File) -> io::Result<ExitCode> {
    if receiver.read(&mut [0])? == 1 {
        return Ok(terminal::print(&format!("{child}\n")));
    }
    // It has printed the reason on standard error.
    waitpid(child, None)?;
    Ok(ExitCode::FAILURE)
}

impl Background {
    /// Lets go of the terminal, and the other process end.
    pub(super) fn ready(mut self) -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        unistd::dup2_stdin(&null)?;
        unistd::dup2_stdout(&null)?;
        unistd::dup2_stderr(&null)?;
        self.0.write_all(&[0])
    }
}
