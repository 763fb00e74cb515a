//! Log targets: important lines go to standard error or syslog, all lines to the debug log.
//!
//! Lines are written by threads of their own, one for each output, behind a bounded queue. If an output
//! takes none, such as a full pipe or a stopped terminal, lines are lost and counted, and the plugin
//! goes on: a thread that logs waits for neither the queue nor the output.

mod debug_log;
mod failures;
mod limiter;
mod lines;
mod prefix;
mod syslog;

use std::backtrace::Backtrace;
use std::io::{self, Write};
use std::panic;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use metrics::{Counter, counter};
use tracing::{error, warn};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config_keys::DEBUG_LOG;
use crate::{Options, OptionsError, watchdog};

use debug_log::DebugLog;
use failures::{Counted, Failed, Failures};
use limiter::{ABOUT_THE_LOG, Limiter};
use lines::Lines;
use prefix::Prefix;
use syslog::Syslog;

/// How many lines may wait to be written.
const MAX_LINES: usize = 4096;

/// How often suppressed lines are reported, and places may log again.
const MINUTE: Duration = Duration::from_secs(60);

/// Where a plugin's process logs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error: for a terminal or a service manager.
    Stderr,
    /// syslog, or standard error where there is none: for a plugin whose standard error is lost.
    Syslog,
}

/// The log of a plugin's process: what matters (`INFO` and above), to standard error or to the
/// system's log, at most 20 lines a minute from each place in the code; and everything, to the file
/// that `CVMFS_CACHE_PLUGIN_DEBUGLOG` names. At 64 MiB that becomes `FILE.1`, in place of the one
/// that was there, and a new one begins.
///
/// No thread waits for it: 4096 lines may wait to be written, to each of the two, and more are lost
/// and counted.
///
/// It belongs to the main function; [`run`](crate::run) has started one already. Dropping it waits
/// for the last lines to be written, but hardly longer than a second for each of the two.
///
/// ```
/// use cvmcache::{Log, LogTarget, Options};
///
/// # fn main() -> Result<(), cvmcache::OptionsError> {
/// let log = Log::start("mine", LogTarget::Stderr, &Options::new())?;
/// // Make a server, and wait for it.
/// drop(log);
/// # Ok(())
/// # }
/// ```
#[must_use = "lines are written as long as it is there"]
pub struct Log {
    // Invariant: dropped before the guards, because it logs the last losses.
    _loss_reporter: LossReporter,
    _guards: [Option<WorkerGuard>; 2],
    /// What matters goes to the system's log.
    is_syslog: bool,
}

impl Log {
    /// Starts the log of the plugin of this name, such as `ram`, and its threads. A program that has
    /// set up `tracing` for itself keeps what it has.
    ///
    /// From now on, panics are logged with their backtraces, and reported to the
    /// [watchdog](crate::watchdog) if there is one, instead of what was done about them before. To be
    /// called after the watchdog has started, which must be before there are threads.
    ///
    /// # Errors
    ///
    /// [`OptionsError::Value`] if the file of the debug log cannot be opened.
    ///
    /// # Panics
    ///
    /// On a thread that is panicking.
    pub fn start(name: &str, target: LogTarget, options: &Options) -> Result<Self, OptionsError> {
        start(name, target, options)
    }

    pub(crate) fn is_syslog(&self) -> bool {
        self.is_syslog
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("is_syslog", &self.is_syslog).finish_non_exhaustive()
    }
}

