//! The suite against plugins that are broken, each in one way: the cases that are about it have to
//! say so, by name.
//!
//! What the SDK leaves to plugins is broken in a small cache (`memory.rs`); what it does not let
//! them do, by a man in the middle (`meddler.rs`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod flaw;
mod meddler;
mod memory;
mod rules;
mod state;
mod tamper;

use std::collections::BTreeSet;
use std::time::Duration;

use cvmcache::plugin::Capabilities;
use cvmcache::service::Trust;
use cvmcache::{Limits, Server, ServerBuilder};
use cvmcache_testkit::{Failure, Outcome, Report, Suite, SuiteError, Target};

use flaw::Flaw;
use meddler::Meddler;
use memory::Memory;
use tamper::WireFlaw;

/// How much the cache takes, in bytes: more than the largest object of the suite, and little
/// enough to be filled often.
const SIZE: u64 = 32 * 1024 * 1024;

/// How large a part is, in bytes.
const PART: usize = 64 * 1024;

/// How long a plugin may be silent that is to be caught by its silence.
const SHORT: Duration = Duration::from_millis(500);

/// What a plugin may leave undeclared. Without reference counts, opening is still answered.
const OPTIONAL: [Capabilities; 5] = [
    Capabilities::WRITE,
    Capabilities::INFO,
    Capabilities::SHRINK,
    Capabilities::LIST,
    Capabilities::BREADCRUMB,
];

#[test]
fn a_plugin_without_flaws_passes_every_case_that_applies() {
    for workers in [0, 2] {
        let report = Suite::new().run(Target::server(trusting(Memory::sound(), workers))).unwrap();
        report.assert_good();
        assert_eq!(skipped(&report), ["capability-undeclared"], "{report}");
    }
}

#[test]
fn an_unchanged_wire_passes_every_case_that_applies() {
    let meddler = Meddler::start(served(Memory::sound(), 0), None);
    passes_through(&meddler);
}

#[test]
fn an_unchanged_wire_passes_every_case_that_applies_with_workers() {
    let meddler = Meddler::start(served(Memory::sound(), 2), None);
    passes_through(&meddler);
}

#[test]
fn a_plugin_without_reference_counts_passes_every_case_that_applies() {
    // Without listings, too, which have nothing to do with it and take long.
    let plugin = Memory::sound().without(Capabilities::REFCOUNT).without(Capabilities::LIST);
    Suite::new().run(Target::server(served(plugin, 0))).unwrap().assert_good();
}

#[test]
fn an_undeclared_capability_may_be_missing() {
    for missing in OPTIONAL {
        let suite = Suite::new().filter("capability-undeclared");
        let plugin = Memory::sound().without(missing);
        suite.run(Target::server(served(plugin, 0))).unwrap().assert_good();
    }
}

#[test]
fn each_flaw_of_a_plugin_fails_its_case() {
    let runs = flaw::TABLE.iter().flat_map(|(flaw, cases)| {
        cases.iter().map(move |case| (format!("{flaw:?}"), *case, run(*flaw, case)))
    });
    assert_caught(runs);
}

#[test]
fn each_flaw_on_the_wire_fails_its_case() {
    let runs = tamper::TABLE.iter().flat_map(|(flaw, cases)| {
        cases.iter().map(move |case| (format!("{flaw:?}"), *case, run_on_wire(*flaw, case)))
    });
    assert_caught(runs);
}

#[test]
fn an_undeclared_capability_that_works_fails_a_case() {
    for missing in OPTIONAL {
        let plugin = served(Memory::sound().without(missing), 0);
        let meddler = Meddler::start(plugin, Some(WireFlaw::GrantsUndeclared));
        let report = through(&meddler, "capability-undeclared");
        let failure = failure(&report, "capability-undeclared");
        assert_eq!(failure.expected, "NOSUPPORT", "{missing}: {report}");
    }
}

#[test]
fn every_case_catches_a_flaw() {
    let by_plugins = flaw::TABLE.iter().flat_map(|(_, cases)| *cases);
    let by_wire = tamper::TABLE.iter().flat_map(|(_, cases)| *cases);
    let catching: BTreeSet<&str> = by_plugins.chain(by_wire).copied().collect();
    let all: BTreeSet<&str> = Suite::new().cases().map(|case| case.name()).collect();
    let idle: Vec<_> = all.difference(&catching).collect();
    assert!(idle.is_empty(), "no flaw in the tables is there for {idle:?}: add one for each");
    let unknown: Vec<_> = catching.difference(&all).collect();
    assert!(unknown.is_empty(), "the tables name cases that there are not: {unknown:?}");
}

#[test]
fn a_handshake_that_clients_refuse_is_an_error_before_any_case() {
    let mut limits = Limits::default();
    limits.max_object_size = PART as u32;
    let plugin = Server::builder(Memory::sound()).limits(limits);
    let meddler = Meddler::start(plugin, Some(WireFlaw::AlwaysSmallParts));
    let error = Suite::new().run(meddler.locator().clone()).unwrap_err();
    assert!(matches!(error, SuiteError::Client(_)), "{error}");
    assert!(error.to_string().contains("max_object_size is 4095"), "{error}");
}

