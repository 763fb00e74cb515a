//! The plugin's process: started here or found, and what the system knows about it.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cvmcache::Locator;
use cvmcache::client::{Client, ClientError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::arguments::Soak;
use crate::broken::{Broken, Kept, ensure};

/// How long the plugin may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A plugin under test.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) locator: Locator,
    /// Where the system tells about it; `None` if it runs on another machine, for all we know.
    proc: Option<PathBuf>,
    started: Option<Started>,
}

#[derive(Debug)]
struct Started {
    child: Child,
    directory: TempDir,
}

impl Plugin {
    /// Starts the plugin, or finds it, and waits until it serves.
    pub(crate) fn new(arguments: &Soak) -> io::Result<Self> {
        let mut plugin = match (&arguments.plugin, &arguments.locator) {
            (Some(program), _) => Self::start(program, arguments)?,
            (None, Some(locator)) => Self { locator: locator.clone(), proc: None, started: None },
            (None, None) => return Err(io::Error::other("neither a plugin nor a locator")),
        };
        let client = plugin.first_client()?;
        if plugin.proc.is_none() {
            plugin.proc = client.plugin_pid().map(|pid| PathBuf::from(format!("/proc/{pid}")));
        }
        client.quit().map_err(io::Error::other)?;
        Ok(plugin)
    }

    fn start(program: &Path, arguments: &Soak) -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let locator = Locator::Unix(directory.path().join("socket"));
        let config = directory.path().join("conf");
        fs::write(
            &config,
            format!(
                "CVMFS_CACHE_PLUGIN_LOCATOR={locator}\nCVMFS_CACHE_PLUGIN_SIZE={}\n\
                 CVMFS_CACHE_PLUGIN_WORKERS={}\n",
                arguments.size_mb, arguments.workers
            ),
        )?;
        let log = File::create(directory.path().join("log"))?;
        let child = Command::new(program)
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", program.display())))?;
        let proc = Some(PathBuf::from(format!("/proc/{}", child.id())));
        Ok(Self { locator, proc, started: Some(Started { child, directory }) })
    }

    fn first_client(&mut self) -> io::Result<Client> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let builder = Client::builder().name("soak.cern.ch:first").timeout(PATIENCE);
            match builder.connect(&self.locator) {
                Ok(client) => return Ok(client),
                Err(ClientError::Connect { .. })
                    if self.started.is_some() && Instant::now() < deadline =>
                {
                    if let Err(broken) = self.check_alive() {
                        return Err(io::Error::other(format!("{broken}\n{}", self.log())));
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// That the process is still there, and no other in its place.
    pub(crate) fn check_alive(&mut self) -> Kept {
        let expected = "the plugin to stay alive";
        if let Some(started) = &mut self.started {
            return match started.child.try_wait() {
                Ok(None) => Ok(()),
                Ok(Some(status)) => Err(Broken::new(expected, how_it_ended(status))),
                Err(error) => Err(Broken::new(expected, error)),
            };
        }
        let gone = self.proc.as_ref().is_some_and(|proc| !proc.exists());
        ensure(!gone, expected, "its process is gone")
    }

    /// How much memory it took at most, and takes now, in bytes.
    pub(crate) fn memory(&self) -> Option<(u64, u64)> {
        let status = fs::read_to_string(self.proc.as_ref()?.join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        Some((field("VmHWM:")?, field("VmRSS:")?))
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> Option<usize> {
        fs::read_dir(self.proc.as_ref()?.join("fd")).ok().map(Iterator::count)
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        let Some(started) = &self.started else { return String::new() };
        let log = fs::read(started.directory.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Asks the plugin to end, if it was started here.
    pub(crate) fn end(mut self) -> Kept {
        let Some(started) = &mut self.started else { return Ok(()) };
        let expected = "the plugin to end with status 0 on SIGTERM";
        // It has not been waited for, so nobody else has its number.
        kill(Pid::from_raw(started.child.id().cast_signed()), Signal::SIGTERM)
            .map_err(|error| Broken::new(expected, error))?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match started.child.try_wait() {
                Ok(Some(status)) => {
                    return ensure(status.success(), expected, how_it_ended(status));
                }
                Ok(None) => thread::sleep(Duration::from_millis(10)),
                Err(error) => return Err(Broken::new(expected, error)),
            }
        }
        Err(Broken::new(expected, format_args!("it was still there after {PATIENCE:?}")))
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        if let Some(started) = &mut self.started {
            // If it has ended, there is nobody to kill, and the system says so.
            let _ = started.child.kill();
            let _ = started.child.wait();
        }
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => format!("it ended: {status}"),
    }
}