fn start(name: &str, target: LogTarget, options: &Options) -> Result<Log, OptionsError> {
    let debug_log = match options.get(DEBUG_LOG) {
        None => None,
        Some(path) => {
            let opened = DebugLog::open(Path::new(path), debug_log::LARGEST);
            let file = opened.map_err(|error| {
                let hint = "name a regular file in a directory that the plugin can write to";
                options.bad_value(DEBUG_LOG, format!("{error}; {hint}"))
            })?;
            Some(file)
        }
    };
    let failures = Failures::default();
    let writer = |output: Box<dyn Write + Send>| writer(output, &failures);
    let debug_log = debug_log.map(|file| writer(Box::new(file)));
    let system = match target {
        LogTarget::Syslog if Syslog::is_there() => Syslog::open(name).ok(),
        _ => None,
    };
    let is_syslog = system.is_some();
    let (main, main_guard) = match system {
        Some(syslog) => writer(Box::new(syslog)),
        None => writer(Box::new(io::stderr())),
    };
    let (debug_log, debug_log_guard) = debug_log.unzip();
    let lost = [Some(&main), debug_log.as_ref()].map(|log| log.map(NonBlocking::error_counter));
    let limiter = Limiter::default();
    let losses = Losses { limiter: limiter.clone(), lost, known: 0, failures };
    let prefix = if is_syslog { Prefix::Syslog } else { Prefix::of_stderr() };
    let lines = Lines { writer: main, prefix, limiter: Some(limiter) };
    // The system has a clock of its own.
    let (to_system, to_reader) = match prefix {
        Prefix::None => {
            let layer = layer().with_target(false).with_writer(lines);
            (None, Some(layer.with_filter(LevelFilter::INFO)))
        }
        Prefix::Syslog | Prefix::Journal => {
            let layer = layer().with_target(false).without_time().with_writer(lines);
            (Some(layer.with_filter(LevelFilter::INFO)), None)
        }
    };
    let to_debug_log = debug_log.map(|writer| {
        let lines = Lines { writer, prefix: Prefix::None, limiter: None };
        layer().with_writer(lines)
    });
    // A program that has set up logging for itself keeps it.
    let _ = tracing_subscriber::registry()
        .with(to_system)
        .with(to_reader)
        .with(to_debug_log)
        .try_init();
    panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::force_capture();
        error!(%panic, %backtrace, "panic");
        watchdog::report_panic(panic, &backtrace);
    }));
    let loss_reporter = LossReporter::start(losses);
    let guards = [Some(main_guard), debug_log_guard];
    Ok(Log { _loss_reporter: loss_reporter, _guards: guards, is_syslog })
}

fn writer(output: Box<dyn Write + Send>, failures: &Failures) -> (NonBlocking, WorkerGuard) {
    let output = Counted { writer: output, failures: failures.clone() };
    NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MAX_LINES).finish(output)
}

/// A thread that reports once a minute, and at the end, which lines are not in the log.
///
/// The thread shares the limiter with all threads that log, and the counters of lost lines with the
/// threads that write; it holds no lock while it logs, since its own lines go through both.
struct LossReporter {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Losses {
    limiter: Limiter,
    lost: [Option<ErrorCounter>; 2],
    known: usize,
    failures: Failures,
}

impl LossReporter {
    fn start(losses: Losses) -> Self {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let run = move || losses.run(&stopped);
        // Without it, a place that has logged much stays silent, and that is all.
        let thread = thread::Builder::new().name("log".to_owned()).spawn(run).ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for LossReporter {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has been logged already.
            let _ = thread.join();
        }
    }
}

impl Losses {
    fn run(mut self, stopped: &Receiver<()>) {
        loop {
            self.report();
            let over = stopped.recv_timeout(MINUTE) == Err(RecvTimeoutError::Disconnected);
            if over {
                return self.report();
            }
        }
    }

    fn report(&mut self) {
        let suppressed = self.limiter.begin_minute();
        let sum = suppressed.iter().map(|place| u64::from(place.count)).sum();
        counter!("cvmcache_log_lines_suppressed_total").increment(sum);
        for place in suppressed {
            let (count, file, line) = (place.count, place.file, place.line);
            warn!(target: ABOUT_THE_LOG, "{count} more lines like those of {file}:{line} suppressed");
        }
        let lost: usize = self.lost.iter().flatten().map(ErrorCounter::dropped_lines).sum();
        let new = lost - self.known;
        self.known = lost;
        lost_lines().increment(new as u64);
        if new > 0 {
            warn!(target: ABOUT_THE_LOG, "{new} lines lost: the log did not take them in time");
        }
        if let Some(Failed { lines, error }) = self.failures.take() {
            lost_lines().increment(lines);
            warn!(target: ABOUT_THE_LOG, "{lines} lines lost: cannot write to the log: {error}");
        }
    }
}

fn lost_lines() -> Counter {
    counter!("cvmcache_log_lines_lost_total")
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
        let log = start("test", LogTarget::Stderr, &options).unwrap();
        let panicked = panic::catch_unwind(|| panic!("told to panic"));
        panic::set_hook(usual);
        assert!(panicked.is_err());
        drop(log);
        let log = std::fs::read_to_string(path).unwrap();
        assert!(log.contains("told to panic"), "{log}");
        assert!(log.contains("a_panic_is_in_the_debug_log_with_its_backtrace"), "{log}");
    }
}