#[test]
fn failures_name_objects_offsets_and_the_steps_before() {
    let seeded = |flaw, case| {
        let target = Target::server(trusting(Memory::with(flaw), 0));
        let report = Suite::new().seed(1).filter(case).run(target).unwrap();
        failure(&report, case).clone()
    };

    let closed = seeded(Flaw::Saturates, "reference-balance");
    let id = closed.sent.strip_prefix("refcount -1 of ").unwrap();
    assert!(id.parse::<cvmcache::plugin::ObjectId>().is_ok(), "{closed}");
    assert_eq!((&*closed.expected, &*closed.received), ("BADCOUNT", "OK"));
    let before = format!("refcount -1 of {id} → OK");
    assert_eq!(closed.before[1..], [format!("store {id} (100 bytes) → OK"), before]);

    let read = seeded(Flaw::OffByOneAtParts, "object-sizes");
    assert_eq!(read.expected, "OK: 65537 bytes, as they were stored");
    assert_eq!(read.received, "OK: 65537 bytes, wrong from byte 65536 on");

    let listed = seeded(Flaw::LossyDescriptions, "list-descriptions");
    assert!(listed.expected.contains(r"caf\xe9"), "{listed}");
    assert!(listed.received.contains(r"caf\xef\xbf\xbd"), "{listed}");

    let info = seeded(Flaw::StaysPinned, "info-pinned");
    assert_eq!((&*info.sent, &*info.expected), ("info", "OK, with pinned = 0"));
    assert!(info.received.contains("pinned_bytes: 100000"), "{info}");

    let meddler = Meddler::start(served(Memory::sound(), 0), Some(WireFlaw::AnswersIoctls));
    let report = through(&meddler, "ioctl-silent");
    let silent = failure(&report, "ioctl-silent");
    assert_eq!(silent.expected, "one reply to each request");
    assert_eq!(silent.received, "2 more replies than requests");
}

/// The cache, served as clients find it.
fn served(plugin: Memory, workers: usize) -> ServerBuilder {
    let mut limits = Limits::default();
    limits.max_object_size = PART as u32;
    let handle = plugin.handle();
    Server::builder(plugin).handle(handle).limits(limits).workers(workers)
}

/// The cache, served so that the counts of references are left to it.
fn trusting(plugin: Memory, workers: usize) -> ServerBuilder {
    let mut trust = Trust::default();
    trust.foreign_references = true;
    served(plugin, workers).trust(trust)
}

fn run(flaw: Flaw, case: &str) -> Report {
    // Without workers, a slow callback blocks all others.
    let is_slow = matches!(flaw, Flaw::OneSlowUploadAtATime | Flaw::OneSlowUploadOfAnObject);
    let workers = if is_slow { 2 } else { 0 };
    let target = Target::server(trusting(Memory::with(flaw), workers));
    Suite::new().filter(case).run(target).unwrap()
}

fn run_on_wire(flaw: WireFlaw, case: &str) -> Report {
    let is_undeclared = matches!(flaw, WireFlaw::GrantsUndeclared | WireFlaw::IgnoresUndeclared);
    let missing = if is_undeclared { Capabilities::INFO } else { Capabilities::NONE };
    let plugin = served(Memory::sound().without(missing), 0);
    let meddler = Meddler::start(plugin, Some(flaw));
    if flaw.is_silent() {
        let suite = Suite::new().filter(case).timeout(SHORT);
        return suite.run(meddler.locator().clone()).unwrap();
    }
    through(&meddler, case)
}

fn through(meddler: &Meddler, case: &str) -> Report {
    let suite = Suite::new().filter(case).may_evict(true);
    suite.run(meddler.locator().clone()).unwrap()
}

#[track_caller]
fn passes_through(meddler: &Meddler) {
    let report = Suite::new().may_evict(true).run(meddler.locator().clone()).unwrap();
    report.assert_good();
    assert_eq!(skipped(&report), ["capability-undeclared"], "{report}");
}

fn skipped(report: &Report) -> Vec<&'static str> {
    let results = report.results().iter();
    let skipped = results.filter(|result| matches!(result.outcome, Outcome::Skipped(_)));
    skipped.map(|result| result.case.name()).collect()
}

fn failure<'a>(report: &'a Report, case: &str) -> &'a Failure {
    let found = report.failures().find(|(result, _)| result.case.name() == case);
    found.unwrap_or_else(|| panic!("{case} should have failed\n{report}")).1
}

/// Each of the runs has the case fail.
fn assert_caught(runs: impl Iterator<Item = (String, &'static str, Report)>) {
    let is_caught = |report: &Report, case: &str| {
        report.failures().any(|(result, _)| result.case.name() == case)
    };
    let missed: Vec<_> = runs
        .filter(|(_, case, report)| !is_caught(report, case))
        .map(|(flaw, case, report)| format!("{case} does not catch {flaw}\n{report}\n"))
        .collect();
    assert!(missed.is_empty(), "{}", missed.concat());
}
