//! The soak program, for a few seconds, against the RAM cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Cargo builds tests of examples with the tests, but not programs.
fn ram() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let build = escargot::CargoBuild::new().package("cvmcache").example("ram").current_target();
        build.run().expect("cargo builds it").path().to_owned()
    })
}

fn soak(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cvmcache-soak"));
    command.args(arguments).output().expect("a process")
}

fn soak_ram(workers: &str) {
    let ram = ram().to_str().expect("a path that is text");
    let few = ["--clients", "6", "--seconds", "5", "--size-mb", "100"];
    let output = soak(&[&["--plugin", ram, "--workers", workers], &few[..]].concat());
    let summary = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{summary}{complaint}");
    assert!(summary.contains("all promises were kept"), "{summary}{complaint}");
}

#[test]
fn the_ram_cache_keeps_its_promises_without_workers() {
    soak_ram("0");
}

#[test]
fn the_ram_cache_keeps_its_promises_with_workers() {
    soak_ram("2");
}

#[test]
fn a_plugin_that_breaks_a_promise_is_found_out() {
    let ram = ram().to_str().expect("a path that is text");
    // No cache of this size can do with this little.
    let no_slack = ["--size-mb", "100", "--slack-mb", "0", "--seconds", "1", "--clients", "2"];
    let output = soak(&[&["--plugin", ram], &no_slack[..]].concat());
    let summary = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{summary}");
    assert!(summary.contains("BROKEN") && summary.contains("repeat with --seed"), "{summary}");
}

#[test]
fn wrong_usage_is_told_from_a_broken_promise() {
    for arguments in [
        &[][..],
        &["--plugin", "/nowhere/to/be/found"],
        &["--locator", "unix=/nowhere/to/be/found"],
        &["--plugin", "/bin/true"],
        &["--plugin", "x", "--clients", "0"],
    ] {
        let output = soak(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_has_examples() {
    let output = soak(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(help.contains("Examples:") && help.contains("Exit status:"), "{help}");
    assert!(!help.contains("milliseconds"), "the client is nobody's business: {help}");
}
