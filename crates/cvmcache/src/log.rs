//! Where the log goes: what matters to standard error, everything to the debug log.
//!
//! Lines are written by threads of their own. If nobody takes them, as from a pipe that is full or a
//! terminal that stands still, lines are lost, and the plugin goes on.

use std::backtrace::Backtrace;
use std::fs::File;
use std::io::{self, Write};
use std::panic;

use tracing::error;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::{Options, OptionsError, watchdog};

const DEBUG_LOG: &str = "CVMFS_CACHE_PLUGIN_DEBUGLOG";

/// How many lines may wait to be written.
const MAX_LINES: usize = 4096;

/// The log of a plugin's process: what matters on standard error, and everything in the file that
/// `CVMFS_CACHE_PLUGIN_DEBUGLOG` names.
///
/// It belongs to the main function; [`run`](crate::run) has started one already. Dropping it waits
/// a moment for the last lines to be written.
#[derive(Debug)]
#[must_use = "lines are written as long as it is there"]
pub struct Log {
    _stderr: WorkerGuard,
    _debug_log: Option<WorkerGuard>,
}

impl Log {
    /// Starts the log and its threads, and has panics logged with their backtraces. A program that
    /// has set up `tracing` for itself keeps what it has.
    ///
    /// # Errors
    ///
    /// [`OptionsError::Value`] if the file cannot be opened.
    pub fn start(options: &Options) -> Result<Self, OptionsError> {
        start(options)
    }
}

fn start(options: &Options) -> Result<Log, OptionsError> {
    let (stderr, stderr_guard) = writer(io::stderr());
    let stderr = layer().with_writer(stderr).with_target(false).with_filter(LevelFilter::INFO);
    let debug_log = match options.get(DEBUG_LOG) {
        None => None,
        Some(path) => {
            let file = File::options().create(true).append(true).open(path).map_err(|error| {
                let hint = "name a file in a directory that the plugin can write to";
                options.bad_value(DEBUG_LOG, format!("{error}; {hint}"))
            })?;
            Some(writer(file))
        }
    };
    let (debug_log, debug_log_guard) = debug_log.unzip();
    let debug_log = debug_log.map(|writer| layer().with_writer(writer));
    // A program that has set up logging for itself keeps it.
    let _ = tracing_subscriber::registry().with(stderr).with(debug_log).try_init();
    panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::force_capture();
        error!(%panic, %backtrace, "panic");
        watchdog::report_panic(panic, &backtrace);
    }));
    Ok(Log { _stderr: stderr_guard, _debug_log: debug_log_guard })
}

fn writer(output: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MAX_LINES).finish(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_in_the_debug_log_with_its_backtrace() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut options = Options::new();
        options.set(DEBUG_LOG, &path);
        let usual = panic::take_hook();
        let log = start(&options).unwrap();
        let panicked = panic::catch_unwind(|| panic!("told to panic"));
        panic::set_hook(usual);
        assert!(panicked.is_err());
        drop(log);
        let log = std::fs::read_to_string(path).unwrap();
        assert!(log.contains("told to panic"), "{log}");
        assert!(log.contains("a_panic_is_in_the_debug_log_with_its_backtrace"), "{log}");
    }
}
