//! Evictions and refusals in a full cache.

use std::sync::Arc;

use bytes::Bytes;
use cvmcache::CachePlugin;
use cvmcache::plugin::{ObjectType, Status};

use super::{
    assert_consistent, begin, clean_ups, cost, has, id, object, ram_cache, refer, session, store,
    store_open, uploading, used,
};
use crate::store::Store;

#[test]
fn an_upload_larger_than_the_unpinned_space_is_refused_before_anything_is_evicted() {
    let cache = ram_cache(100 * cost(1000));
    (0..100).for_each(|number| store(&cache, number, ObjectType::Regular, 1000).unwrap());
    (0..50).for_each(|number| refer(&cache, number, 1).unwrap());
    let half = 50 * cost(1000);
    for expected in [half, half + 1, u64::MAX - 1, u64::MAX] {
        let refused = begin(&cache, 200, ObjectType::Regular, Some(expected));
        assert_eq!(refused.err(), Some(Status::NoSpace), "{expected}");
    }
    assert_eq!(used(&cache), 100 * cost(1000));
    assert_eq!(clean_ups(&cache), 0);
}

#[test]
fn an_announced_size_reserves_no_memory() {
    let cache = ram_cache(100 * cost(1000));
    let announced = 90 * cost(1000);
    let uploads: Vec<_> = (0..100)
        .map(|number| begin(&cache, number, ObjectType::Regular, Some(announced)).unwrap())
        .collect();
    assert_eq!(uploading(&cache), 100 * cost(0));
    drop(uploads);
    assert_eq!(uploading(&cache), 0);
}

#[test]
fn closing_an_object_makes_space_at_once() {
    let cache = ram_cache(10 * cost(1000));
    (0..10).for_each(|number| store_open(&cache, number, ObjectType::Regular, 1000).unwrap());
    assert_eq!(store(&cache, 10, ObjectType::Regular, 0), Err(Status::NoSpace));
    refer(&cache, 3, -1).unwrap();
    assert_eq!(store(&cache, 10, ObjectType::Regular, 1000), Ok(()));
    assert!(!has(&cache, 3));
    assert_eq!(clean_ups(&cache), 1);
}

#[test]
fn uploads_alone_can_fill_the_cache_but_never_beyond_its_size() {
    let cache = ram_cache(10 * cost(1000));
    store(&cache, 0, ObjectType::Regular, 1000).unwrap();
    let mut upload = begin(&cache, 1, ObjectType::Regular, None).unwrap();
    while upload.write(Bytes::from(vec![0; 100])).is_ok() {
        assert_consistent(&cache);
    }
    assert_eq!(used(&cache), 0);
    drop(upload);
    assert_eq!(store(&cache, 0, ObjectType::Regular, 1000), Ok(()));
}

#[test]
fn volatile_objects_go_first_and_then_those_used_longest_ago() {
    let cache = ram_cache(100 * cost(1000));
    store(&cache, 1, ObjectType::Regular, 1000).unwrap();
    store(&cache, 2, ObjectType::Catalog, 1000).unwrap();
    store(&cache, 3, ObjectType::Regular, 1000).unwrap();
    store(&cache, 4, ObjectType::Volatile, 1000).unwrap();
    store(&cache, 5, ObjectType::Volatile, 1000).unwrap();
    // A check for existence, an open and a close are use; a read is not.
    refer(&cache, 4, 0).unwrap();
    refer(&cache, 1, 1).unwrap();
    refer(&cache, 1, -1).unwrap();
    cache.read(&session(), &id(2), 0, 1).unwrap();
    for (left, next) in [5, 4, 2, 3, 1].into_iter().enumerate().map(|(n, next)| (4 - n, next)) {
        assert!(has(&cache, next));
        assert_eq!(cache.shrink(&session(), used(&cache) - 1), Ok(left as u64 * cost(1000)));
        assert!(!has(&cache, next), "{next}");
    }
    assert_eq!(clean_ups(&cache), 5);
    assert_eq!(cache.shrink(&session(), 0), Ok(0));
    assert_eq!(clean_ups(&cache), 5);
}

#[test]
fn a_clean_up_goes_in_steps_that_delay_no_request() {
    let cache = ram_cache(4000 * cost(1000));
    (0..4000).for_each(|number| store(&cache, number, ObjectType::Regular, 1000).unwrap());
    assert_eq!(used(&cache), 4000 * cost(1000));
    assert_eq!(clean_ups(&cache), 0);
    let objects = || used(&cache) / cost(1000);
    let mut numbers = 4000..;
    // An upload is three requests, each of which adds a step to what it needs.
    for before in std::iter::from_fn(|| Some(objects())) {
        store(&cache, numbers.next().unwrap(), ObjectType::Regular, 1000).unwrap();
        assert!(objects() + 3 * Store::STEP_OBJECTS as u64 >= before);
        if objects() > before {
            break;
        }
    }
    assert_eq!(objects(), 3001);
    // From here on nothing is evicted until the cache is full again.
    for count in 3002..=4000 {
        store(&cache, numbers.next().unwrap(), ObjectType::Regular, 1000).unwrap();
        assert_eq!(objects(), count);
    }
    assert_eq!(clean_ups(&cache), 1);
    store(&cache, numbers.next().unwrap(), ObjectType::Regular, 1000).unwrap();
    assert_eq!(clean_ups(&cache), 2);
}

#[test]
fn clients_are_asked_to_detach_once_each_time_the_pinned_bytes_pass_the_mark() {
    let mut store = Store::new(10 * cost(1000));
    let asked_when_stored = |number: u32| {
        let object = object(number, ObjectType::Catalog, 1000);
        store.begin(Store::cost(&object), None).unwrap();
        store.commit(&Arc::new(object)).unwrap();
        store.take_deferred().ask_detach
    };
    let asked: Vec<bool> = (0..9).map(asked_when_stored).collect();
    assert_eq!(asked, [false, false, false, false, false, false, false, true, false]);

    let mut asked_when = |number: u32, by: i32| {
        store.change_references(&id(number), by).unwrap();
        store.take_deferred().ask_detach
    };
    assert!(!asked_when(0, -1), "80 % are pinned, and they have been asked");
    assert!(!asked_when(0, 1), "90 %");
    assert!(!asked_when(1, -1) && !asked_when(2, -1), "70 % is not too much");
    assert!(!asked_when(2, 1), "80 % again, but it has not been much less");
    assert!(!asked_when(2, -1) && !asked_when(3, -1), "60 %");
    assert!(!asked_when(3, 1) && asked_when(2, 1), "80 % again");
    assert!(!asked_when(1, 1), "90 %");
}
