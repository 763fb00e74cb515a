//! The configuration files of a client and a plugin, for `cvmcache doctor` to check.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use cvmcache::Locator;
use nix::unistd::geteuid;
use snapbox::cmd::Command;
use tempfile::TempDir;

use super::cvmcache;

/// What is to be found where nothing is wrong: tests are in a temporary directory, and most have no
/// plugin that runs, and a program that cannot be asked.
pub const USUAL: [&str; 4] =
    ["plugin-without-check", "plugin-not-asked", "socket-directory-not-kept", "plugin-not-started"];

/// A client and a plugin that fit, in a directory that all users can write to.
pub struct Site {
    pub directory: TempDir,
    pub client: String,
    pub plugin: String,
    pub arguments: Vec<String>,
    /// Whose permissions count.
    pub user: String,
}

impl Site {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o1777)).expect("a mode");
        let path = directory.path().display().to_string();
        let site = Self {
            client: format!(
                "CVMFS_CACHE_PRIMARY=ram\n\
                 CVMFS_CACHE_ram_TYPE=external\n\
                 CVMFS_CACHE_ram_CMDLINE={path}/program,{path}/plugin.conf\n\
                 CVMFS_CACHE_ram_LOCATOR=unix={path}/socket\n"
            ),
            plugin: format!(
                "CVMFS_CACHE_PLUGIN_LOCATOR=unix={path}/socket\nCVMFS_CACHE_PLUGIN_SIZE=100\n"
            ),
            arguments: Vec::new(),
            user: geteuid().to_string(),
            directory,
        };
        fs::write(site.path("program"), "#!/bin/sh\n").expect("a file");
        site.mode("program", 0o755);
        site
    }

    /// A site whose plugin runs at this locator, in a directory of the plugin's own.
    pub fn around(locator: &Locator) -> Self {
        let mut site = Self::new();
        let Locator::Unix(path) = locator else { panic!("{locator} is no path") };
        fs::set_permissions(path.parent().expect("a directory"), Permissions::from_mode(0o1777))
            .expect("a mode");
        let usual = format!("unix={}", site.path("socket").display());
        site.client = site.client.replace(&usual, &locator.to_string());
        site.plugin = site.plugin.replace(&usual, &locator.to_string());
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).expect("a mode");
    }

    /// Has the configurations written, unless a test has put something else there.
    pub fn write(&self) {
        for (name, text) in [("default.local", &self.client), ("plugin.conf", &self.plugin)] {
            if !self.path(name).exists() {
                fs::write(self.path(name), text).expect("a file");
                self.mode(name, 0o644);
            }
        }
    }

    pub fn doctor(&self, more: &[&str]) -> Command {
        self.write();
        let client = self.path("default.local");
        let usual = ["doctor", client.to_str().expect("UTF-8"), "--user", &self.user];
        let arguments = usual.into_iter().chain(self.arguments.iter().map(String::as_str));
        cvmcache(&arguments.chain(more.iter().copied()).collect::<Vec<_>>())
    }

    /// The names of all findings, and the exit status.
    pub fn findings(&self) -> (Vec<String>, i32) {
        let output = self.doctor(&["--json"]).output().expect("a process");
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let names = list.as_array().expect("a list").iter().map(|finding| {
            assert!(!finding["remedy"].as_str().expect("a text").is_empty());
            finding["name"].as_str().expect("a text").to_owned()
        });
        (names.collect(), output.status.code().expect("no signal"))
    }

    /// Asserts that there is this finding, and no other that matters.
    pub fn assert_finds(&self, name: &str) {
        let (mut names, status) = self.findings();
        names.retain(|found| found == name || !USUAL.contains(&found.as_str()));
        assert_eq!(names, [name]);
        let output = self.doctor(&[]).output().expect("a process");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let is_error = text.contains(&format!("  error    {name}: "));
        assert!(is_error || text.contains(&format!(" {name}: ")), "{text}");
        assert_eq!(status, i32::from(is_error), "{text}");
        assert_eq!(output.status.code(), Some(status), "{text}");
    }

    pub fn replace_in_client(&mut self, old: &str, new: &str) {
        assert!(self.client.contains(old), "{old}");
        self.client = self.client.replace(old, new);
    }

    pub fn replace_in_plugin(&mut self, old: &str, new: &str) {
        assert!(self.plugin.contains(old), "{old}");
        self.plugin = self.plugin.replace(old, new);
    }
}
