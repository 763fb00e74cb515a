//! `cvmcache soak`, for a few seconds, against the RAM cache.

mod support;

use support::{cvmcache, ram, start_ram};

fn soak(arguments: &[&str]) -> snapbox::cmd::OutputAssert {
    let ram = ram().display().to_string();
    cvmcache(
        &[&["soak", "--spawn", &ram, "--set", "CVMFS_CACHE_PLUGIN_SIZE=100"], arguments].concat(),
    )
    .assert()
}

fn soak_ram(workers: &str) {
    let workers = format!("CVMFS_CACHE_PLUGIN_WORKERS={workers}");
    soak(&["--set", &workers, "--clients", "6", "--seconds", "5"])
        .success()
        .stdout_eq("...\nno violations (seed [..])\n");
}

#[test]
fn the_ram_cache_has_no_violations_without_workers() {
    soak_ram("0");
}

#[test]
fn the_ram_cache_has_no_violations_with_workers() {
    soak_ram("2");
}

#[test]
fn a_violation_is_printed_and_the_exit_status_is_1() {
    // A cache of this size always needs some memory besides.
    soak(&["--slack-mb", "0", "--seconds", "1", "--clients", "2"]).code(1).stdout_eq(
        "...\nVIOLATION    expected at most 100 MiB of memory[..]\n...\n[..]repeat with --seed [..]\n",
    );
}

#[test]
fn a_soak_test_without_evict_keeps_the_objects_of_a_running_plugin() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    cvmcache(&["soak", &locator]).assert().code(2).stdout_eq("").stderr_eq(
        "cvmcache: unix=[..]/socket would lose its objects: add --evict if no client needs them\n",
    );
    let short = ["soak", &locator, "--evict", "--seconds", "1", "--clients", "2"];
    cvmcache(&short).assert().success();
}

#[test]
fn the_command_for_client_processes_is_hidden() {
    let help = cvmcache(&["help"]).assert().success();
    let help = String::from_utf8_lossy(&help.get_output().stdout).into_owned();
    assert!(help.contains("soak") && !help.contains("soak-client"), "{help}");
}
