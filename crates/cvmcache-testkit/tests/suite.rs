//! The conformance suite against the plugins that have to pass it.

use std::path::PathBuf;

use cvmcache_testkit::{Outcome, PluginCommand, Report, Suite};

fn program(name: &str) -> PathBuf {
    let build = match name {
        "ram" => escargot::CargoBuild::new().package("cvmcache-ram").bin("cvmcache-ram"),
        name => escargot::CargoBuild::new().package("cvmcache").example(name),
    };
    build.run().expect("cargo builds it").path().to_owned()
}

fn check(name: &str, workers: &str, tcp: bool) -> Report {
    let command = PluginCommand::new(program(name))
        .option("CVMFS_CACHE_PLUGIN_SIZE", "100")
        .option("CVMFS_CACHE_PLUGIN_WORKERS", workers);
    let command = if tcp { command.tcp() } else { command };
    let report = Suite::new().hostile(true).run(command).expect("it starts");
    report.assert_good();
    report
}

fn skipped(report: &Report) -> Vec<&'static str> {
    let is_skipped =
        |result: &&cvmcache_testkit::CaseResult| matches!(result.outcome, Outcome::Skipped(_));
    report.results().iter().filter(is_skipped).map(|result| result.case.name()).collect()
}

#[test]
fn the_ram_cache_passes_every_case_that_applies() {
    let report = check("ram", "0", false);
    assert_eq!(skipped(&report), ["capability-undeclared"]);
}

#[test]
fn the_ram_cache_passes_with_workers() {
    let report = check("ram", "2", false);
    assert_eq!(skipped(&report), ["capability-undeclared"]);
}

#[test]
fn the_ram_cache_passes_on_tcp() {
    let report = check("ram", "0", true);
    assert_eq!(skipped(&report), ["capability-undeclared"]);
}

#[test]
fn the_ram_cache_passes_on_tcp_with_workers() {
    let report = check("ram", "2", true);
    assert_eq!(skipped(&report), ["capability-undeclared"]);
}

/// The cases that are skipped for a step of the tutorial's plugin; it passes all others.
fn skipped_by_step(name: &str) -> Vec<&'static str> {
    let directory = tempfile::tempdir().expect("a directory");
    let command = PluginCommand::new(program(name))
        .option("CVMFS_CACHE_PLUGIN_SIZE", "100")
        .option("CVMFS_CACHE_PLUGIN_DIRECTORY", directory.path().display().to_string());
    let report = Suite::new().hostile(true).run(command).expect("it starts");
    report.assert_good();
    skipped(&report)
}

#[test]
fn the_first_steps_of_the_tutorial_pass_every_case_that_applies() {
    assert!(skipped_by_step("directory-reading").contains(&"object-stored"));
    let skipped = skipped_by_step("directory-storing");
    assert!(skipped.contains(&"quota-under-pressure") && !skipped.contains(&"object-stored"));
}

#[test]
fn the_plugin_of_the_tutorial_passes_every_case_that_applies() {
    let not_declared = [
        "breadcrumb-absent",
        "breadcrumb-kept",
        "breadcrumb-replaced",
        "breadcrumb-names",
        "detach-reaches-all",
        "text-long-repository-name",
    ];
    assert_eq!(skipped_by_step("directory"), not_declared);
}

#[test]
fn a_cache_without_a_limit_passes_every_case_that_does_not_fill_it() {
    let report = check("null", "0", false);
    let fill = [
        "capability-undeclared",
        "quota-under-pressure",
        "quota-all-pinned",
        "detach-reaches-all",
        "disconnect-uploads",
    ];
    assert_eq!(skipped(&report), fill);
}
