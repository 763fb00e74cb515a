//! One Redis server. Whatever else it listens on, the test has a way in by a unix socket.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{Cmd, Connection, FromRedisValue};
use tempfile::TempDir;

use super::{Certificates, PATIENCE};

/// How to start a server. By default it listens on a unix socket, keeps nothing on disk and has no
/// password.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    lines: String,
    tcp: bool,
    tls: Option<Certificates>,
    cluster: bool,
    password: Option<String>,
}

impl Setup {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// A line of its configuration file.
    pub fn line(mut self, line: &str) -> Self {
        writeln!(self.lines, "{line}").unwrap();
        self
    }

    /// A port on loopback.
    pub fn tcp(self) -> Self {
        Self { tcp: true, ..self }
    }

    /// A port on loopback, with TLS.
    pub fn tls(self, certificates: &Certificates) -> Self {
        Self { tcp: true, tls: Some(certificates.clone()), ..self }
    }

    /// A node of a Cluster, with ports on loopback.
    pub fn cluster(self) -> Self {
        Self { tcp: true, cluster: true, ..self }
            .line("cluster-enabled yes")
            .line("cluster-node-timeout 1000")
    }

    /// With a password for the default user.
    pub fn password(self, password: &str) -> Self {
        let line = format!("requirepass {password}");
        Self { password: Some(password.to_owned()), ..self }.line(&line)
    }

    /// Keeps its data when it is killed.
    pub fn persistent(self) -> Self {
        self.line("appendonly yes").line("appendfsync always")
    }

    /// Refuses to store more than this.
    pub fn memory(self, megabytes: u32) -> Self {
        self.line(&format!("maxmemory {megabytes}mb")).line("maxmemory-policy noeviction")
    }

    /// Starts a server, and waits until it replies.
    pub fn start(&self) -> RedisServer {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let ports = if self.tcp { Some((a_port(), a_port())) } else { None };
            write_configuration(self, directory.path(), ports);
            match launch(directory.path()) {
                Ok(child) => {
                    return RedisServer {
                        child: Some(child),
                        port: ports.map(|(port, _)| port),
                        bus: ports.map(|(_, bus)| bus),
                        setup: self.clone(),
                        directory,
                    };
                }
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("redis-server does not start; it says:\n{log}"),
            }
        }
        panic!("no port is free for a redis-server");
    }
}

/// Below the ephemeral ports (`ip_local_port_range`), so that a server that is killed gets it back.
fn a_port() -> u16 {
    fastrand::u16(10_000..32_000)
}

fn write_configuration(setup: &Setup, directory: &Path, ports: Option<(u16, u16)>) {
    let mut text = format!(
        "bind 127.0.0.1\ndir {dir}\nlogfile {dir}/log\nunixsocket {dir}/socket\n\
         save \"\"\nenable-debug-command local\nprotected-mode no\n\
         user {CONTROL} on >{CONTROL} ~* &* +@all\n",
        dir = directory.display()
    );
    match (ports, &setup.tls) {
        (None, _) => text += "port 0\n",
        (Some((port, _)), None) => writeln!(text, "port {port}").unwrap(),
        (Some((port, _)), Some(certificates)) => {
            writeln!(text, "port 0\ntls-port {port}\n{}", certificates.lines()).unwrap();
            if setup.cluster {
                text += "tls-cluster yes\ntls-replication yes\n";
            }
        }
    }
    if let (Some((_, bus)), true) = (ports, setup.cluster) {
        writeln!(text, "cluster-port {bus}\ncluster-config-file {}/nodes", directory.display())
            .unwrap();
    }
    fs::write(directory.join("conf"), text + &setup.lines).unwrap();
}

/// The user, and the password, of the test itself.
const CONTROL: &str = "control";

/// Starts it and waits until it replies; the error is the log of one that has ended.
fn launch(directory: &Path) -> Result<Child, String> {
    if let Err(error) = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status()
    {
        panic!("cannot start redis-server: {error}; install the Debian package redis-server");
    }
    let _ = fs::remove_file(directory.join("log"));
    // It must not outlive a test that is killed.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "redis-server"])
        .arg(directory.join("conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("setpriv is in the Debian package util-linux");
    let deadline = Instant::now() + PATIENCE;
    loop {
        if child.try_wait().unwrap().is_some() {
            return Err(fs::read_to_string(directory.join("log")).unwrap_or_default());
        }
        if control(directory).is_ok_and(|mut it| redis::cmd("PING").exec(&mut it).is_ok()) {
            return Ok(child);
        }
        assert!(Instant::now() < deadline, "redis-server does not answer within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn control(directory: &Path) -> redis::RedisResult<Connection> {
    let socket = directory.join("socket");
    let url = format!("unix://{}?user={CONTROL}&pass={CONTROL}", socket.display());
    redis::Client::open(url)?.get_connection()
}

/// A server that runs. Dropping it kills it.
#[derive(Debug)]
pub struct RedisServer {
    child: Option<Child>,
    port: Option<u16>,
    bus: Option<u16>,
    setup: Setup,
    directory: TempDir,
}

impl RedisServer {
    /// A server on a unix socket, without a password.
    pub fn start() -> Self {
        Setup::new().start()
    }

    /// The URL for a plugin.
    pub fn url(&self) -> String {
        let login = match &self.setup.password {
            Some(password) => format!(":{password}@"),
            None => String::new(),
        };
        match (self.port, &self.setup.tls) {
            (Some(port), None) => format!("redis://{login}127.0.0.1:{port}"),
            (Some(port), Some(_)) => format!("rediss://{login}127.0.0.1:{port}"),
            (None, _) => {
                let pass = self.setup.password.as_ref().map(|pass| format!("?pass={pass}"));
                format!("unix://{}{}", self.socket().display(), pass.unwrap_or_default())
            }
        }
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// The port, which it has if that was asked for.
    pub fn port(&self) -> u16 {
        self.port.expect("a server with a port")
    }

    /// The port of the Cluster bus.
    pub fn bus_port(&self) -> u16 {
        self.bus.expect("a server with a port")
    }

    /// A connection of the test, with all permissions.
    pub fn connect(&self) -> Connection {
        control(self.directory.path()).unwrap()
    }

    /// Sends a command with all permissions.
    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query(&mut self.connect()).unwrap()
    }

    /// Like [`ask`](Self::ask), with a command of words with blanks between them.
    #[track_caller]
    pub fn say(&self, words: &str) -> redis::Value {
        let mut command = Cmd::new();
        command.arg(words.split(' ').collect::<Vec<_>>());
        self.ask(&command)
    }

    /// A number of the reply to INFO.
    pub fn info(&self, name: &str) -> u64 {
        let text: String = self.ask(&redis::cmd("INFO"));
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Kills it, as a loss of power would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it, and starts it again at the same place: with what it has kept on disk, if that was
    /// asked for, and otherwise with nothing.
    pub fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match launch(self.directory.path()) {
                Ok(child) => {
                    self.child = Some(child);
                    return;
                }
                // A connection of another process has its port for a moment.
                Err(log) if log.contains("in use") && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(50));
                }
                Err(log) => panic!("redis-server does not start again; it says:\n{log}"),
            }
        }
    }

    /// Stops it: the kernel accepts connections and bytes, and no reply comes.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Continues it.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a server that runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    }

    /// Its log.
    pub fn log(&self) -> io::Result<String> {
        fs::read_to_string(self.directory.path().join("log"))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
