//! The same programs under valgrind: no errors and no leaks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cvmcache_testkit::{PluginCommand, Suite};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::{Mutex, MutexGuard};

use crate::install::{Library, program, run};

/// Cases that list thousands of objects: half a minute each, and other cases cover their calls.
const LONG: [&str; 5] = [
    "list-in-parts",
    "list-concurrent",
    "listing-unfinished",
    "listing-after-its-end",
    "listing-foreign",
];

/// The timeout of a program that takes a few seconds alone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// One at a time: they are the slowest of all tests, and would only slow each other down.
static TURN: Mutex<()> = Mutex::new(());

/// The exit status of valgrind if it has found an error.
const FOUND: i32 = 99;

fn valgrind() -> Vec<String> {
    let suppressions: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/valgrind.supp");
    let mut command: Vec<String> =
        ["valgrind", "--quiet", "--leak-check=full"].map(Into::into).into();
    command.push("--errors-for-leak-kinds=definite,indirect,possible".to_owned());
    command.push("--show-leak-kinds=definite,indirect,possible".to_owned());
    // The watchdog is not under test here.
    command.push("--child-silent-after-fork=yes".to_owned());
    command.push(format!("--error-exitcode={FOUND}"));
    command.push(format!("--suppressions={}", suppressions.display()));
    command
}

#[test]
fn functions_lose_no_memory() {
    let _turn = TURN.lock();
    let directory = tempfile::tempdir().unwrap();
    let words = valgrind();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(program("api.c", Library::Shared)).arg(directory.path());
    run(&mut command, "valgrind");
}

/// The command of a plugin under valgrind, and the lock to be held while it runs. The plugin
/// exits with [`FOUND`] if valgrind has found an error.
pub(crate) fn under_valgrind(source: &str) -> (MutexGuard<'static, ()>, PluginCommand) {
    let turn = TURN.lock();
    run(Command::new("valgrind").arg("--version"), "valgrind");
    let mut words = valgrind();
    words.push(program(source, Library::Shared).display().to_string());
    words.push("{conf}".to_owned());
    let command: PluginCommand = shlex::try_join(words.iter().map(String::as_str))
        .expect("no zero bytes")
        .parse()
        .expect("a command");
    (turn, command.patience(PATIENCE))
}

/// Runs cases against a plugin under valgrind, which then has to end without an error.
fn runs_clean(source: &str, suite: Suite) {
    let (_turn, command) = under_valgrind(source);
    let command = command.option("CVMFS_CACHE_PLUGIN_SIZE", "100");
    let mut plugin = command.start().expect("it starts");
    let suite = suite.may_evict(true).timeout(PATIENCE);
    suite.run(plugin.locator().clone()).expect("it lets clients in").assert_good();
    kill(Pid::from_raw(plugin.pid().cast_signed()), Signal::SIGTERM).expect("it runs");
    let ended = plugin.wait_for(PATIENCE).expect("a child");
    let ended = ended.expect("it ends in time");
    assert_eq!(ended.code(), Some(0), "{ended}\n{}", plugin.log());
}

#[test]
fn valgrind_finds_no_error_in_a_plugin_in_c() {
    let all = Suite::new().hostile(true);
    let names = all.cases().map(|case| case.name()).filter(|name| !LONG.contains(name));
    let suite = names.fold(Suite::new().hostile(true), |suite, name| suite.filter(name));
    runs_clean("store.c", suite);
}

#[test]
fn valgrind_finds_no_error_in_a_plugin_in_cpp() {
    let subjects = ["breadcrumb", "info", "list-pinned", "read-", "ref", "reload", "upload"];
    let suite = subjects.into_iter().fold(Suite::new(), |suite, subject| suite.filter(subject));
    runs_clean("store.cpp", suite);
}
