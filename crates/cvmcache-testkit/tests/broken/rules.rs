//! What the suite itself promises: which cases it runs, which it skips and why, and that a plugin
//! that ends does not end the suite.

use std::panic::catch_unwind;
use std::path::Path;
use std::process;

use cvmcache::plugin::*;
use cvmcache::{
    CachePlugin, Locator, Options, RunningServer, Server, ServerBuilder, ServerHandle, Session,
};
use cvmcache_testkit::{Outcome, PluginCommand, Report, Suite, SuiteError, Target, check};
use tempfile::TempDir;

use super::flaw::Flaw;
use super::memory::Memory;
use super::{failure, skipped, trusting};

#[test]
fn a_name_is_a_few_words_with_hyphens_and_a_meaning_a_sentence() {
    let is_word = |word: &str| {
        let mut letters = word.bytes();
        letters.len() > 0 && letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    for case in Suite::new().hostile(true).cases() {
        assert!(case.name().split('-').all(is_word), "{case:?}");
        assert!(case.name().contains('-'), "{case:?}");
        assert!(case.meaning().starts_with(|first: char| !first.is_lowercase()), "{case:?}");
        assert!(case.meaning().ends_with('.') && !case.meaning().contains("  "), "{case:?}");
    }
}

#[test]
fn no_two_cases_have_the_same_name_or_meaning() {
    let cases = || Suite::new().hostile(true).cases().collect::<Vec<_>>();
    for (at, case) in cases().into_iter().enumerate() {
        for other in &cases()[at + 1..] {
            assert_ne!(case.name(), other.name());
            assert_ne!(case.meaning(), other.meaning());
        }
    }
}

#[test]
fn a_filter_without_a_match_is_an_error_that_names_it() {
    let suite = Suite::new().filter("session-ids").filter("sesion");
    let error = suite.run(Target::plugin(Nothing::new())).unwrap_err();
    assert!(matches!(&error, SuiteError::NoSuchCase(name) if name == "sesion"), "{error}");
    assert!(error.to_string().contains("\"sesion\""), "{error}");
}

#[test]
fn a_case_runs_if_one_of_the_filters_matches() {
    let names = |suite: &Suite| suite.cases().map(|case| case.name()).collect::<Vec<_>>();
    let suite = Suite::new().filter("ioctl").filter("session-q");
    assert_eq!(names(&suite), ["session-quit", "ioctl-silent"]);
    let mut told = Vec::new();
    let tell = |result: &cvmcache_testkit::CaseResult| told.push(result.case.name());
    suite.run_with(Target::plugin(Nothing::new()), tell).unwrap();
    assert_eq!(told, names(&suite));
}

#[test]
fn objects_of_other_clients_are_evicted_only_if_that_is_allowed() {
    let evicting = Suite::new().filter("evict-all").filter("session-ids");
    let running = Elsewhere::start(Server::builder(Memory::sound()));
    let report = evicting.run(running.locator.clone()).unwrap();
    assert!(why_skipped(&report, "evict-all").contains("the cache for itself"), "{report}");
    assert!(report.is_good());
    let report = evicting.clone().may_evict(true).run(running.locator.clone()).unwrap();
    assert_eq!(report.counts(), (2, 0, 0), "{report}");
    let report = evicting.run(Target::plugin(Memory::sound())).unwrap();
    assert_eq!(report.counts(), (2, 0, 0), "{report}");
}

#[test]
fn cases_of_undeclared_capabilities_are_skipped() {
    let missing = Capabilities::SHRINK;
    let plugin = Target::plugin(Memory::sound().without(missing));
    let report = Suite::new().filter("evict-all").run(plugin).unwrap();
    let why = why_skipped(&report, "evict-all");
    assert_eq!(why, format!("the plugin does not declare {missing}"));
    assert!(!report.is_good(), "nothing was tried");
}

#[test]
fn a_cache_that_is_too_large_is_not_filled() {
    let suite = Suite::new().filter("quota").max_fill(1024 * 1024);
    let report = suite.run(Target::plugin(Memory::sound())).unwrap();
    let why = why_skipped(&report, "quota-under-pressure");
    assert!(why.contains("32 MiB") && why.contains("at most 1 MiB"), "{why}");
}

#[test]
fn a_seed_gives_a_case_the_same_objects_whatever_else_is_run() {
    let failed = |suite: Suite| {
        let target = Target::server(trusting(Memory::with(Flaw::Saturates), 0));
        let report = suite.filter("reference-balance").run(target).unwrap();
        failure(&report, "reference-balance").clone()
    };
    let one = failed(Suite::new().seed(1));
    assert_eq!(failed(Suite::new().seed(1)), one);
    assert_eq!(failed(Suite::new().seed(1).filter("object")), one);
    assert_ne!(failed(Suite::new().seed(2)).sent, one.sent);
    assert_ne!(failed(Suite::new()).sent, failed(Suite::new()).sent);
}

#[test]
fn check_returns_if_the_plugin_passes() {
    check(Nothing::new());
}

#[test]
fn check_panics_with_the_report_if_the_plugin_fails() {
    let checked = catch_unwind(|| check(Nothing { knows_everything: true, ..Nothing::new() }));
    let panic = checked.unwrap_err().downcast::<String>().unwrap();
    for part in ["ok      session-ids", "FAILED  object-absent", "expected: NOENTRY", " failed, "] {
        assert!(panic.contains(part), "{part:?} is missing in\n{panic}");
    }
}

#[test]
fn a_plugin_that_runs_elsewhere_and_goes_away_fails_one_case_and_the_rest_is_skipped() {
    let plugin = Nothing { at_long_name: ServerHandle::terminate, ..Nothing::new() };
    let handle = plugin.handle.clone();
    let running = Elsewhere::start(Server::builder(plugin).handle(handle));
    let report = Suite::new().filter("session-").run(running.locator.clone()).unwrap();
    assert!(failure(&report, "session-names").received.contains("cannot connect"), "{report}");
    assert_eq!(skipped(&report), ["session-quit", "session-many"]);
    assert!(why_skipped(&report, "session-quit").starts_with("the plugin is gone: "), "{report}");
}

#[test]
fn a_plugin_that_was_started_and_dies_is_started_anew_for_the_next_case() {
    // This program is the plugin, too: see below.
    let program = std::env::current_exe().unwrap();
    let plugin = "rules::the_process_of_a_plugin_that_dies";
    let words = [program.to_str().unwrap(), "--ignored", "--exact", plugin, "{conf}"];
    let command: PluginCommand = words.join(" ").parse().unwrap();
    let report = Suite::new().filter("session-").run(command).unwrap();
    assert_eq!(report.counts(), (4, 1, 0), "{report}");
    let failure = failure(&report, "session-names");
    assert!(failure.received.contains("closed the connection"), "{report}");
    assert!(failure.received.contains("ended with status 77"), "{report}");
}

#[test]
#[ignore = "another test starts it, in a process of its own"]
fn the_process_of_a_plugin_that_dies() {
    let configuration = std::env::args().next_back().unwrap();
    let Ok(options) = Options::from_file(Path::new(&configuration)) else { return };
    let locator = options.parse_value("CVMFS_CACHE_PLUGIN_LOCATOR").unwrap().unwrap();
    let plugin = Nothing { at_long_name: |_| process::exit(77), ..Nothing::new() };
    Server::builder(plugin).listen(&locator).unwrap().spawn().unwrap().wait().unwrap();
}

/// A plugin without any objects. What it does to itself when a client with a long name asks for
/// one is up to its author.
struct Nothing {
    knows_everything: bool,
    at_long_name: fn(&ServerHandle),
    handle: ServerHandle,
}

impl Nothing {
    fn new() -> Self {
        Self { knows_everything: false, at_long_name: |_| {}, handle: ServerHandle::new() }
    }
}

impl CachePlugin for Nothing {
    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn object_info(&self, session: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
        if session.name().len() == 1000 {
            (self.at_long_name)(&self.handle);
        }
        if self.knows_everything { Ok(ObjectInfo::default()) } else { Err(Status::NoEntry) }
    }

    fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
        Err(Status::NoEntry)
    }
}

/// A plugin that runs whether a suite runs or not.
struct Elsewhere {
    locator: Locator,
    running: Option<RunningServer>,
    _directory: TempDir,
}

impl Elsewhere {
    fn start(builder: ServerBuilder) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let locator = Locator::Unix(directory.path().join("socket"));
        let running = builder.listen(&locator).unwrap().spawn().unwrap();
        Self { locator, running: Some(running), _directory: directory }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.handle().terminate();
        running.wait().unwrap();
    }
}

fn why_skipped<'a>(report: &'a Report, case: &str) -> &'a str {
    let result = report.results().iter().find(|result| result.case.name() == case).unwrap();
    match &result.outcome {
        Outcome::Skipped(why) => why,
        _ => panic!("{case} should have been skipped\n{report}"),
    }
}
