//! What clients store is written to the store, too, if that is configured.

use std::thread;
use std::time::Duration;

use cvmcache::plugin::Status;
use cvmcache_disk::DiskCache;

use super::store::Fault;
use super::{Test, id};
use crate::config::{ErrorPolicy, WritePolicy};
use crate::markers::State;
use crate::tiered::Tiered;

/// Until the queue is empty.
fn wait(cache: &Tiered<DiskCache>) {
    while cache.write_back.len_and_refused().0 > 0 {
        thread::yield_now();
    }
}

#[test]
fn objects_are_written_through_before_the_commit_is_answered_and_stay_here() {
    let mut test = Test::new();
    test.config.write = WritePolicy::Through;
    let cache = test.start();
    test.store(&cache, &id(1), b"both");
    assert_eq!(test.store.len(), 1);
    assert_eq!(test.state(&cache, &id(1)), Some(State::Local));
    assert!(test.is_local(&cache, &id(1)));
}

#[test]
fn a_store_that_fails_is_no_matter_for_a_commit_unless_that_is_configured() {
    let mut test = Test::new();
    test.config.write = WritePolicy::Through;
    let cache = test.start();
    test.store.fail(Fault::Unavailable);
    test.store(&cache, &id(1), b"here");
    assert_eq!(test.read(&cache, &id(1)).unwrap(), b"here");
    test.store.fail(None);
    wait(&cache);
    assert_eq!(test.state(&cache, &id(1)), Some(State::Local), "it was written later");
    drop(cache);

    test.config.errors = ErrorPolicy::Fail;
    let cache = test.start();
    test.store.fail(Fault::Unavailable);
    assert_eq!(test.store_open(&cache, &id(2), b"not here"), Err(Status::IoErr));
    assert_eq!(test.read(&cache, &id(2)), Err(Status::NoEntry));
}

#[test]
fn objects_are_written_back_and_a_restart_goes_on_with_those_that_were_not() {
    let mut test = Test::new();
    test.config.write = WritePolicy::Back;
    let cache = test.start();
    test.store(&cache, &id(1), b"one");
    wait(&cache);
    assert_eq!(test.store.len(), 1);
    test.store.fail(Fault::Unavailable);
    let before = test.store.uploads();
    test.store(&cache, &id(2), b"two");
    while test.store.uploads() == before {
        thread::yield_now();
    }
    drop(cache);
    test.store.fail(None);
    let cache = test.start();
    wait(&cache);
    assert_eq!(test.store.len(), 2);
    assert_eq!(test.state(&cache, &id(2)), Some(State::Local));
}

#[test]
fn a_commit_does_not_wait_for_a_store_that_is_known_to_be_away() {
    let mut test = Test::new();
    test.config.write = WritePolicy::Through;
    test.config.store.timeout = Duration::from_secs(3600);
    let cache = test.start();
    test.store(&cache, &id(1), b"one");
    test.store.fail(Fault::Hangs);
    cache.write_back.add(id(1));
    test.store(&cache, &id(2), b"two");
    assert_eq!(cache.write_back.len_and_refused().0, 2);
    assert_eq!(test.read(&cache, &id(2)).unwrap(), b"two");
}
