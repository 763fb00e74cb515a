//! Plugins as processes.

#![allow(dead_code, unreachable_pub, reason = "every test uses a part of it")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cvmcache::Locator;
use cvmcache::client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, mkfifo};

/// The timeout of everything that tests wait for.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The program of a plugin: the RAM cache, or an example. Cargo builds no programs of other packages,
/// and of examples none, with the tests.
pub fn program(name: &'static str) -> &'static Path {
    const NAMES: [&str; 3] = ["null", "ram", "crashing"];
    static PROGRAMS: [OnceLock<PathBuf>; NAMES.len()] = [const { OnceLock::new() }; NAMES.len()];
    let cell = &PROGRAMS[NAMES.iter().position(|&it| it == name).expect("one of them")];
    cell.get_or_init(|| {
        let build = match name {
            "ram" => escargot::CargoBuild::new().package("cvmcache-ram").bin("cvmcache-ram"),
            name => escargot::CargoBuild::new().package("cvmcache").example(name),
        };
        build.run().expect("cargo builds it").path().to_owned()
    })
}

/// A plugin with a directory of its own. Dropping it ends the process, if it has not ended.
pub struct Plugin {
    pub directory: tempfile::TempDir,
    pub name: &'static str,
    pub child: Option<Child>,
}

impl Plugin {
    pub fn new(name: &'static str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, name, child: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn locator(&self) -> Locator {
        Locator::Unix(self.path("socket"))
    }

    /// Writes a configuration that listens on `socket`, and more lines.
    pub fn configure(&self, lines: &str) -> PathBuf {
        let config = self.path("conf");
        let locator = format!("CVMFS_CACHE_PLUGIN_LOCATOR={}\n", self.locator());
        fs::write(&config, locator + lines).expect("a file");
        config
    }

    /// A command with these arguments, away from the terminal of the test run.
    pub fn command(&self, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(program(self.name));
        command.args(arguments).env_remove("XDG_RUNTIME_DIR").env("TMPDIR", self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn spawn(&mut self, command: &mut Command) -> &mut Child {
        self.child.insert(command.spawn().expect("a process"))
    }

    /// Starts it and waits until it serves.
    pub fn start(&mut self, lines: &str) -> &mut Child {
        let config = self.configure(lines);
        let mut command = self.command(&[config.as_ref()]);
        command.stderr(Stdio::null());
        self.spawn_until_it_serves(&mut command)
    }

    /// Spawns a command, and waits until it prints that it serves.
    pub fn spawn_until_it_serves(&mut self, command: &mut Command) -> &mut Child {
        let child = self.spawn(command);
        let mut greeting = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut greeting)
            .expect("a greeting");
        assert!(greeting.contains("serves CernVM-FS clients on unix="), "{greeting:?}");
        child
    }

    pub fn client(&self) -> Client {
        let builder = Client::builder().name("repo:1").timeout(LIMIT);
        builder.connect(&self.locator()).expect("a session")
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().expect("it was started").id() as i32)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it has not been waited for");
    }

    /// Waits for the end by a signal and returns that.
    pub fn wait_for_signal(&mut self) -> Signal {
        let mut child = self.child.take().expect("it was started");
        let status = child.wait().expect("it ends");
        let signal = status.signal().unwrap_or_else(|| panic!("ended by no signal: {status}"));
        Signal::try_from(signal).expect("a signal")
    }

    /// Waits for the end and returns the exit status.
    pub fn wait(&mut self) -> i32 {
        let mut child = self.child.take().expect("it was started");
        let status = child.wait().expect("it ends");
        status.code().unwrap_or_else(|| panic!("ended by a signal: {status}"))
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Polls until it is true. Only for conditions that no event reports.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::yield_now();
    }
}

/// A plugin as a client starts it: without standard descriptors, and with a pipe to report to.
pub struct Supervised {
    pub plugin: Plugin,
    pub ready: File,
}

impl Supervised {
    pub fn start(plugin: Plugin, config: &Path) -> Self {
        Self::start_with(plugin, config, |_| {})
    }

    pub fn start_with(plugin: Plugin, config: &Path, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut this = Self { ready: File::open("/dev/null").expect("it is there"), plugin };
        this.restart_with(config, prepare);
        this
    }

    pub fn restart(&mut self, config: &Path) {
        self.restart_with(config, |_| {});
    }

    fn restart_with(&mut self, config: &Path, prepare: impl FnOnce(&mut Command)) {
        let fifo = self.plugin.path("ready");
        let _ = fs::remove_file(&fifo);
        mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec "$0" "$1" 7>"$2" 0<&- 1>&- 2>&-"#])
            .args([program(self.plugin.name), config, &fifo])
            .env("__CVMFS_CACHE_EXTERNAL_PIPE_READY__", "7");
        prepare(&mut command);
        self.plugin.spawn(&mut command);
        self.ready = File::open(&fifo).expect("the other end opens it");
    }

    /// The byte that the supervisor waits for; `None` if the plugin ended without.
    pub fn answer(&mut self) -> Option<u8> {
        let mut byte = [0];
        (self.ready.read(&mut byte).expect("a pipe") == 1).then_some(byte[0])
    }
}
