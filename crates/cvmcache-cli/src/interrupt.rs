//! Clean-up on signals that terminate the program.
//!
//! A plugin has to end with the command that has started it, also if only the command gets the
//! signal, as from `timeout` or a cancelled job.

use std::io;
#[cfg(feature = "tier")]
use std::sync::Arc;
#[cfg(feature = "tier")]
use std::sync::atomic::AtomicBool;

use cvmcache::threads;
use procfs::process::Process;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
#[cfg(feature = "tier")]
use signal_hook::flag;
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

/// True after SIGHUP, SIGINT or SIGTERM; a second one ends the program. Signals that are ignored stay ignored.
#[cfg(feature = "tier")]
pub(crate) fn requested() -> io::Result<Arc<AtomicBool>> {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let ignored = ignored();
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        if ignored >> (signal - 1) & 1 == 0 {
            // In this order: the first signal finds the flag unset.
            flag::register_conditional_default(signal, Arc::clone(&is_interrupted))?;
            flag::register(signal, Arc::clone(&is_interrupted))?;
        }
    }
    Ok(is_interrupted)
}

/// The signals that are ignored, as under `nohup`: a bit each.
fn ignored() -> u64 {
    Process::myself().and_then(|process| process.status()).map_or(0, |status| status.sigign)
}
