//! What a tier above the cache works with.

use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::files::System;

fn in_directory() -> (tempfile::TempDir, Config) {
    let directory = super::directory();
    let config = config(directory.path(), Quota::Unlimited, Fsync::Batched);
    (directory, config)
}

fn ids(objects: impl Iterator<Item = crate::IdleObject>) -> Vec<ObjectId> {
    objects.map(|object| object.id).collect()
}

#[test]
fn idle_objects_come_in_the_order_of_eviction_and_open_ones_do_not() {
    let (_directory, config) = in_directory();
    let cache = start(&config, Arc::new(System));
    (0..6).for_each(|number| store_and_close(&cache, number, 100));
    store(&cache, 6, ObjectType::Volatile, 7).unwrap();
    close(&cache, 6);
    open(&cache, 2).unwrap();
    open(&cache, 1).unwrap();
    close(&cache, 1);
    let idle: Vec<_> = cache.idle_objects(SystemTime::now()).collect();
    assert_eq!(ids(idle.iter().cloned()), [6, 0, 3, 4, 5, 1].map(id));
    assert_eq!((idle[0].size, idle[0].object_type), (7, ObjectType::Volatile));
    assert_eq!(idle[0].description, Some("/path/6".into()));
}

#[test]
fn an_object_is_idle_from_its_last_use_on() {
    let (_directory, config) = in_directory();
    let cache = start(&config, Arc::new(System));
    let before = SystemTime::now();
    (0..3).for_each(|number| store_and_close(&cache, number, 100));
    let first = cache.idle_objects(SystemTime::now()).next().unwrap();
    assert!(first.last_use >= before && first.last_use <= SystemTime::now());
    assert_eq!(cache.idle_objects(before - Duration::from_secs(1)).count(), 0);
    assert_eq!(ids(cache.idle_objects(first.last_use)), [id(0)]);
}

