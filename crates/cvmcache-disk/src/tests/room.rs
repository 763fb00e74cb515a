//! Room: the quota, and disks that have less than it.

use std::sync::Arc;

use super::*;
use crate::files::System;
use faults::FaultyFiles;

const MEGABYTE: usize = 1024 * 1024;

#[test]
fn a_disk_with_less_than_the_quota_is_used_by_evicting() {
    let directory = super::directory();
    let config = config(directory.path(), Quota::Bytes(1 << 30), Fsync::Never);
    let files = FaultyFiles::new(&directory.path().join("graveyard")).with_room(4 << 20);
    let cache = start(&config, Arc::new(files));
    for number in 1..40 {
        store_and_close(&cache, number, 300_000);
        assert_whole_or_absent(&cache, number, 300_000);
    }
    assert!(used(&cache) <= 4 << 20);
    // What is pinned stays, and there is no room for more.
    for number in 100..109 {
        store(&cache, number, ObjectType::Regular, 400_000).unwrap();
    }
    let refused = store(&cache, 200, ObjectType::Regular, 3 * MEGABYTE);
    assert_eq!(refused, Err(Status::NoSpace));
    (100..109)
        .for_each(|number| assert_eq!(read(&cache, number).unwrap(), content(number, 400_000)));
    assert_eq!(uploads(directory.path()), 0);
    cache.store().assert_consistent();
}

#[test]
fn an_object_larger_than_what_can_be_evicted_is_refused_and_nothing_is_evicted_for_it() {
    let directory = super::directory();
    let config = config(directory.path(), Quota::Bytes(4 << 20), Fsync::Never);
    let cache = start(&config, Arc::new(System));
    store_and_close(&cache, 1, MEGABYTE);
    let mut new = new_object(2, ObjectType::Regular);
    new.expected_size = Some(5 << 20);
    assert_eq!(cache.begin(&session(), new).err(), Some(Status::NoSpace));
    assert_whole_or_absent(&cache, 1, MEGABYTE);
    assert!(open(&cache, 1).is_ok());
}

#[test]
fn an_object_that_is_stored_again_while_it_is_evicted_is_not_lost() {
    let directory = super::directory();
    let config = config(directory.path(), Quota::Bytes(1 << 20), Fsync::Never);
    let cache = start(&config, Arc::new(System));
    std::thread::scope(|scope| {
        let shrinking =
            scope.spawn(|| (0..300).for_each(|_| assert!(cache.shrink(&session(), 0).is_ok())));
        while !shrinking.is_finished() {
            store(&cache, 1, ObjectType::Regular, 5000).unwrap();
            assert_eq!(read(&cache, 1).unwrap(), content(1, 5000));
            close(&cache, 1);
        }
    });
    assert_eq!(used(&cache), du(directory.path()));
    cache.store().assert_consistent();
}
