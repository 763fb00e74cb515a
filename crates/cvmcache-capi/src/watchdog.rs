//! The watchdog of the SDK, for C: one for the process, from its spawning to its termination.

use parking_lot::{Mutex, MutexGuard};
use std::ffi::OsStr;

use cvmcache::watchdog::Watchdog;

use crate::ffi::report_error;
use crate::process::program;

static WATCHDOG: Mutex<Option<Watchdog>> = Mutex::new(None);

/// Starts it, if there is none.
pub(crate) fn spawn(crash_dump: Option<&OsStr>) {
    let mut watchdog = watchdog();
    if watchdog.is_some() {
        return;
    }
    let builder = Watchdog::builder(program());
    let builder = match crash_dump {
        Some(file) => builder.crash_dump(file),
        None => builder,
    };
    match builder.start() {
        Ok(started) => *watchdog = Some(started),
        // A plugin without a watchdog is better than none.
        Err(error) => report_error(format_args!("{error}: a crash will not be reported")),
    }
}

/// Ends it, if there is one.
pub(crate) fn terminate() {
    let watchdog = watchdog().take();
    drop(watchdog);
}

fn watchdog() -> MutexGuard<'static, Option<Watchdog>> {
    WATCHDOG.lock()
}
