//! A plugin as a process of its own: how to start it, and what the system knows about it.
//!
//! Whatever language the plugin is written in, it is started as a site would: with a configuration
//! file that says where to listen.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{mem, thread};

use cvmcache::Locator;
use cvmcache::client::{Client, ClientError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use thiserror::Error;

/// What stands for the path of the configuration file in a command.
const CONFIGURATION: &str = "{conf}";

/// How long a plugin may take to start or to end, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often to look whether something has happened that the system does not tell about.
const LOOK: Duration = Duration::from_millis(10);

/// How many lines of what a plugin has printed are worth showing.
const LOG_LINES: usize = 20;

/// The plugins that were started and may still run.
static RUNNING: Mutex<Vec<Weak<Mutex<Process>>>> = Mutex::new(Vec::new());

/// How to start a plugin.
///
/// It is a command line as a shell has it, in which `{conf}` stands for the path of a
/// configuration file; without, the path is the last argument. Nothing but words and quotes is
/// understood: it is not run by a shell.
///
/// ```no_run
/// use cvmcache::client::Client;
/// use cvmcache_testkit::PluginCommand;
///
/// let command: PluginCommand = "/usr/libexec/cvmfs/cache/cvmfs_cache_ram {conf}".parse()?;
/// let plugin = command.option("CVMFS_CACHE_PLUGIN_SIZE", "200").start()?;
/// let client = Client::connect(plugin.locator(), "test.cern.ch:1")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginCommand {
    program: OsString,
    arguments: Vec<OsString>,
    options: BTreeMap<String, String>,
    tcp: bool,
}

/// A text is no command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is not a command: {reason}; write the plugin's program and its arguments, with \
     {CONFIGURATION} for the path of its configuration file"
)]
pub struct ParseCommandError {
    text: String,
    reason: &'static str,
}

/// Why a plugin does not serve.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program cannot be started.
    #[error("cannot start {program:?}: {source}; is the path right, and is it executable?")]
    Program {
        /// The program.
        program: OsString,
        /// What the system says.
        source: io::Error,
    },
    /// It ended instead of serving.
    #[error("{program:?} {} before it served anybody{}", Ended(*status), Printed(log))]
    Ended {
        /// The program.
        program: OsString,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it printed.
        log: String,
    },
    /// Nobody can connect to it.
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

impl PluginCommand {
    /// Starts `program` with one argument, the path of the configuration file.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: vec![CONFIGURATION.into()],
            options: BTreeMap::new(),
            tcp: false,
        }
    }

    /// The program that is started.
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// Adds a line to the configuration file, or replaces the one with this key.
    #[must_use]
    pub fn option(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(key.into(), value.into());
        self
    }

    /// Has the plugin listen on a loopback port that is free now, instead of a unix socket.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Starts the plugin in a directory of its own, and waits until it lets a client in.
    ///
    /// # Errors
    ///
    /// [`StartError`], with what the plugin has printed.
    pub fn start(&self) -> Result<PluginProcess, StartError> {
        let directory = tempfile::tempdir()?;
        let locator = self.locator(directory.path())?;
        let configuration = directory.path().join("conf");
        let mut lines = format!("CVMFS_CACHE_PLUGIN_LOCATOR={locator}\n");
        for (key, value) in &self.options {
            lines += &format!("{key}={value}\n");
        }
        fs::write(&configuration, lines)?;
        let log = File::create(directory.path().join("log"))?;
        let mut command = Command::new(&self.program);
        command
            .args(self.arguments.iter().map(|argument| fill_in(argument, &configuration)))
            .env_remove("__CVMFS_CACHE_EXTERNAL_PIPE_READY__")
            // The plugins of the reference end with their standard input.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        let program = &self.program;
        let mut process = PluginProcess::spawn(locator, directory, &mut command)
            .map_err(|source| StartError::Program { program: program.clone(), source })?;
        process.wait_until_it_serves(program)?;
        Ok(process)
    }

    fn locator(&self, directory: &Path) -> io::Result<Locator> {
        if !self.tcp {
            return Ok(Locator::Unix(directory.join("socket")));
        }
        let free = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let port = free.local_addr()?.port();
        Ok(Locator::Tcp { host: "127.0.0.1".to_owned(), port })
    }
}

impl FromStr for PluginCommand {
    type Err = ParseCommandError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason| ParseCommandError { text: text.to_owned(), reason };
        let mut words = shlex::split(text)
            .ok_or_else(|| error("a quote is not closed, or a backslash ends it"))?
            .into_iter();
        let program = words.next().ok_or_else(|| error("it is empty"))?;
        let mut command = Self::new(program);
        let arguments: Vec<OsString> = words.map(OsString::from).collect();
        let is_filled_in = |a: &OsString| a.to_str().is_some_and(|a| a.contains(CONFIGURATION));
        if arguments.iter().any(is_filled_in) {
            command.arguments.clear();
        }
        command.arguments.splice(0..0, arguments);
        Ok(command)
    }
}

