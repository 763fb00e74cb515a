//! Large objects are read from the store in blocks.

use cvmcache::CachePlugin;
use cvmcache::plugin::Status;

use super::store::Fault;
use super::{Test, content, id};
use crate::config::ReadPolicy;
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
