//! The program under test, and plugins for it.

#![allow(dead_code, unreachable_pub, reason = "every test uses a part of it")]

pub mod c_plugin;
#[allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
pub mod shelf;
pub mod shell;
pub mod site;
#[allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
pub mod terminal;

use std::path::PathBuf;
use std::sync::OnceLock;

use cvmcache_testkit::{PluginCommand, PluginProcess};
use snapbox::cmd::{Command, cargo_bin};

/// The program with these arguments, without the environment of the test runner.
pub fn cvmcache(arguments: &[&str]) -> Command {
    let command = Command::new(cargo_bin!("cvmcache")).args(arguments);
    command.env_remove("CVMCACHE_LOCATOR").env_remove("CLICOLOR_FORCE").env("COLUMNS", "100")
}

/// The program of the package of this name. Cargo builds no programs of other packages for tests.
pub fn program(name: &str) -> PathBuf {
    let build = escargot::CargoBuild::new().package(name).bin(name);
    build.run().expect("cargo builds it").path().to_owned()
}

/// The program of an example of the SDK.
pub fn example(name: &str) -> PathBuf {
    let build = escargot::CargoBuild::new().package("cvmcache").example(name);
    build.run().expect("cargo builds it").path().to_owned()
}

/// The program of the RAM cache.
pub fn ram() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| program("cvmcache-ram")).clone()
}

/// A RAM cache of 100 MB with a process and a unix socket of its own.
pub fn start_ram() -> PluginProcess {
    let command = PluginCommand::new(ram()).option("CVMFS_CACHE_PLUGIN_SIZE", "100");
    command.start().unwrap_or_else(|error| panic!("{error}"))
}
