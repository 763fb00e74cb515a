//! The conformance suite, hostile cases included, against plugins in C and C++.

use std::time::Duration;

use cvmcache::Locator;
use cvmcache::client::{Client, NewUpload};
use cvmcache_testkit::{Outcome, PluginCommand, PluginProcess, Suite};

use crate::install::{Library, program};

fn start(source: &str, library: Library) -> PluginProcess {
    let command = PluginCommand::new(program(source, library));
    command.option("CVMFS_CACHE_PLUGIN_SIZE", "100").start().expect("it starts")
}

/// Asserts that all cases pass that apply, and that the plugin finds all its transactions and listings ended.
#[track_caller]
fn conforms(source: &str, library: Library, does_not_apply: &[&str]) {
    let plugin = start(source, library);
    let suite = Suite::new().hostile(true).may_evict(true);
    let report = suite.run(plugin.locator().clone()).expect("it lets clients in");
    report.assert_good();
    let skipped = report.results().iter().filter(|r| matches!(r.outcome, Outcome::Skipped(_)));
    let skipped: Vec<_> = skipped.map(|result| result.case.name()).collect();
    assert_eq!(skipped, does_not_apply);
    ends_well(plugin);
}

#[track_caller]
fn ends_well(mut plugin: PluginProcess) {
    nix::sys::signal::kill(pid(&plugin), nix::sys::signal::Signal::SIGTERM).expect("it runs");
    let ended = plugin.wait_for(Duration::from_secs(30)).expect("a child");
    let ended = ended.expect("it ends within 30 s");
    assert_eq!(ended.code(), Some(0), "{ended}\n{}", plugin.log());
}

fn pid(plugin: &PluginProcess) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(plugin.pid().cast_signed())
}

#[test]
fn a_plugin_in_c_conforms_with_the_shared_library() {
    conforms("store.c", Library::Shared, &["capability-undeclared"]);
}

#[test]
fn a_plugin_in_c_conforms_with_the_static_library() {
    conforms("store.c", Library::Static, &["capability-undeclared"]);
}

const NEEDS_A_LIMIT: [&str; 5] = [
    "capability-undeclared",
    "quota-under-pressure",
    "quota-all-pinned",
    "detach-reaches-all",
    "disconnect-uploads",
];

#[test]
fn a_plugin_in_cpp_conforms_with_the_shared_library() {
    conforms("store.cpp", Library::Shared, &NEEDS_A_LIMIT);
}

#[test]
fn a_plugin_in_cpp_conforms_with_the_static_library() {
    conforms("store.cpp", Library::Static, &NEEDS_A_LIMIT);
}

#[test]
fn callbacks_of_undeclared_capabilities_are_not_called() {
    let program = program("store.cpp", Library::Shared);
    let plugin = PluginCommand::new(program).option("READ_ONLY", "yes").start().expect("it starts");
    let suite = Suite::new().filter("capability-undeclared");
    let report = suite.run(plugin.locator().clone()).expect("it lets clients in");
    // Any other call would be one of NULL.
    report.assert_good();
    ends_well(plugin);
}

#[test]
fn references_of_a_session_end_with_it() {
    let plugin = start("store.c", Library::Shared);
    let mut client = connect(plugin.locator());
    let id = "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33".parse().expect("an id");
    client.store(NewUpload::new(id), "abc").expect("it is stored");
    client.open(&id).expect("it is there");
    let mut left = connect(plugin.locator());
    left.open(&id).expect("it is there");
    // Neither of them closes what it has open, and one does not even quit.
    drop(left);
    client.quit().expect("it is connected");
    ends_well(plugin);
}

fn connect(locator: &Locator) -> Client {
    Client::connect(locator, "test.cern.ch:c").expect("a session")
}
