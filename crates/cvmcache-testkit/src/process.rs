//! A plugin in a process of its own.
//!
//! A plugin in any language is started as at a site: with a configuration file that has its locator.

mod command;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{mem, thread};

use cvmcache::Locator;
use cvmcache::client::{Client, ClientError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tempfile::TempDir;
use thiserror::Error;

pub use command::{ParseCommandError, PluginCommand};

/// The default of how long a plugin may take to start, and how long it may take to end.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The interval of polling for what the kernel does not signal.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How many lines of a plugin's output are shown.
const LOG_LINES: usize = 20;

/// The plugins that were started and may still run.
static RUNNING: Mutex<Vec<Weak<Mutex<Process>>>> = Mutex::new(Vec::new());

/// Why a plugin does not serve.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program cannot be started.
    #[error("cannot start {program:?}: {source}; is the path right, and is it executable?")]
    Program {
        /// The program.
        program: OsString,
        /// The error of the system.
        source: io::Error,
    },
    /// It ended instead of serving.
    #[error("{program:?} {} before it served a client{}", Ended(*status), Printed(log))]
    Ended {
        /// The program.
        program: OsString,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it printed.
        log: String,
    },
    /// No client can connect to it.
    #[error(
        "{program:?} cannot be reached: {source}; it has to listen where \
         CVMFS_CACHE_PLUGIN_LOCATOR in its configuration file says{}",
        Printed(log)
    )]
    Unreachable {
        /// The program.
        program: OsString,
        /// What a client sees.
        source: ClientError,
        /// The last lines that it printed.
        log: String,
    },
    /// There is no place for its files.
    #[error(
        "cannot make a directory for the plugin's socket: {0}; set TMPDIR to where there is room"
    )]
    Directory(#[from] io::Error),
}

/// A plugin that was started, see [`PluginCommand::start`]. Dropping it kills the process, if it has not
/// ended, and removes its directory.
#[derive(Debug)]
pub struct PluginProcess {
    locator: Locator,
    pid: u32,
    log: PathBuf,
    process: Arc<Mutex<Process>>,
}

/// The process and its directory: ended and removed by the plugin's drop or `kill_all`.
#[derive(Debug)]
struct Process {
    child: Child,
    directory: Option<TempDir>,
}

impl PluginProcess {
    fn spawn(locator: Locator, directory: TempDir, command: &mut Command) -> io::Result<Self> {
        let log = directory.path().join("log");
        // Lock order: RUNNING before a process. Invariant: it is held from the spawn to the push, so
        // that no process escapes `kill_all`.
        let mut running = RUNNING.lock();
        let child = command.spawn()?;
        let pid = child.id();
        let process = Arc::new(Mutex::new(Process { child, directory: Some(directory) }));
        running.retain(|process| process.strong_count() > 0);
        running.push(Arc::downgrade(&process));
        Ok(Self { locator, pid, log, process })
    }

    /// Kills all plugins that this process has started, removes their directories, and lets no
    /// other start: for a program that is about to end without dropping them, as on a signal. A thread
    /// that tries to start one blocks for ever.
    pub fn kill_all() {
        let running = RUNNING.lock();
        for process in running.iter().filter_map(Weak::upgrade) {
            process.lock().end();
        }
        mem::forget(running);
    }

    /// Where it listens.
    pub fn locator(&self) -> &Locator {
        &self.locator
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, or `None` if it still runs.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.lock().child.try_wait()
    }

    /// Waits until it ends; `None` if it still runs after this time. It is polled every 10 ms.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn wait_for(&mut self, at_most: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + at_most;
        loop {
            let ended = self.try_wait()?;
            if ended.is_some() || Instant::now() >= deadline {
                return Ok(ended);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Terminates it (SIGTERM), and kills it if it has not ended after 20 s: then, `None`. Its directory
    /// is removed.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn end(mut self) -> io::Result<Option<ExitStatus>> {
        {
            let mut process = self.process.lock();
            if let Some(status) = process.child.try_wait()? {
                return Ok(Some(status));
            }
            // It has not been waited for, so its pid is not reused.
            kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM)?;
        }
        self.wait_for(TIMEOUT)
    }

    /// The last lines that it printed to standard output and standard error, at most 20.
    pub fn log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn wait_until_ready(&mut self, program: &OsStr, patience: Duration) -> Result<(), StartError> {
        let deadline = Instant::now() + patience;
        loop {
            let builder = Client::builder().name("test.cern.ch:first").timeout(patience);
            let error = match builder.connect(&self.locator).and_then(Client::quit) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if let Some(status) = self.try_wait()? {
                let (program, log) = (program.to_owned(), self.log());
                return Err(StartError::Ended { program, status, log });
            }
            if !matches!(error, ClientError::Connect { .. }) || Instant::now() >= deadline {
                let (program, log) = (program.to_owned(), self.log());
                return Err(StartError::Unreachable { program, source: error, log });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for PluginProcess {
    fn drop(&mut self) {
        self.process.lock().end();
    }
}

impl Process {
    /// Kills it and removes its directory, if that has not been done.
    fn end(&mut self) {
        // If it has ended, these are errors.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.directory = None;
    }
}

/// The text of how a process ended, which follows its name.
pub(crate) struct Ended(pub(crate) ExitStatus);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.code(), self.0.signal().map(Signal::try_from)) {
            (Some(code), _) => write!(f, "ended with status {code}"),
            (None, Some(Ok(signal))) => write!(f, "was ended by {signal}"),
            _ => write!(f, "ended: {}", self.0),
        }
    }
}

struct Printed<'a>(&'a str);

impl std::fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            "" => f.write_str("; it has printed nothing"),
            log => write!(f, "; it has printed:\n{log}"),
        }
    }
}
