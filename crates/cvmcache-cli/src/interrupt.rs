//! Signals that end the program, and what is not to be left behind then.
//!
//! A plugin is to end with the command that has started it, also if only the command gets the
//! signal, as from `timeout` or a cancelled job.

use std::{fs, io, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// From now on, such a signal has this done, and then ends the program.
pub(crate) fn before_the_end(clean_up: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let ignored = ignored();
    let wanted = [SIGHUP, SIGINT, SIGTERM].into_iter();
    let mut signals = Signals::new(wanted.filter(|signal| ignored >> (signal - 1) & 1 == 0))?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            clean_up();
            // For these three, it does not return.
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}

/// The signals that whoever started the program wants to be ignored, as `nohup` does: a bit each.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
