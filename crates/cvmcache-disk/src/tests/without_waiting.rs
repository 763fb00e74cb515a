//! What is answered without waiting for a disk, and what is left to a worker.

use std::fs;
use std::sync::Arc;

use super::*;
use crate::config::Location;
use crate::files::System;
use faults::FaultyFiles;

fn in_directory() -> (tempfile::TempDir, Config) {
    let directory = super::directory();
    let config = config(directory.path(), Quota::Unlimited, Fsync::Batched);
    (directory, config)
}

fn try_open(cache: &DiskCache, number: u32) -> Option<PluginResult<()>> {
    cache.try_change_refcount(&session(), &id(number), 1)
}

fn try_info(cache: &DiskCache, number: u32) -> Option<PluginResult<u64>> {
    let info = cache.try_object_info(&session(), &id(number))?;
    Some(info.map(|info| info.size))
}

fn try_read(cache: &DiskCache, number: u32, offset: u64, len: u32) -> Option<PluginResult<Bytes>> {
    let data = cache.try_read(&session(), &id(number), offset, len)?;
    Some(data.map(cvmcache::plugin::Data::into_bytes))
}

#[test]
fn what_is_in_memory_is_answered_without_waiting() {
    let (_directory, config) = in_directory();
    let cache = start(&config, Arc::new(System));
    store_and_close(&cache, 1, 5000);
    assert_eq!(try_open(&cache, 1), Some(Ok(())));
    assert_eq!(try_info(&cache, 1), Some(Ok(5000)));
    let read = try_read(&cache, 1, 1000, 9999);
    // Some file systems cannot tell what is in the page cache.
    let can_tell = cache.store().can_read_cached.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(read, can_tell.then(|| Ok(content(1, 5000).slice(1000..))));
    if can_tell {
        assert_eq!(try_read(&cache, 1, 5000, 1), Some(Ok(Bytes::new())));
        assert_eq!(try_read(&cache, 1, 5001, 1), Some(Err(Status::OutOfBounds)));
    }
    assert_eq!(cache.try_change_refcount(&session(), &id(1), -1), Some(Ok(())));
    assert_eq!(cache.try_change_refcount(&session(), &id(1), -1), Some(Err(Status::BadCount)),);
    cache.store().assert_consistent();
}

#[test]
fn until_the_tree_has_been_checked_a_worker_looks_for_an_object() {
    let (_directory, config) = in_directory();
    {
        let cache = start(&config, Arc::new(System));
        (0..2).for_each(|number| store_and_close(&cache, number, 5000));
    }
    fs::remove_file(Layout::new(&config.location).object(&id(1))).unwrap();
    let cache = start(&config, Arc::new(System));
    for number in 0..3 {
        // The check goes on meanwhile.
        let is_there = number == 0;
        assert!(try_open(&cache, number).is_none_or(|opened| opened.is_ok() == is_there));
    }
    cache.wait_until_checked();
    assert_eq!(try_info(&cache, 0), Some(Ok(5000)));
    assert_eq!(try_info(&cache, 1), Some(Err(Status::NoEntry)));
    assert_eq!(try_open(&cache, 2), Some(Err(Status::NoEntry)));
}

#[test]
fn on_an_alien_cache_a_worker_looks_for_each_object() {
    let directory = super::directory();
    let location = Location::Alien {
        directory: directory.path().join("cache"),
        workspace: directory.path().join("workspace"),
    };
    let config = Config { location, fsync: Fsync::Never, scrub_rate: 0 };
    let cache = start(&config, Arc::new(System));
    store(&cache, 1, ObjectType::Regular, 100).unwrap();
    assert_eq!((try_open(&cache, 1), try_info(&cache, 1)), (None, None));
    assert_eq!((try_open(&cache, 2), try_info(&cache, 2)), (None, None));
    // It is open.
    assert!(try_read(&cache, 1, 0, 100).is_none_or(|data| data == Ok(content(1, 100))));
}

#[test]
fn an_object_whose_file_is_being_changed_is_left_to_a_worker() {
    let (_directory, config) = in_directory();
    let cache = start(&config, Arc::new(System));
    store_and_close(&cache, 1, 100);
    let change = cache.store().change(&id(1));
    assert_eq!((try_open(&cache, 1), try_info(&cache, 1)), (None, None));
    drop(change);
    assert_eq!(try_open(&cache, 1), Some(Ok(())));
}

#[test]
fn what_the_page_cache_has_not_or_not_whole_is_read_by_a_worker() {
    let (directory, config) = in_directory();
    let files = Arc::new(FaultyFiles::new(&directory.path().join("graveyard")));
    let cache = start(&config, Arc::clone(&files) as Arc<dyn FileSystem>);
    (0..2).for_each(|number| store_and_close(&cache, number, 5000));
    cache.store().name_unsynced();
    let layout = Layout::new(&config.location);
    files.make_unreadable(&layout.object(&id(0)));
    let file = fs::OpenOptions::new().write(true).open(layout.object(&id(1))).unwrap();
    file.set_len(4000).unwrap();
    assert_eq!((try_read(&cache, 0, 0, 10), try_read(&cache, 1, 0, 5000)), (None, None));
    assert_eq!(read(&cache, 0), Err(Status::IoErr));
    assert_eq!(read(&cache, 1), Err(Status::Corrupted));
    assert_eq!(cache.status().damaged_objects, 2);
}
