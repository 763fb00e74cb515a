//! Signals: termination and status reports.
//!
//! They are read by a thread from a pipe that signal-hook's handlers write to, so nothing here has to be
//! async-signal-safe. The thread shares nothing with the I/O thread but the handle, which sends a command
//! and wakes the event loop: it never waits for a callback, and so the second SIGTERM is always seen.
//! Signals of a crash are the watchdog's.

use std::io;
use std::process;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use tracing::debug;

use crate::{ServerHandle, threads};

/// Takes care of signals from now on, on a thread of its own.
pub(super) fn watch(control: ServerHandle, on_terminal: bool) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
    threads::spawn("signals", move || {
        let mut ending = false;
        for signal in signals.forever() {
            match signal {
                // The first did not help: a callback may be stuck on the I/O thread. Destructors do not
                // run; functions registered by atexit do, and report a normal exit to the watchdog.
                SIGTERM | SIGINT if ending => process::exit(1),
                SIGTERM | SIGINT => {
                    ending = true;
                    control.terminate();
                }
                SIGUSR1 => control.report(),
                SIGHUP if on_terminal => control.terminate(),
                _ => debug!(signal, "signal received"),
            }
        }
    })?;
    Ok(())
}
