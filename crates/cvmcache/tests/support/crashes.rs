//! A process of the plugin that crashes on command, and its crash dump.

#![allow(dead_code, unreachable_pub, reason = "not every test has crashes")]

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{ChildStderr, Command};
use std::time::Instant;

use cvmcache::client::Client;
use nix::sys::signal::Signal;

use super::id;
use super::plugin::{LIMIT, Plugin};

/// A plugin with a crash dump and without gdb, which crashes on command.
pub struct Crashing {
    pub plugin: Plugin,
    pub dump: PathBuf,
}

impl Crashing {
    pub fn new() -> Self {
        let plugin = Plugin::new("crashing");
        Self { dump: plugin.path("dump"), plugin }
    }

    pub fn start(lines: &str) -> Self {
        let mut this = Self::new();
        let mut command = this.command(lines);
        this.spawn(&mut command);
        this
    }

    pub fn command(&self, lines: &str) -> Command {
        let dump = format!("CVMFS_CACHE_PLUGIN_CRASH_DUMP={}\n", self.dump.display());
        let config = self.plugin.configure(&(dump + lines));
        let mut command = self.plugin.command(&[config.as_ref()]);
        command.env("PATH", "/nowhere").current_dir(self.plugin.directory.path());
        command
    }

    /// Waits until it serves.
    pub fn spawn(&mut self, command: &mut Command) {
        self.plugin.spawn_until_it_serves(command);
    }

    pub fn pid(&self) -> i32 {
        self.plugin.pid().as_raw()
    }

    pub fn watchdog(&self) -> i32 {
        watchdog_of(self.pid())
    }

    pub fn send_command(&self, what: u8) {
        send_command(&mut self.plugin.client(), what);
    }

    /// Sends the command to crash, and waits for the end.
    pub fn crash(&mut self, what: u8) -> Signal {
        let begun = Instant::now();
        self.send_command(what);
        let signal = self.plugin.wait_for_signal();
        assert!(begun.elapsed() < LIMIT, "it ended {:?} later", begun.elapsed());
        signal
    }

    pub fn dump(&self) -> String {
        fs::read_to_string(&self.dump).expect("a dump")
    }

    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.plugin.child.as_mut().expect("it was started").stderr.take()
    }
}

/// The reply does not matter, if there is one.
pub fn send_command(client: &mut Client, what: u8) {
    let _ = client.read(&id(what), 0, 3);
}

pub fn children(parent: i32) -> Vec<i32> {
    let entries =
        fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let processes = entries.filter_map(|name| name.to_str()?.parse().ok());
    let is_child = |&process: &i32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        fields.split(' ').nth(1).is_some_and(|field| field == parent.to_string())
    };
    processes.filter(is_child).collect()
}

/// Whether it runs, or its parent has not waited for it. Some first processes of a
/// container take their time for that, which is not our doing.
pub fn is_there(process: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    match (fields.next(), fields.next()) {
        (Some("Z" | "X"), Some(parent)) => parent != "1",
        (Some(state), Some(_)) => !state.is_empty(),
        _ => false,
    }
}

pub fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

/// The process that watches it.
pub fn watchdog_of(process: i32) -> i32 {
    let [watchdog] = children(process)[..] else { panic!("not one child") };
    let name = fs::read_to_string(format!("/proc/{watchdog}/comm")).unwrap_or_default();
    assert_eq!(name, "watchdog\n");
    watchdog
}

/// What is on standard error, to its end: of the plugin and of the watchdog.
pub fn read_to_end(stderr: Option<ChildStderr>) -> String {
    let mut said = String::new();
    stderr.expect("piped").read_to_string(&mut said).expect("text");
    said
}
