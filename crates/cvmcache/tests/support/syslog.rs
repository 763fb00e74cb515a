//! Syslog for a process with a `/dev` of its own.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;

use super::plugin::LIMIT;

/// Mounts a minimal `/dev`, in which `log` is the socket of the test.
const SCRIPT: &str = r#"
    set -e
    mount -t tmpfs tmpfs "$1"
    for name in null zero urandom; do
        touch "$1/$name"
        mount --bind "/dev/$name" "$1/$name"
    done
    touch "$1/log"
    mount --bind "$0" "$1/log"
    mount --move "$1" /dev
    shift
    exec "$@"
"#;

/// The syslog of a process that is started with [`Syslog::seen_by`].
pub struct Syslog {
    socket: UnixDatagram,
    path: PathBuf,
    dev: PathBuf,
}

impl Syslog {
    /// Keeps its files in `directory`.
    pub fn new(directory: &Path) -> Self {
        let (path, dev) = (directory.join("log"), directory.join("dev"));
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(LIMIT)).expect("it can wait");
        fs::create_dir(&dev).expect("a directory");
        Self { socket, path, dev }
    }

    /// The same command, except for its standard descriptors, with this as its syslog.
    pub fn seen_by(&self, plain: &Command) -> Command {
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if !geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c", SCRIPT]).args([&self.path, &self.dev]);
        command.arg(plain.get_program()).args(plain.get_args());
        let variables = plain.get_envs();
        command.envs(variables.filter_map(|(key, value)| value.map(|value| (key, value))));
        command
    }

    /// The lines up to the first one with `text` in it, which must come.
    pub fn read_until(&self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = [0; 8192];
        while !lines.last().is_some_and(|line: &String| line.contains(text)) {
            let len = self.socket.recv(&mut buffer);
            let len = len.unwrap_or_else(|error| panic!("no {text:?} after {lines:?}: {error}"));
            lines.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
        }
        lines
    }
}
