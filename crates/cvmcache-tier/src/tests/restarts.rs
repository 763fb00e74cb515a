//! What a restart does from each state.

use std::thread;
use std::time::{Duration, Instant};

use cvmcache::CachePlugin;
use serde_json::json;

use super::store::Fault;
use super::{Test, content, id};
use crate::config::WritePolicy;
use crate::markers::{Marker, State};
use crate::tier::END_GRACE;

#[test]
fn an_object_without_a_marker_is_local_after_a_restart() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"local");
    drop(cache);
    let cache = test.start();
    assert_eq!(test.read(&cache, &id(1)).unwrap(), b"local");
    assert_eq!(test.marker(&cache, &id(1)), None);
}

#[test]
fn a_remote_object_is_remote_after_a_restart() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"remote");
    test.archive(&cache);
    drop(cache);
    let cache = test.start();
    assert_eq!(test.state(&cache, &id(1)), Some(State::Remote));
    assert_eq!(test.read(&cache, &id(1)).unwrap(), b"remote");
}

#[test]
fn an_object_that_was_local_and_evicted_for_room_comes_back_from_the_store() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"both");
    test.archive(&cache);
    test.read(&cache, &id(1)).unwrap();
    assert_eq!(test.state(&cache, &id(1)), Some(State::Local));
    assert!(crate::hot::HotTier::evict(&cache.tier.hot, &id(1)));
    drop(cache);
    let cache = test.start();
    assert_eq!(test.read(&cache, &id(1)).unwrap(), b"both");
}

/// Killed after the bytes arrived and before the marker was written.
#[test]
fn an_object_whose_recall_had_ended_is_local_after_a_restart() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"recalled");
    test.archive(&cache);
    let remote = test.marker(&cache, &id(1)).unwrap();
    test.read(&cache, &id(1)).unwrap();
    cache.tier.markers.apply(&[(id(1), Some(remote))], true).unwrap();
    drop(cache);
    let cache = test.start();
    let before = test.store.begun();
    assert_eq!(test.read(&cache, &id(1)).unwrap(), b"recalled");
    assert_eq!(test.store.begun(), before);
}

/// Killed between the durable marker and the eviction: the bytes of a closed object go then, those of an object
/// that the store has not got are never in this state.
#[test]
fn an_object_in_repair_is_remote_after_a_restart() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), &content(1, 70_000));
    test.archive(&cache);
    test.read(&cache, &id(1)).unwrap();
    let marker = test.marker(&cache, &id(1)).unwrap();
    let repair = Marker { state: State::Repair, ..marker };
    cache.tier.markers.apply(&[(id(1), Some(repair))], true).unwrap();
    assert_eq!(test.read(&cache, &id(1)).unwrap(), content(1, 70_000));
    drop(cache);
    let cache = test.start();
    assert!(!test.is_local(&cache, &id(1)));
    assert_eq!(test.read(&cache, &id(1)).unwrap(), content(1, 70_000));
}

#[test]
fn an_object_in_error_is_a_miss_after_a_restart_and_local_once_it_is_stored_again() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"lost");
    test.archive(&cache);
    test.store.objects.lock().clear();
    test.read(&cache, &id(1)).unwrap_err();
    drop(cache);
    let cache = test.start();
    assert_eq!(test.state(&cache, &id(1)), Some(State::Error));
    test.read(&cache, &id(1)).unwrap_err();
    test.store(&cache, &id(1), b"lost");
    drop(cache);
    let cache = test.start();
    assert_eq!(test.read(&cache, &id(1)).unwrap(), b"lost");
    assert_eq!(test.marker(&cache, &id(1)), None);
}

/// Ends a tier whose store hangs, once `is_under_way`.
fn end_takes_no_longer_than_the_grace(
    test: &Test,
    begin: impl FnOnce(&crate::Tiered<cvmcache_disk::DiskCache>),
    is_under_way: impl Fn() -> bool,
) {
    let cache = test.start();
    begin(&cache);
    while !is_under_way() {
        thread::yield_now();
    }
    let begun = Instant::now();
    drop(cache);
    assert!(begun.elapsed() < END_GRACE * 10, "{:?}", begun.elapsed());
}

#[test]
fn a_store_that_hangs_does_not_delay_the_end() {
    let hanging = || {
        let mut test = Test::new();
        test.config.store.timeout = Duration::from_secs(3600);
        test
    };
    let mut test = hanging();
    test.config.write = WritePolicy::Back;
    test.store.fail(Fault::Hangs);
    let store = |test: &Test, cache: &_| test.store(cache, &id(1), b"to be written back");
    end_takes_no_longer_than_the_grace(&test, |c| store(&test, c), || test.store.uploads() > 0);

    let mut test = hanging();
    test.config.archive_after = Some(Duration::from_millis(1));
    test.store.fail(Fault::Hangs);
    end_takes_no_longer_than_the_grace(&test, |c| store(&test, c), || test.store.uploads() > 0);

    let test = hanging();
    let cache = test.start();
    test.store(&cache, &id(1), b"to be recalled");
    test.archive(&cache);
    drop(cache);
    let before = test.store.begun();
    test.store.fail(Fault::Hangs);
    let recall = |cache: &crate::Tiered<_>| {
        let arguments = [("all".to_owned(), json!(true))].into_iter().collect();
        cache.administration().unwrap().execute("recall", &arguments).unwrap();
    };
    end_takes_no_longer_than_the_grace(&test, recall, || test.store.begun() > before);
}
