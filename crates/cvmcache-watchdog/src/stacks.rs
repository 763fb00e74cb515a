//! The stacks of a plugin's threads: by gdb, or unwound here without it.

mod debugger;
#[cfg(all(feature = "unwind", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod modules;
#[cfg(all(feature = "unwind", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod threads;
#[cfg(all(feature = "unwind", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod unwind;

#[cfg(not(all(feature = "unwind", any(target_arch = "x86_64", target_arch = "aarch64"))))]
use self::without_unwind as unwind;
use super::message::Crash;
use nix::unistd::Pid;

/// How many frames of a thread are worth showing: a stack that has overflown has many.
const MAX_FRAMES: usize = 100;

/// The stacks of all threads.
#[derive(Debug)]
pub(super) struct Stacks {
    /// Where the stacks come from, or why there are none.
    pub(super) source: String,
    pub(super) text: String,
}

/// Takes as long as gdb may, and a few seconds. A gdb that was killed may leave the process stopped.
pub(super) fn collect(process: Pid, crash: &Crash) -> Stacks {
    let why_not = match debugger::stacks(process) {
        Ok(text) => return Stacks { source: "by gdb".to_owned(), text },
        Err(why_not) => why_not,
    };
    match unwind::stacks(process, crash) {
        Ok(text) => Stacks { source: format!("by the watchdog, because {why_not}"), text },
        Err(error) => {
            Stacks { source: format!("none, because {why_not}, and {error}"), text: String::new() }
        }
    }
}

#[cfg(not(all(feature = "unwind", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod without_unwind {
    use super::{Crash, Pid};

    pub(super) fn stacks(_: Pid, _: &Crash) -> Result<String, &'static str> {
        Err("this plugin was built without a way to find out by itself")
    }
}
