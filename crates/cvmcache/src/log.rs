//! Log targets: important lines go to standard error or syslog, all lines to the debug log.
//!
//! Lines are written by threads of their own, one for each output, behind a bounded queue. If an output
//! takes none, such as a full pipe or a stopped terminal, lines are lost and counted, and the plugin
//! goes on: a thread that logs waits for neither the queue nor the output.

mod debug_log;
mod failures;
mod level;
mod limiter;
mod lines;
mod prefix;
mod syslog;
mod writer;

use std::backtrace::Backtrace;
use std::io::{self, Write};
use std::panic;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use metrics::{Counter, counter};
use thiserror::Error;
use tracing::{Level, error, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config_keys::DEBUG_LOG;
use crate::{Options, OptionsError, threads, watchdog};

use debug_log::DebugLog;
use failures::{Counted, Failed, Failures};
use level::LevelHandle;
use limiter::{ABOUT_THE_LOG, Limiter};
use lines::Lines;
use prefix::Prefix;
use syslog::Syslog;
use writer::{Queue, Writer};

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
/// # fn main() -> Result<(), cvmcache::LogError> {
/// let log = Log::start("mine", LogTarget::Stderr, &Options::new())?;
/// // Make a server, and wait for it.
/// drop(log);
/// # Ok(())
/// # }
/// ```
#[must_use = "lines are written as long as it is there"]
pub struct Log {
    // Invariant: dropped before the writers, because it logs the last losses.
    _loss_reporter: LossReporter,
    _writers: [Option<Writer>; 2],
    /// What matters goes to the system's log.
    is_syslog: bool,
    /// `None` if the program has set up `tracing` for itself.
    level: Option<Arc<LevelHandle>>,
}

/// Why the log cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file of the debug log cannot be opened.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The system has no thread to spare for it.
    #[error("the log cannot start: {0}")]
    Thread(#[from] io::Error),
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
    /// [`LogError`] if the file of the debug log cannot be opened, and if the system has no threads to
    /// spare.
    ///
    /// # Panics
    ///
    /// On a thread that is panicking.
    pub fn start(name: &str, target: LogTarget, options: &Options) -> Result<Self, LogError> {
        start(name, target, options)
    }

    /// The least level that is logged, besides in the debug log, which has all. `None` if the program has set
    /// up `tracing` for itself.
    pub(crate) fn level(&self) -> Option<Arc<LevelHandle>> {
        self.level.clone()
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

/// Writes an error to syslog, if it is there, on this thread: for when the log could not start.
pub(crate) fn write_to_syslog(name: &str, error: &dyn std::error::Error) {
    if Syslog::is_there()
        && let Ok(mut syslog) = Syslog::open(name)
    {
        let line = format!("ERROR the plugin ends error={error}");
        let line = lines::sanitize(line.as_bytes(), Prefix::Syslog, Level::ERROR);
        let _ = syslog.write_all(&line);
    }
}

fn start(name: &str, target: LogTarget, options: &Options) -> Result<Log, LogError> {
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
    let start_writer = |output: Box<dyn Write + Send>| {
        writer::start(Box::new(Counted { writer: output, failures: failures.clone() }))
    };
    let debug_log = debug_log.map(|file| start_writer(Box::new(file))).transpose()?;
    let system = match target {
        LogTarget::Syslog if Syslog::is_there() => Syslog::open(name).ok(),
        _ => None,
    };
    let is_syslog = system.is_some();
    let (main, main_writer) = match system {
        Some(syslog) => start_writer(Box::new(syslog))?,
        None => start_writer(Box::new(io::stderr()))?,
    };
    let (debug_log, debug_log_writer) = debug_log.unzip();
    let queues = [Some(main.clone()), debug_log.clone()];
    let limiter = Limiter::default();
    let losses = Losses { limiter: limiter.clone(), queues, known: 0, failures };
    let prefix = if is_syslog { Prefix::Syslog } else { Prefix::of_stderr() };
    let lines = Lines { writer: main, prefix, limiter: Some(limiter) };
    // The system has a clock of its own.
    let (to_system, to_reader, level) = match prefix {
        Prefix::None => {
            let (filter, level) = level::filter();
            let layer = layer().with_target(false).with_writer(lines);
            (None, Some(layer.with_filter(filter)), level)
        }
        Prefix::Syslog | Prefix::Journal => {
            let (filter, level) = level::filter();
            let layer = layer().with_target(false).without_time().with_writer(lines);
            (Some(layer.with_filter(filter)), None, level)
        }
    };
    let to_debug_log = debug_log.map(|writer| {
        let lines = Lines { writer, prefix: Prefix::None, limiter: None };
        layer().with_writer(lines)
    });
    // A program that has set up logging for itself keeps it.
    let registry = tracing_subscriber::registry();
    let initialized =
        registry.with(to_system).with(to_reader).with(to_debug_log).try_init().is_ok();
    panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::force_capture();
        error!(%panic, %backtrace, "panic");
        watchdog::report_panic(panic, &backtrace);
    }));
    let loss_reporter = LossReporter::start(losses);
    let writers = [Some(main_writer), debug_log_writer];
    let level = initialized.then(|| Arc::new(level));
    Ok(Log { _loss_reporter: loss_reporter, _writers: writers, is_syslog, level })
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
    queues: [Option<Queue>; 2],
    known: usize,
    failures: Failures,
}

impl LossReporter {
    fn start(losses: Losses) -> Self {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let run = move || losses.run(&stopped);
        // Without it, a place that has logged much stays silent, and that is all.
        let thread = threads::spawn("log", run).ok();
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
        let lost: usize = self.queues.iter().flatten().map(Queue::lost).sum();
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
        let panicked = panic::catch_unwind(|| panic!("panic on purpose"));
        panic::set_hook(usual);
        assert!(panicked.is_err());
        drop(log);
        let log = std::fs::read_to_string(path).unwrap();
        assert!(log.contains("panic on purpose"), "{log}");
        assert!(log.contains("a_panic_is_in_the_debug_log_with_its_backtrace"), "{log}");
    }
}
