//! Large objects are read from the store in blocks.

use std::thread;

use cvmcache::CachePlugin;
use cvmcache::plugin::Status;

use super::store::Fault;
use super::{Test, content, id};
use crate::config::ReadPolicy;
use crate::markers::State;
use crate::ranges::SMALLEST;

fn ranges() -> Test {
    let mut test = Test::new();
    test.config.read = ReadPolicy::Ranges;
    test
}

#[test]
fn a_large_object_is_read_in_verified_blocks_and_does_not_come_back() {
    let test = ranges();
    let cache = test.start();
    let large = content(1, SMALLEST as usize + 12_345);
    test.store(&cache, &id(1), &large);
    test.store(&cache, &id(2), b"small");
    test.archive(&cache);
    cache.change_refcount(&test.session, &id(1), 2).unwrap();
    assert_eq!(cache.object_info(&test.session, &id(1)).unwrap().size, large.len() as u64);
    for (offset, len) in [
        (0, 100),
        (1_048_570, 20),
        (3_000_000, 2_500_000),
        (large.len() - 5, 100),
        (large.len(), 1),
    ] {
        let read = cache.read(&test.session, &id(1), offset as u64, len as u32).unwrap();
        let end = (offset + len).min(large.len());
        assert_eq!(read.into_bytes(), &large[offset..end], "{len} from {offset}");
    }
    let beyond = cache.read(&test.session, &id(1), large.len() as u64 + 1, 1);
    assert_eq!(beyond, Err(Status::OutOfBounds));
    assert!(!test.is_local(&cache, &id(1)));
    cache.change_refcount(&test.session, &id(1), -2).unwrap();
    assert_eq!(cache.tier.ranges.len(), 0);
    assert_eq!(test.read(&cache, &id(2)).unwrap(), b"small");
    assert!(test.is_local(&cache, &id(2)), "a small one comes back");
}

#[test]
fn a_store_that_is_away_is_a_miss_at_open_and_an_error_of_a_read_behind_it() {
    let test = ranges();
    let cache = test.start();
    test.store(&cache, &id(1), &content(1, SMALLEST as usize));
    test.archive(&cache);
    test.store.fail(Fault::Unavailable);
    assert_eq!(cache.change_refcount(&test.session, &id(1), 1), Err(Status::NoEntry));
    let before = test.store.begun();
    assert_eq!(cache.change_refcount(&test.session, &id(1), 1), Err(Status::NoEntry));
    assert_eq!(test.store.begun(), before, "a failure is remembered");
    cache.tier.recalls.forget_failure(&id(1));
    test.store.fail(None);
    cache.change_refcount(&test.session, &id(1), 1).unwrap();
    test.store.fail(Fault::Unavailable);
    assert_eq!(cache.read(&test.session, &id(1), 0, 10), Err(Status::IoErr));
    test.store.fail(None);
    let read = cache.read(&test.session, &id(1), 0, 10).unwrap();
    assert_eq!(read.into_bytes(), &content(1, 10)[..]);
}

#[test]
fn a_damaged_block_is_an_error_and_the_others_are_read() {
    let test = ranges();
    let cache = test.start();
    let large = content(1, SMALLEST as usize);
    test.store(&cache, &id(1), &large);
    test.archive(&cache);
    cache.change_refcount(&test.session, &id(1), 1).unwrap();
    // Its last byte.
    test.store.damage();
    let last = cache.read(&test.session, &id(1), SMALLEST - 10, 10);
    assert_eq!(last, Err(Status::IoErr));
    let first = cache.read(&test.session, &id(1), 0, 10).unwrap();
    assert_eq!(first.into_bytes(), &large[..10]);
}

#[test]
fn an_object_is_opened_in_the_store_once_however_many_open_it() {
    let test = ranges();
    let cache = test.start();
    test.store(&cache, &id(1), &content(1, SMALLEST as usize));
    test.archive(&cache);
    let before = test.store.begun();
    test.store.downloads.forget_permits(usize::MAX);
    thread::scope(|scope| {
        let opens: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| cache.change_refcount(&test.session, &id(1), 1)))
            .collect();
        while test.store.begun() == before {
            thread::yield_now();
        }
        test.store.downloads.add_permits(1);
        assert!(opens.into_iter().all(|open| open.join().unwrap().is_ok()));
    });
    assert_eq!(test.store.begun(), before + 1);
    cache.change_refcount(&test.session, &id(1), -8).unwrap();
    assert_eq!(cache.tier.ranges.len(), 0);
}

#[test]
fn an_object_that_the_store_has_lost_is_an_error_at_open() {
    let test = ranges();
    let cache = test.start();
    test.store(&cache, &id(1), &content(1, SMALLEST as usize));
    test.archive(&cache);
    test.store.objects.lock().clear();
    assert_eq!(cache.change_refcount(&test.session, &id(1), 1), Err(Status::NoEntry));
    assert_eq!(test.state(&cache, &id(1)), Some(State::Error));
}