fn fill_in(argument: &OsStr, configuration: &Path) -> OsString {
    match argument.to_str() {
        Some(text) => text.replace(CONFIGURATION, &configuration.to_string_lossy()).into(),
        None => argument.to_owned(),
    }
}

/// A plugin that was started. Dropping it kills the process, if it has not ended, and removes its
/// directory.
#[derive(Debug)]
pub struct PluginProcess {
    locator: Locator,
    pid: u32,
    log: PathBuf,
    process: Arc<Mutex<Process>>,
}

/// What is to be ended and removed, by whoever comes first.
#[derive(Debug)]
struct Process {
    child: Child,
    directory: Option<TempDir>,
}

impl PluginProcess {
    fn spawn(locator: Locator, directory: TempDir, command: &mut Command) -> io::Result<Self> {
        let log = directory.path().join("log");
        // Held until it is among them, so that none escapes `kill_all`.
        let mut running = lock(&RUNNING);
        let child = command.spawn()?;
        let pid = child.id();
        let process = Arc::new(Mutex::new(Process { child, directory: Some(directory) }));
        running.retain(|process| process.strong_count() > 0);
        running.push(Arc::downgrade(&process));
        Ok(Self { locator, pid, log, process })
    }

    /// Kills all plugins that this process has started, removes their directories, and lets no
    /// other start: for a program that is about to end without dropping them, as on a signal.
    pub fn kill_all() {
        let running = lock(&RUNNING);
        for process in running.iter().filter_map(Weak::upgrade) {
            lock(&process).end();
        }
        mem::forget(running);
    }

    /// Where it listens.
    pub fn locator(&self) -> &Locator {
        &self.locator
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, or `None` if it still runs.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        lock(&self.process).child.try_wait()
    }

    /// Waits until it ends; `None` if it still runs after this time.
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
            thread::sleep(LOOK);
        }
    }

    /// Asks it to end (SIGTERM), and kills it if it does not within 20 s: then, `None`.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn end(mut self) -> io::Result<Option<ExitStatus>> {
        {
            let mut process = lock(&self.process);
            if let Some(status) = process.child.try_wait()? {
                return Ok(Some(status));
            }
            // It has not been waited for, so nobody else has its number.
            kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM)?;
        }
        self.wait_for(PATIENCE)
    }

    /// The last lines that it printed.
    pub fn log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Where the system tells about the process.
    pub fn proc(&self) -> PathBuf {
        format!("/proc/{}", self.pid()).into()
    }

    fn wait_until_it_serves(&mut self, program: &OsStr) -> Result<(), StartError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let builder = Client::builder().name("test.cern.ch:first").timeout(PATIENCE);
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
            thread::sleep(LOOK);
        }
    }
}

impl Drop for PluginProcess {
    fn drop(&mut self) {
        lock(&self.process).end();
    }
}

impl Process {
    /// Kills it and removes its directory, if that has not been done.
    fn end(&mut self) {
        // If it has ended, there is nobody to kill, and the system says so.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.directory = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a process ended, in words that follow its name.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(command: &str) -> Vec<OsString> {
        command.parse::<PluginCommand>().unwrap().arguments
    }

    #[test]
    fn the_configuration_file_is_where_it_is_wanted_or_the_last_argument() {
        assert_eq!(arguments("plugin"), ["{conf}"]);
        assert_eq!(arguments("plugin -v 'a b'"), ["-v", "a b", "{conf}"]);
        assert_eq!(arguments("plugin --config={conf} -v"), ["--config={conf}", "-v"]);
        let filled_in = fill_in("--config={conf}".as_ref(), Path::new("/etc/x"));
        assert_eq!(filled_in, "--config=/etc/x");
    }

    #[test]
    fn what_is_no_command_is_named() {
        for (text, reason) in [("", "empty"), ("plugin 'x", "quote")] {
            let error = text.parse::<PluginCommand>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let error = PluginCommand::new("/nowhere/plugin").start().unwrap_err().to_string();
        assert!(error.starts_with("cannot start \"/nowhere/plugin\": No such file"), "{error}");
    }

    #[test]
    fn a_program_that_ends_is_shown_with_what_it_printed() {
        let command: PluginCommand =
            r#"sh -c "echo no socket >&2; exit 3" {conf}"#.parse().unwrap();
        let error = command.start().unwrap_err().to_string();
        assert!(error.contains("ended with status 3") && error.ends_with("\nno socket"), "{error}");
    }
}
