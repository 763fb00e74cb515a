//! Objects come back from the store when they are opened.

use std::thread;

use cvmcache::CachePlugin;
use cvmcache::plugin::{ListEntry, Status};

use super::store::Fault;
use super::{REGULAR, Test, content, id};
use crate::header::BLOCK;
use crate::markers::State;

#[test]
fn an_archived_object_comes_back_when_it_is_opened_with_all_that_was_known_of_it() {
    let test = Test::new();
    let cache = test.start();
    let lens = [0, 1, BLOCK as usize, BLOCK as usize + 1, 3 * BLOCK as usize + 17];
    // The empty file is an object only under the name of the empty object: not here.
    for (number, len) in (0..).zip(lens).skip(1) {
        test.store(&cache, &id(number), &content(number, len));
    }
    test.archive(&cache);
    for (number, len) in (0..).zip(lens).skip(1) {
        let id = id(number);
        assert!(!test.is_local(&cache, &id));
        let info = cache.object_info(&test.session, &id).unwrap();
        assert_eq!((info.size, info.object_type), (len as u64, REGULAR));
        assert!(!test.is_local(&cache, &id), "the store was not asked for that");
        assert_eq!(test.read(&cache, &id).unwrap(), content(number, len));
        assert_eq!(test.state(&cache, &id), Some(State::Local));
    }
    let listed: Vec<ListEntry> =
        cache.list(&test.session, REGULAR).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(listed.len(), 4);
    assert!(listed.iter().all(|entry| entry.description.as_deref() == Some(b"/a name\n")));
    assert!(listed.iter().all(|entry| !entry.pinned), "no reference is left of a recall");
}

#[test]
fn an_object_is_recalled_once_however_many_open_it() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), &content(1, 100_000));
    test.archive(&cache);
    let before = test.store.begun();
    test.store.downloads.forget_permits(usize::MAX);
    thread::scope(|scope| {
        let readers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| test.read(&cache, &id(1)).unwrap())).collect();
        while test.store.begun() == before {
            thread::yield_now();
        }
        test.store.downloads.add_permits(1);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), content(1, 100_000));
        }
    });
    assert_eq!(test.store.begun(), before + 1);
}

#[test]
fn a_store_that_is_away_makes_misses_and_the_second_is_answered_at_once() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"cold");
    test.store(&cache, &id(2), b"also cold");
    test.archive(&cache);
    test.store(&cache, &id(3), b"hot");
    test.store.fail(Fault::Unavailable);
    assert_eq!(test.read(&cache, &id(1)), Err(Status::NoEntry));
    let before = test.store.begun();
    assert_eq!(test.read(&cache, &id(1)), Err(Status::NoEntry));
    assert_eq!(cache.object_info(&test.session, &id(1)), Err(Status::NoEntry));
    assert_eq!(test.store.begun(), before, "a failure is remembered");
    assert_eq!(test.read(&cache, &id(3)).unwrap(), b"hot");
    assert_eq!(test.state(&cache, &id(1)), Some(State::Remote), "it may come back later");
    test.store.fail(None);
    assert_eq!(test.read(&cache, &id(2)).unwrap(), b"also cold");
}

#[test]
fn what_the_store_has_damaged_is_a_miss_until_a_client_stores_it_again() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"what was archived");
    test.archive(&cache);
    test.store.damage();
    assert_eq!(test.read(&cache, &id(1)), Err(Status::NoEntry));
    assert_eq!(test.state(&cache, &id(1)), Some(State::Error));
    let before = test.store.begun();
    assert_eq!(test.read(&cache, &id(1)), Err(Status::NoEntry));
    assert_eq!(test.store.begun(), before, "it is not asked for again");

    test.store(&cache, &id(1), b"what was archived");
    assert_eq!(test.state(&cache, &id(1)), None);
    assert_eq!(test.read(&cache, &id(1)).unwrap(), b"what was archived");
    test.archive(&cache);
    assert_eq!(test.read(&cache, &id(1)).unwrap(), b"what was archived", "it was mended there");
}

#[test]
fn an_object_that_is_damaged_on_its_way_is_asked_for_once_more() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"cold");
    test.archive(&cache);
    test.store.fail(Fault::DamagesOnce);
    assert_eq!(test.read(&cache, &id(1)).unwrap(), b"cold");
    assert_eq!(test.state(&cache, &id(1)), Some(State::Local));
}

#[test]
fn an_object_that_the_store_has_lost_is_an_error_and_a_miss() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"gone");
    test.archive(&cache);
    test.store.objects.lock().clear();
    assert_eq!(test.read(&cache, &id(1)), Err(Status::NoEntry));
    assert_eq!(test.state(&cache, &id(1)), Some(State::Error));
}

#[test]
fn a_page_in_place_of_an_object_is_a_miss_and_the_object_comes_back_later() {
    let test = Test::new();
    for page in [&b"<html>Service unavailable</html>"[..], b"", b"CVMTIER"] {
        let cache = test.start();
        test.store(&cache, &id(1), b"cold");
        test.archive(&cache);
        test.store.fail(Fault::Page(page));
        assert_eq!(test.read(&cache, &id(1)), Err(Status::NoEntry));
        assert_eq!(test.state(&cache, &id(1)), Some(State::Remote));
        test.store.fail(None);
        drop(cache);
        // A restart forgets the failure.
        let cache = test.start();
        assert_eq!(test.read(&cache, &id(1)).unwrap(), b"cold");
    }
}
