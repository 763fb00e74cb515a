//! Bytes here go only after both sides were verified.

use std::fs;
use std::time::Duration;

use cvmcache::CachePlugin;
use cvmcache::plugin::{NewObject, ObjectType, Status};

use super::store::Fault;
use super::{Test, content, id};
use crate::markers::State;

#[test]
fn an_open_object_is_never_archived_away() {
    let test = Test::new();
    let cache = test.start();
    test.store_open(&cache, &id(1), b"open").unwrap();
    test.store(&cache, &id(2), b"closed");
    let progress = test.archive(&cache);
    assert_eq!(progress.counts().0, 1);
    assert!(test.is_local(&cache, &id(1)));
    let read = cache.read(&test.session, &id(1), 0, 100).unwrap();
    assert_eq!(read.into_bytes(), &b"open"[..]);
    assert!(!test.is_local(&cache, &id(2)));
}

#[test]
fn nothing_goes_while_the_store_is_away_or_stores_other_bytes() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"precious");
    for fault in [Fault::Unavailable, Fault::StoresGarbage, Fault::Page(b"<html>")] {
        test.store.fail(fault);
        let progress = test.archive(&cache);
        assert_eq!(progress.failures(), 1, "{fault:?}");
        assert!(test.is_local(&cache, &id(1)), "{fault:?}");
        assert_eq!(test.marker(&cache, &id(1)), None, "{fault:?}");
        // What garbage it has stored would be found by `exists`.
        test.store.objects.lock().clear();
    }
    test.store.fail(None);
    test.archive(&cache);
    assert_eq!(test.state(&cache, &id(1)), Some(State::Remote));
}

#[test]
fn catalogs_stay_whether_their_type_is_known_or_not() {
    let test = Test::new();
    let cache = test.start();
    let mut object = NewObject::new(id(1));
    object.object_type = ObjectType::Catalog;
    let mut upload = cache.begin(&test.session, object).unwrap();
    upload.write("a catalog".into()).unwrap();
    upload.commit().unwrap();
    test.close(&cache, &id(1));
    test.store(&cache, &id(2), b"SQLite format 3\0 and so on");
    let progress = test.archive(&cache);
    assert_eq!(progress.skips(), 2);
    assert!(test.is_local(&cache, &id(1)) && test.is_local(&cache, &id(2)));
    assert_eq!(test.store.len(), 0);
}

#[test]
fn an_object_that_is_damaged_here_is_not_archived_and_moved_aside() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), &content(1, 5000));
    drop(cache);
    let name = id(1).to_string();
    let path = test.cache_directory().join(&name[..2]).join(&name[2..]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1234] ^= 1;
    fs::write(&path, bytes).unwrap();
    let cache = test.start();
    let progress = test.archive(&cache);
    assert_eq!(progress.failures(), 1);
    assert_eq!(test.store.len(), 0);
    assert_eq!(test.read(&cache, &id(1)), Err(Status::NoEntry));
}

#[test]
fn what_the_store_has_is_not_uploaded_again() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"back and forth");
    test.archive(&cache);
    test.read(&cache, &id(1)).unwrap();
    test.archive(&cache);
    assert_eq!(test.store.uploads(), 1);
    assert_eq!(test.state(&cache, &id(1)), Some(State::Remote));
    // Unless the store has lost it meanwhile.
    test.read(&cache, &id(1)).unwrap();
    test.store.objects.lock().clear();
    test.archive(&cache);
    assert_eq!(test.store.uploads(), 2);
    assert_eq!(test.read(&cache, &id(1)).unwrap(), b"back and forth");
}

#[test]
fn an_object_that_is_not_local_is_refused() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"cold");
    assert!(cache.tier.archivable(&id(1)).is_ok());
    test.archive(&cache);
    assert_eq!(cache.tier.archivable(&id(1)).unwrap_err(), "it is REMOTE already");
    assert_eq!(cache.tier.archivable(&id(2)).unwrap_err(), "it is not here");
}

#[test]
fn nothing_is_archived_to_a_store_that_is_read_only() {
    let mut test = Test::new();
    test.config.archive_after = Some(Duration::from_millis(1));
    test.store.fail(Fault::ReadOnly);
    let cache = test.start();
    test.store(&cache, &id(1), b"cold");
    let (_stop, stopped) = crossbeam_channel::bounded(0);
    crate::archiver::run(&cache.tier, test.cache_directory(), &stopped);
    assert!(test.is_local(&cache, &id(1)));
}
