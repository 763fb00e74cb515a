//! Plugins that the system has too little for when they start: they say which limit it is and what to do,
//! tell the client that waits, and end with status 1. None panics.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use support::plugin::{Plugin, Supervised};

/// A user without any other process, which a limit on processes would count. Limits do not bind root.
fn user() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(59_469);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A configuration with which a plugin starts about as many threads, and opens as many files, as it can.
fn lines(plugin: &Plugin) -> String {
    format!(
        "CVMFS_CACHE_PLUGIN_WORKERS=2\nCVMFS_CACHE_PLUGIN_METRICS=127.0.0.1:0\n\
         CVMFS_CACHE_PLUGIN_DEBUGLOG={}\n",
        plugin.path("debug.log").display()
    )
}

/// The same command under a limit of `prlimit`, as a user that is bound by it, but for its standard
/// descriptors. What is in the directory is that user's.
fn limited(plain: &Command, limit: &str, directory: &Path) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(limit).arg("--");
    if geteuid().is_root() {
        let user = user();
        chown(directory, Some(user), None).expect("root may");
        for entry in directory.read_dir().expect("a directory") {
            chown(entry.expect("an entry").path(), Some(user), None).expect("root may");
        }
        command.args(["setpriv", "--clear-groups", &format!("--reuid={user}")]);
    }
    command.arg(plain.get_program()).args(plain.get_args());
    let variables = plain.get_envs();
    command.envs(variables.filter_map(|(key, value)| value.map(|value| (key, value))));
    command
}

/// Starts a plugin by hand under a limit. Returns what it says if it does not serve, and then its status
/// is 1.
fn start(limit: &str) -> Option<String> {
    let mut plugin = Plugin::new("ram");
    let config = plugin.configure(&lines(&plugin));
    let plain = plugin.command(&[config.as_ref()]);
    let mut command = limited(&plain, limit, plugin.directory.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = plugin.spawn(&mut command);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut greeting = String::new();
    let mut stdout = BufReader::new(stdout.expect("piped"));
    stdout.read_line(&mut greeting).expect("text");
    if greeting.contains("serves CernVM-FS clients") {
        plugin.client().quit().expect("it serves");
        plugin.signal(Signal::SIGTERM);
        assert_eq!(plugin.wait(), 0, "{limit}");
    }
    let mut said = String::new();
    stderr.expect("piped").read_to_string(&mut said).expect("text");
    assert!(!said.contains("panicked"), "{limit}: {said}");
    if !greeting.is_empty() {
        return None;
    }
    assert_eq!(plugin.wait(), 1, "{limit}: {said}");
    assert!(!plugin.path("socket").exists(), "{limit}: {said}");
    Some(said)
}

/// Starts a plugin as a client does, under a limit; false if it does not serve.
fn start_supervised(limit: &str) -> bool {
    let plugin = Plugin::new("ram");
    let directory = plugin.directory.path().to_owned();
    let config = plugin.configure(&lines(&plugin));
    let mut supervised = Supervised::start_with(plugin, &config, |command| {
        *command = limited(command, limit, &directory);
    });
    match supervised.answer() {
        Some(b'C') => {
            supervised.plugin.client().quit().expect("it serves");
            assert_eq!(supervised.plugin.wait(), 0, "{limit}");
            true
        }
        answer => {
            assert_eq!((answer, supervised.plugin.wait()), (Some(b'F'), 1), "{limit}");
            false
        }
    }
}

/// Starts plugins under `--RESOURCE=LIMIT` with higher and higher limits, until two of them serve. What
/// the others say has to have all of `expected`.
fn start_with_more_and_more(resource: &str, from: u32, expected: &[&str]) {
    let (mut failed, mut served) = (0, 0);
    for limit in from.. {
        let limit = format!("--{resource}={limit}:{limit}");
        match start(&limit) {
            Some(said) => {
                for expected in expected {
                    assert!(said.contains(expected), "{limit}: {said} lacks {expected}");
                }
                failed += 1;
            }
            None => served += 1,
        }
        if served == 2 {
            break;
        }
    }
    assert!(failed > 0);
}

#[test]
fn a_plugin_that_cannot_start_a_thread_says_which_limit_to_raise_and_tells_the_client() {
    let expected = ["cannot start the thread ", "ulimit -u", "raise it"];
    if geteuid().is_root() {
        start_with_more_and_more("nproc", 1, &expected);
        let served = (1..64).step_by(3).find(|limit| {
            let limit = format!("--nproc={limit}:{limit}");
            start_supervised(&limit)
        });
        assert!(served.is_some_and(|limit| limit > 1));
    } else {
        // The limit counts all processes of the user, of which there are more.
        let said = start("--nproc=1:1").expect("it does not serve");
        assert!(expected.iter().all(|expected| said.contains(expected)), "{said}");
        assert!(!start_supervised("--nproc=1:1"));
    }
}

#[test]
fn a_plugin_that_cannot_open_a_descriptor_says_which_limit_to_raise_and_tells_the_client() {
    // The loader of the system needs one for libraries.
    start_with_more_and_more("nofile", 4, &["ulimit -Hn", "raise it"]);
    // The ready pipe is descriptor 7, and the shell that opens it wants some more for itself.
    let served = (16..128).step_by(3).find(|limit| {
        let limit = format!("--nofile={limit}:{limit}");
        start_supervised(&limit)
    });
    assert!(served.is_some_and(|limit| limit > 16));
}
