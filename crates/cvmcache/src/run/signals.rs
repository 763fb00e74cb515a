//! Signals: termination and status reports.
//!
//! They are read by a thread from a pipe that signal-hook's handlers write to, so nothing here has to be
//! async-signal-safe. The thread shares nothing with the I/O thread but the handle, which sends a command
//! and wakes the event loop: it never waits for a callback, and so the second SIGTERM is always seen.
//! Signals of a crash are the watchdog's. During the start, SIGTERM and SIGINT end the process by their
//! default action, since the plugin may take long to be made; the others wait for the thread.

use std::io;
use std::process;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use tracing::debug;

use crate::{ServerHandle, threads};

/// Holds back the signals that end no plugin, but by default a process, until they are watched.
pub(super) fn hold_back() -> io::Result<Signals> {
    Signals::new([SIGHUP, SIGUSR1, SIGUSR2])
}

/// Takes care of signals from now on, on a thread of its own.
pub(super) fn watch(
    mut signals: Signals,
    control: ServerHandle,
    on_terminal: bool,
) -> io::Result<()> {
    signals.add_signal(SIGTERM)?;
    signals.add_signal(SIGINT)?;
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
