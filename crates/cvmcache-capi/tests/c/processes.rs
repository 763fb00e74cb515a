//! Plugins as processes: how clients start them, and how they end.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::Duration;

use cvmcache::Locator;
use cvmcache::client::{Client, NewUpload};
use cvmcache::plugin::ObjectId;
use cvmcache_testkit::PluginCommand;
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};

use crate::install::{Library, program};

const LIMIT: Duration = Duration::from_secs(30);

fn id() -> ObjectId {
    "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33".parse().expect("an id")
}

/// A plugin as a client starts it: without standard descriptors, and with a pipe to report to.
/// Dropping it kills the process, if it has not ended.
struct Supervised {
    directory: tempfile::TempDir,
    child: Child,
    /// The bytes that the supervisor reads, up to the end of the pipe.
    ready: File,
}

impl Supervised {
    fn start(locator: impl FnOnce(&Path) -> Locator) -> Self {
        Self::start_with(locator, |_, command| command)
    }

    /// Starts it by a command that is made of the usual one, and gets its environment.
    fn start_with(
        locator: impl FnOnce(&Path) -> Locator,
        by: impl FnOnce(&Path, Command) -> Command,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (config, fifo) = (directory.path().join("conf"), directory.path().join("ready"));
        let locator = locator(directory.path());
        fs::write(&config, format!("CVMFS_CACHE_PLUGIN_LOCATOR={locator}\n")).expect("a file");
        mkfifo(&fifo, Mode::S_IRWXU).expect("a pipe");
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$0" "$1" 7>"$2" 0<&- 1>&- 2>&-"#]).args([
            &program("store.c", Library::Shared),
            &config,
            &fifo,
        ]);
        let mut command = by(directory.path(), command);
        command.env("__CVMFS_CACHE_EXTERNAL_PIPE_READY__", "7");
        let child = command.spawn().expect("a shell");
        let ready = File::open(&fifo).expect("the other end opens it");
        Self { directory, child, ready }
    }

    fn answer(&mut self) -> u8 {
        let mut byte = [0];
        self.ready.read_exact(&mut byte).expect("an answer");
        byte[0]
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket(directory: &Path) -> Locator {
    Locator::Unix(directory.join("socket"))
}

fn connect(locator: &Locator) -> Client {
    Client::builder().name("test.cern.ch:1").timeout(LIMIT).connect(locator).expect("a session")
}

#[test]
fn a_supervised_plugin_reports_to_its_supervisor_and_ends_with_the_last_connection() {
    let mut plugin = Supervised::start(socket);
    assert_eq!(plugin.answer(), b'C');
    let locator = socket(plugin.directory.path());
    let (first, mut second) = (connect(&locator), connect(&locator));
    second.store(NewUpload::new(id()), "abc").unwrap();
    first.quit().unwrap();
    let reload = second.announce_reload().unwrap();
    let mut second = Client::finish_reload(reload).unwrap();
    assert_eq!(second.read(&id(), 0, 3).unwrap(), "abc");
    second.close(&id()).unwrap();
    second.quit().unwrap();
    assert_eq!(plugin.wait().code(), Some(0));
    assert!(!plugin.directory.path().join("socket").exists());
}

#[test]
fn descriptors_0_to_2_that_the_client_closed_are_open_on_dev_null() {
    let mut plugin = Supervised::start(socket);
    assert_eq!(plugin.answer(), b'C');
    for descriptor in 0..3 {
        let link = format!("/proc/{}/fd/{descriptor}", plugin.child.id());
        assert_eq!(fs::read_link(link).unwrap(), PathBuf::from("/dev/null"));
    }
    connect(&socket(plugin.directory.path())).quit().unwrap();
    assert_eq!(plugin.wait().code(), Some(0));
}

#[test]
fn without_dev_null_descriptors_0_to_2_are_no_connections_either() {
    // A container or a chroot(2) without /dev.
    let mut plugin = Supervised::start_with(socket, |directory, plain| {
        let empty = directory.join("empty");
        fs::create_dir(&empty).expect("a directory");
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if !geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c", r#"mount --bind "$0" /dev && exec "$@""#]).arg(empty);
        command.arg(plain.get_program()).args(plain.get_args());
        command
    });
    assert_eq!(plugin.answer(), b'C');
    for descriptor in 0..3 {
        let link = format!("/proc/{}/fd/{descriptor}", plugin.child.id());
        let target = fs::read_link(link).unwrap().display().to_string();
        assert!(target.starts_with("pipe:"), "{target}");
    }
    connect(&socket(plugin.directory.path())).quit().unwrap();
    assert_eq!(plugin.wait().code(), Some(0));
}

#[test]
fn a_supervised_plugin_whose_socket_is_taken_reports_success_and_exits() {
    let mut first = Supervised::start(socket);
    assert_eq!(first.answer(), b'C');
    let theirs = socket(first.directory.path());
    let mut second = Supervised::start(|_| theirs.clone());
    assert_eq!(second.answer(), b'C');
    assert_eq!(second.wait().code(), Some(1));
    connect(&theirs).quit().unwrap();
    assert_eq!(first.wait().code(), Some(0));
}

#[test]
fn a_supervised_plugin_that_cannot_listen_reports_failure() {
    let mut plugin = Supervised::start(|_| Locator::Unix("/nowhere/at/all/socket".into()));
    assert_eq!(plugin.answer(), b'F');
    assert_eq!(plugin.wait().code(), Some(1));
}

#[test]
fn a_plugin_that_the_system_has_no_threads_for_tells_the_client_and_ends() {
    // Limits do not bind root, and those of another user count that user's processes.
    let is_root = geteuid().is_root();
    let limits = if is_root { 1..=10_u32 } else { 1..=1 };
    let mut answers = Vec::new();
    for limit in limits {
        let user = 58_469 + limit;
        let mut plugin = Supervised::start_with(socket, |directory, plain| {
            let mut command = Command::new("prlimit");
            command.arg(format!("--nproc={limit}:{limit}")).arg("--");
            if is_root {
                chown(directory, Some(user), None).expect("root may");
                for entry in directory.read_dir().expect("a directory") {
                    chown(entry.expect("an entry").path(), Some(user), None).expect("root may");
                }
                command.args(["setpriv", "--clear-groups", &format!("--reuid={user}")]);
            }
            command.arg(plain.get_program()).args(plain.get_args());
            command
        });
        let answer = plugin.answer();
        if answer == b'C' {
            connect(&socket(plugin.directory.path())).quit().expect("it serves");
        }
        assert_eq!(plugin.wait().code(), Some(0));
        assert!(!plugin.directory.path().join("socket").exists());
        answers.push(answer);
    }
    assert_eq!(answers[0], b'F');
    assert!(!is_root || answers.last() == Some(&b'C'), "{answers:?}");
}

#[test]
fn an_exception_in_a_callback_ends_the_process_with_a_message() {
    for library in [Library::Shared, Library::Static] {
        let command = PluginCommand::new(program("store.cpp", library)).option("THROW", "obj_info");
        let mut plugin = command.start().unwrap();
        let mut client = connect(plugin.locator());
        assert!(client.object_info(&id()).is_err());
        let ended = plugin.wait_for(LIMIT).unwrap().unwrap();
        assert_eq!(ended.signal(), Some(6), "{ended}");
        let expected = "libcvmfs_cache: the callback cvmcache_obj_info has thrown an exception";
        assert!(plugin.log().contains(expected), "{}", plugin.log());
    }
}

#[test]
fn a_crash_is_reported_in_the_crash_dump_of_the_watchdog() {
    let directory = tempfile::tempdir().unwrap();
    let dump = directory.path().join("crash");
    let command = PluginCommand::new(program("store.cpp", Library::Shared))
        .option("THROW", "obj_info")
        .option("CVMFS_CACHE_PLUGIN_CRASH_DUMP", dump.to_str().unwrap());
    let mut plugin = command.start().unwrap();
    let (pid, mut client) = (plugin.pid(), connect(plugin.locator()));
    assert!(client.object_info(&id()).is_err());
    assert_eq!(plugin.wait_for(LIMIT).unwrap().unwrap().signal(), Some(6));
    let report = fs::read_to_string(dump).unwrap();
    for expected in ["store.cpp-Shared", &pid.to_string(), "SIGABRT"] {
        assert!(report.contains(expected), "{report} lacks {expected}");
    }
}

/// How many of two callbacks find the other one running.
fn calls_that_meet(command: PluginCommand) -> usize {
    let plugin = command.start().expect("it starts");
    let call = || connect(plugin.locator()).object_info(&id()).is_ok();
    thread::scope(|scope| {
        let calls = [scope.spawn(call), scope.spawn(call)];
        calls.into_iter().filter_map(|call| call.join().ok()).filter(|&met| met).count()
    })
}

#[test]
fn callbacks_run_concurrently_only_if_the_plugin_or_the_environment_allows_it() {
    let program = program("rendezvous.c", Library::Shared);
    let plain = PluginCommand::new(&program);
    assert_eq!(calls_that_meet(plain.clone().option("PATIENCE", "1")), 0);
    assert_eq!(calls_that_meet(plain.option("PATIENCE", "30").option("ALLOW", "yes")), 2);
    let environment =
        format!("env CVMFS_CACHE_PLUGIN_CONCURRENT=yes {} {{conf}}", program.display());
    let environment: PluginCommand = environment.parse().unwrap();
    assert_eq!(calls_that_meet(environment.option("PATIENCE", "30")), 2);
}
