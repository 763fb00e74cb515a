//! Signals: termination and status reports.
//!
//! They are read by a thread from a pipe that signal-hook's handlers write to, so nothing here has to be
//! async-signal-safe. The thread shares nothing with the I/O thread but the handle, which sends a command
//! and wakes the event loop: it never waits for a callback, and so the second SIGTERM is always seen.
//! Signals of a crash are the watchdog's. During the start, SIGTERM and SIGINT end the process by their
//! default action, since the plugin may take long to be made; the others wait for the thread.

use std::ffi::c_int;
use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::low_level;
use tracing::debug;

use crate::{ServerHandle, threads};

/// Signals of a program that is starting.
pub(super) struct Held {
    signals: Signals,
    is_starting: Arc<AtomicBool>,
}

/// Takes over all signals: those that request the end still end the process, and the others are held back.
///
/// Call it while there is no other thread. signal-hook loses what arrives while it takes over a signal, so this is
/// done once, here, with these signals blocked: they would be lost if it was done when the server is ready.
pub(super) fn hold_back() -> io::Result<Held> {
    let requests = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    let before = requests.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let held = take_over();
    before.thread_set_mask()?;
    held
}

fn take_over() -> io::Result<Held> {
    let is_starting = Arc::new(AtomicBool::new(true));
    for signal in [SIGTERM, SIGINT] {
        let is_starting = Arc::clone(&is_starting);
        let end = move || {
            if is_starting.load(Ordering::SeqCst) {
                cvmcache_watchdog::end_by_request(signal);
            }
        };
        #[expect(unsafe_code, reason = "the action has to be one of the handler, not of a thread")]
        // SAFETY: it reads an atomic, and calls what is async-signal-safe.
        unsafe { low_level::register(signal, end) }?;
    }
    let signals: [c_int; 5] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2];
    Ok(Held { signals: Signals::new(signals)?, is_starting })
}

/// Takes care of signals from now on, on a thread of its own.
pub(super) fn watch(held: Held, control: ServerHandle, on_terminal: bool) -> io::Result<()> {
    let Held { mut signals, is_starting } = held;
    is_starting.store(false, Ordering::SeqCst);
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
