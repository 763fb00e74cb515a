//! Clean-up on signals that terminate the program.
//!
//! A plugin has to end with the command that has started it, also if only the command gets the
//! signal, as from `timeout` or a cancelled job.

use std::io;

use cvmcache::threads;
use procfs::process::Process;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Runs `clean_up` on SIGHUP, SIGINT or SIGTERM before the signal ends the program. Signals that are
/// ignored stay ignored.
pub(crate) fn on_termination(clean_up: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let ignored = ignored();
    let signals = [SIGHUP, SIGINT, SIGTERM].into_iter();
    let mut signals = Signals::new(signals.filter(|signal| ignored >> (signal - 1) & 1 == 0))?;
    threads::spawn("signals", move || {
        if let Some(signal) = signals.forever().next() {
            clean_up();
            // For these three, it does not return.
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// The signals that are ignored, as under `nohup`: a bit each.
fn ignored() -> u64 {
    Process::myself().and_then(|process| process.status()).map_or(0, |status| status.sigign)
}
