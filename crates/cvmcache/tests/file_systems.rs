//! Plugins whose files and file system change while they serve: removed at a bad time, read-only, or not
//! watched by inotify.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};

use cvmcache::Locator;
use cvmcache::client::{Client, ClientError};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use support::crash_command;
use support::crashes::send_command;
use support::plugin::{LIMIT, Plugin, eventually};

/// A plugin that has all its files in a directory of its own.
struct Fixture {
    plugin: Plugin,
    directory: PathBuf,
    stderr: Option<ChildStderr>,
}

/// Gives the plugin a table of mounts of its own.
const OWN_MOUNTS: &str = r#"exec "$@""#;

/// Lets the plugin have no inotify: it gets EMFILE.
const NO_INOTIFY: &str = r#"echo 0 >/proc/sys/user/max_inotify_instances && exec "$@""#;

impl Fixture {
    /// Starts a plugin in namespaces of its own, after a script.
    fn start(namespaces: &[&str], script: &str) -> Self {
        let mut plugin = Plugin::new("crashing");
        let directory = plugin.path("files");
        fs::create_dir(&directory).expect("a directory");
        let file = |name: &str| directory.join(name).display().to_string();
        let config = plugin.configure(&format!(
            "CVMFS_CACHE_PLUGIN_LOCATOR=unix={}\nCVMFS_CACHE_PLUGIN_CRASH_DUMP={}\n\
             CVMFS_CACHE_PLUGIN_DEBUGLOG={}\n",
            file("socket"),
            file("dump"),
            file("debug.log"),
        ));
        let plain = plugin.command(&[config.as_ref()]);
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["sh", "-c", script, "sh"]);
        command.arg(plain.get_program()).args(plain.get_args());
        command.env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let stderr = plugin.spawn_until_it_serves(&mut command).stderr.take();
        Self { plugin, directory, stderr }
    }

    fn with_own_mounts() -> Self {
        match geteuid().is_root() {
            true => Self::start(&["--mount"], OWN_MOUNTS),
            false => Self::start(&["--mount", "--map-root-user"], OWN_MOUNTS),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn connect(&self) -> Result<Client, ClientError> {
        let locator = Locator::Unix(self.path("socket"));
        Client::builder().name("repo:1").timeout(LIMIT).connect(&locator)
    }

    fn can_connect(&self) -> bool {
        self.connect().is_ok_and(|client| client.quit().is_ok())
    }

    /// Runs a script where the plugin sees its directory, which is `$0`.
    fn run_with_its_mounts(&self, script: &str) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.plugin.pid())).arg("--mount");
        if !geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        let status = command.args(["sh", "-c", script]).arg(&self.directory).status();
        assert!(status.expect("nsenter of util-linux").success());
    }

    /// Makes the directory read-only for the plugin, and for it alone. What it has open stays so.
    fn make_read_only(&self) {
        self.run_with_its_mounts(r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0""#);
    }

    fn make_writable(&self) {
        self.run_with_its_mounts(r#"umount "$0""#);
    }

    fn has_logged(&self, text: &str) -> bool {
        self.times_logged(text) > 0
    }

    fn times_logged(&self, text: &str) -> usize {
        fs::read_to_string(self.path("debug.log")).expect("a log").matches(text).count()
    }

    fn terminate(&mut self) {
        self.plugin.signal(Signal::SIGTERM);
        assert_eq!(self.plugin.wait(), 0);
    }
}

/// The plugin answers, though it has no such request.
fn is_served(client: &mut Client) -> bool {
    matches!(client.info(), Err(ClientError::Status(_)))
}

fn remove(paths: &[&Path]) {
    paths.iter().for_each(|path| fs::remove_file(path).expect("a file"));
}

#[test]
fn a_plugin_whose_file_system_becomes_read_only_serves_and_binds_its_socket_once_it_can() {
    let mut f = Fixture::with_own_mounts();
    let mut held = f.connect().unwrap();
    for files in [&["socket"][..], &["socket", "socket.lock"]] {
        let problem = "cannot be bound again yet";
        let before = f.times_logged(problem);
        f.make_read_only();
        assert!(f.can_connect(), "a socket can be connected to");
        let files: Vec<_> = files.iter().map(|name| f.path(name)).collect();
        remove(&Vec::from_iter(files.iter().map(PathBuf::as_path)));
        eventually("it is logged", || f.times_logged(problem) > before);
        assert!(is_served(&mut held));
        assert!(!f.path("socket").exists());
        f.make_writable();
        eventually("it serves there again", || f.can_connect());
        assert_eq!(f.times_logged(problem), before + 1, "once");
    }
    // What it cannot remove at its end, it leaves.
    f.make_read_only();
    drop(held);
    f.terminate();
    assert!(f.path("socket").exists());
}

#[test]
fn a_lock_file_that_cannot_be_made_again_keeps_no_client_away() {
    let mut f = Fixture::with_own_mounts();
    f.make_read_only();
    remove(&[&f.path("socket.lock")]);
    eventually("it is logged", || f.has_logged("clients can connect all the same"));
    assert!(f.can_connect());
    f.make_writable();
    eventually("it is locked again", || f.has_logged("it is made again"));
    assert!(!f.has_logged("cannot be bound again yet"), "the socket was there all the time");
    f.terminate();
    assert!(!f.path("socket").exists());
}

#[test]
fn on_a_read_only_file_system_reports_of_panics_go_to_standard_error_and_the_plugin_goes_on() {
    let mut f = Fixture::with_own_mounts();
    let mut client = f.connect().unwrap();
    f.make_read_only();
    send_command(&mut client, crash_command::PANIC);
    let mut lines = BufReader::new(f.stderr.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("Read-only file system")).unwrap();
    assert!(!f.path("dump").exists());
    assert!(is_served(&mut client));
    drop(client);
    f.terminate();
}

#[test]
fn without_inotify_a_socket_that_is_removed_is_there_again_and_the_log_says_how_soon() {
    let mut f = Fixture::start(&["--user", "--map-root-user"], NO_INOTIFY);
    let mut held = f.connect().unwrap();
    eventually("it is logged", || f.has_logged("inotify is not available"));
    for files in [&["socket"][..], &["socket", "socket.lock"]] {
        files.iter().for_each(|name| fs::remove_file(f.path(name)).unwrap());
        eventually("it serves there again", || f.can_connect());
    }
    assert!(is_served(&mut held));
    // Once for the socket, and once for the administration socket.
    assert_eq!(f.times_logged("inotify is not available"), 2);
    drop(held);
    f.terminate();
    assert!(!f.path("socket").exists());
}

#[test]
fn without_descriptors_to_spare_a_socket_that_is_removed_is_bound_again_once_there_are_some() {
    let mut f = Fixture::with_own_mounts();
    let mut held = f.connect().unwrap();
    let limit = |nofile: &str| {
        let pid = format!("--pid={}", f.plugin.pid());
        let status = Command::new("prlimit").args([&pid, &format!("--nofile={nofile}:")]).status();
        assert!(status.expect("prlimit of util-linux").success());
    };
    limit("1");
    remove(&[&f.path("socket")]);
    eventually("it is logged", || f.has_logged("cannot be bound again yet"));
    assert!(is_served(&mut held));
    limit("1024");
    eventually("it serves there again", || f.can_connect());
    drop(held);
    f.terminate();
}