#[test]
fn idle_objects_of_many_batches_come_once_each_whatever_is_used_or_evicted_meanwhile() {
    let (_directory, config) = in_directory();
    let cache = start(&config, Arc::new(System));
    for number in 0..200 {
        store(&cache, number, ObjectType::ALL[number as usize % 3], 1).unwrap();
        close(&cache, number);
    }
    let mut seen = Vec::new();
    for object in cache.idle_objects(SystemTime::now()) {
        assert!(!seen.contains(&object.id), "{} comes twice", object.id);
        seen.push(object.id);
        match seen.len() % 3 {
            0 => assert!(cache.evict(&object.id)),
            1 => {
                cache.change_refcount(&session(), &object.id, 1).unwrap();
                cache.change_refcount(&session(), &object.id, -1).unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(seen.len(), 200);
    cache.store().assert_consistent();
}

#[test]
fn maintenance_is_no_use_of_an_object() {
    let (_directory, config) = in_directory();
    let cache = start(&config, Arc::new(System));
    (0..3).for_each(|number| store_and_close(&cache, number, 5000));
    let before: Vec<_> = cache.idle_objects(SystemTime::now()).collect();
    let data = cache.read_unused(&id(0), 1000, 10_000).unwrap().into_bytes();
    assert_eq!(data, content(0, 5000).slice(1000..));
    assert_eq!(cache.read_unused(&id(0), 5001, 1), Err(Status::OutOfBounds));
    assert_eq!(cache.read_unused(&id(9), 0, 1), Err(Status::NoEntry));
    cache.verify(&id(0)).unwrap();
    cache.block_digests(&id(0)).unwrap();
    let _ = cache.scrub(|_| ControlFlow::Continue(()));
    let after: Vec<_> = cache.idle_objects(SystemTime::now()).collect();
    assert_eq!(before, after);
    assert!(cache.store().descriptors.get(&id(0)).is_none(), "its file is closed");
}

#[test]
fn an_object_is_evicted_by_name_unless_it_is_open() {
    let (directory, config) = in_directory();
    let cache = start(&config, Arc::new(System));
    (0..3).for_each(|number| store_and_close(&cache, number, 5000));
    cache.store().name_unsynced();
    store_and_close(&cache, 3, 5000);
    open(&cache, 1).unwrap();
    assert_eq!([0, 1, 3, 9].map(|number| cache.evict(&id(number))), [true, false, true, false]);
    assert_eq!(open(&cache, 0), Err(Status::NoEntry));
    close(&cache, 1);
    assert!(cache.evict(&id(1)));
    assert_eq!((used(&cache), du(directory.path())), (2 * 4096, 2 * 4096));
    assert_eq!(uploads(directory.path()), 0);
    // It can be stored again.
    store_and_close(&cache, 1, 5000);
    assert_whole_or_absent(&cache, 1, 5000);
    cache.store().assert_consistent();
}

#[test]
fn block_digests_are_those_of_what_was_stored() {
    let (_directory, config) = in_directory();
    let len = 2 * DiskCache::BLOCK_LEN + 1;
    let expected: Vec<_> = content(1, len)
        .chunks(DiskCache::BLOCK_LEN)
        .map(|block| *blake3::hash(block).as_bytes())
        .collect();
    let cache = start(&config, Arc::new(System));
    store_and_close(&cache, 1, len);
    assert_eq!(cache.block_digests(&id(1)), Ok(Some(expected.clone())), "before it has a name");
    assert_eq!(cache.verify(&id(1)), Ok(expected.clone()));
    drop(cache);
    let cache = start(&config, Arc::new(System));
    assert_eq!(cache.block_digests(&id(1)), Ok(Some(expected.clone())));
    assert_eq!(cache.verify(&id(1)), Ok(expected));
    for is_checked in [false, true] {
        if is_checked {
            cache.wait_until_checked();
        }
        assert_eq!(cache.block_digests(&id(2)), Err(Status::NoEntry));
        assert_eq!(cache.verify(&id(2)), Err(Status::NoEntry));
    }
}

#[test]
fn a_damaged_object_does_not_verify_and_is_a_miss() {
    let (_directory, config) = in_directory();
    let cache = start(&config, Arc::new(System));
    let layout = Layout::new(&config.location);
    (0..2).for_each(|number| store_and_close(&cache, number, 5000));
    cache.store().name_unsynced();
    // One byte changed, and one file gone.
    let mut bytes = fs::read(layout.object(&id(0))).unwrap();
    bytes[17] ^= 1;
    fs::write(layout.object(&id(0)), bytes).unwrap();
    fs::remove_file(layout.object(&id(1))).unwrap();
    assert_eq!(cache.verify(&id(0)), Err(Status::Corrupted));
    assert_eq!(cache.verify(&id(0)), Err(Status::NoEntry));
    assert_eq!(cache.verify(&id(1)), Err(Status::NoEntry));
    assert!(layout.quarantine().join(id(0).to_string()).exists());
}

#[test]
fn scrubbing_on_request_counts_what_it_finds_and_can_be_ended() {
    let (_directory, config) = in_directory();
    let layout = Layout::new(&config.location);
    drop({
        let cache = start(&config, Arc::new(System));
        (0..5).for_each(|number| store_and_close(&cache, number, 5000));
        cache
    });
    fs::write(layout.object(&id(1)), [0; 5000]).unwrap();
    fs::write(layout.object(&id(7)), "of a client").unwrap();
    let cache = start(&config, Arc::new(System));
    let counts = cache.scrub(|_| ControlFlow::Continue(()));
    assert_eq!((counts.good, counts.damaged, counts.recorded, counts.skipped), (4, 1, 1, 0));
    assert_eq!(counts.bytes, 5 * 5000 + 11);
    let mut calls = 0;
    let counts = cache.scrub(|counts| {
        calls += 1;
        if counts.good == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((counts.objects, counts.good, calls), (5, 2, 4));
}
