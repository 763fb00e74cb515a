//! Restarts: what survives one, what is rebuilt from the tree, and what lies.

use std::fs;
use std::sync::Arc;

use super::*;
use crate::files::System;
use crate::scrub::Scrubbed;
use faults::FaultyFiles;

const BLOCKS: u64 = 4096;

fn in_directory() -> (tempfile::TempDir, Config) {
    let directory = super::directory();
    let config = config(directory.path(), Quota::Bytes(100 * BLOCKS), Fsync::Batched);
    (directory, config)
}

fn listed(cache: &DiskCache, object_type: ObjectType) -> Vec<(ObjectId, Option<Bytes>)> {
    let listing = cache.list(&session(), object_type).expect("a listing");
    let entries = listing.map(|entry| entry.expect("an entry"));
    entries.map(|entry| (entry.id, entry.description)).collect()
}

#[test]
fn types_descriptions_and_order_of_use_survive_a_restart() {
    let (_directory, config) = in_directory();
    let types = [ObjectType::Regular, ObjectType::Catalog, ObjectType::Volatile];
    {
        let cache = start(&config, Arc::new(System));
        for number in 0..9 {
            store(&cache, number, types[number as usize % 3], 100).unwrap();
            close(&cache, number);
        }
        // Used again: the last to go.
        open(&cache, 0).unwrap();
        close(&cache, 0);
    }
    let cache = start(&config, Arc::new(System));
    for (first, object_type) in types.into_iter().enumerate() {
        let mut listed = listed(&cache, object_type);
        listed.sort_by(|one, other| one.1.cmp(&other.1));
        let expected = |step: u32| first as u32 + 3 * step;
        let expected: Vec<_> = (0..3)
            .map(|step| (id(expected(step)), Some(format!("/path/{}", expected(step)).into())))
            .collect();
        assert_eq!(listed, expected);
    }
    let order = [2, 5, 8, 1, 3, 4, 6, 7, 0];
    for (gone, number) in order.into_iter().enumerate() {
        assert!(cache.object_info(&session(), &id(number)).is_ok(), "{number}");
        cache.shrink(&session(), (8 - gone as u64) * BLOCKS).unwrap();
        assert_eq!(cache.object_info(&session(), &id(number)), Err(Status::NoEntry), "{number}");
    }
}

#[test]
fn an_existing_cache_is_served_and_evicted_in_the_order_of_access() {
    let (directory, config) = in_directory();
    {
        let cache = start(&config, Arc::new(System));
        (1..5).for_each(|number| store_and_close(&cache, number, 1000));
    }
    fs::remove_file(directory.path().join("cache/cvmcache-disk.redb")).unwrap();
    let layout = Layout::new(&config.location);
    for (number, seconds) in [(3, 1000), (1, 2000), (4, 3000), (2, 4000)] {
        let file = fs::File::open(layout.object(&id(number))).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        file.set_times(fs::FileTimes::new().set_accessed(time)).unwrap();
    }
    let cache = start(&config, Arc::new(System));
    cache.wait_until_checked();
    for (left, number) in [(3, 3), (2, 1), (1, 4), (0, 2)] {
        assert_eq!(cache.shrink(&session(), left * BLOCKS), Ok(left * BLOCKS));
        assert!(!layout.object(&id(number)).exists(), "object {number} is left");
    }
}

#[test]
fn files_of_length_0_are_misses_without_an_index_unless_they_are_the_empty_object() {
    let (_directory, config) = in_directory();
    let layout = Layout::new(&config.location);
    layout.prepare().unwrap();
    let empty: ObjectId = "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78".parse().unwrap();
    for id in [id(1), empty] {
        fs::write(layout.object(&id), "").unwrap();
    }
    let cache = start(&config, Arc::new(System));
    cache.wait_until_checked();
    assert_eq!(open(&cache, 1), Err(Status::NoEntry));
    assert_eq!(cache.object_info(&session(), &empty).unwrap().size, 0);
    assert!(!layout.object(&id(1)).exists());
}

#[test]
fn an_empty_object_with_any_id_is_kept_as_long_as_the_index_is() {
    let (_directory, config) = in_directory();
    store_and_close(&start(&config, Arc::new(System)), 1, 0);
    let cache = start(&config, Arc::new(System));
    assert_eq!(read(&cache, 1), Ok(Vec::new()));
}

#[test]
fn a_database_that_lies_is_corrected_when_an_object_is_opened_and_by_the_check() {
    let (directory, config) = in_directory();
    {
        let cache = start(&config, Arc::new(System));
        (1..6).for_each(|number| store_and_close(&cache, number, 5000));
    }
    let layout = Layout::new(&config.location);
    fs::remove_file(layout.object(&id(1))).unwrap();
    fs::write(layout.object(&id(2)), "short").unwrap();
    fs::write(layout.object(&id(9)), "new").unwrap();
    let cache = start(&config, Arc::new(System));
    assert_eq!(open(&cache, 1), Err(Status::NoEntry));
    assert_eq!(open(&cache, 2), Err(Status::NoEntry));
    cache.wait_until_checked();
    assert_eq!(cache.object_info(&session(), &id(9)).unwrap().size, 3);
    assert_eq!(used(&cache), du(directory.path()));
    assert!(layout.quarantine().join(id(2).to_string()).exists());
    store_and_close(&cache, 2, 5000);
    assert_whole_or_absent(&cache, 2, 5000);
}

#[test]
fn a_damaged_database_is_replaced_and_costs_no_object() {
    let (_directory, config) = in_directory();
    start(&config, Arc::new(System));
    let path = Layout::new(&config.location).database();
    for round in 0..30u64 {
        let cache = start(&config, Arc::new(System));
        (1..5).for_each(|number| store_and_close(&cache, number, 5000));
        drop(cache);
        let mut bytes = fs::read(&path).unwrap();
        let mut random = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..1 + round * 7 {
            random = random.wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(23) ^ round;
            let at = random as usize % bytes.len();
            bytes[at] ^= 1 << (random >> 61);
        }
        if round % 5 == 4 {
            bytes.truncate(random as usize % bytes.len());
        }
        fs::write(&path, bytes).unwrap();
        let cache = start(&config, Arc::new(System));
        cache.wait_until_checked();
        for number in 1..5 {
            let opened = open(&cache, number);
            // A length that is not that of the file is a lie about a damaged object, which is moved aside.
            if opened.is_ok() {
                assert_eq!(read(&cache, number).unwrap(), content(number, 5000));
            }
        }
        cache.store().assert_consistent();
    }
}

#[test]
fn leftovers_of_uploads_and_the_database_of_a_client_are_removed() {
    let (directory, config) = in_directory();
    let layout = Layout::new(&config.location);
    layout.prepare().unwrap();
    fs::write(layout.uploads().join("fetchABCDEF"), "left").unwrap();
    fs::write(directory.path().join("cache/cachedb"), "stale").unwrap();
    let cache = start(&config, Arc::new(System));
    assert_eq!(uploads(directory.path()), 0);
    assert!(!directory.path().join("cache/cachedb").exists());
    fs::write(directory.path().join("cache/cachedb"), "of another program").unwrap();
    drop(cache);
    assert!(!directory.path().join("cache/cachedb").exists(), "the next client makes it anew");
}

#[test]
fn uploads_of_other_nodes_are_left_alone_and_what_they_publish_is_found() {
    let directory = super::directory();
    let location = |workspace: &str| crate::config::Location::Alien {
        directory: directory.path().join("cache"),
        workspace: directory.path().join(workspace),
    };
    let config_of =
        |workspace| Config { location: location(workspace), fsync: Fsync::Never, scrub_rate: 0 };
    let one = start(&config_of("one"), Arc::new(System));
    let mut upload = one.begin(&session(), new_object(1, ObjectType::Regular)).unwrap();
    upload.write(content(1, 5000)).unwrap();
    let other = start(&config_of("other"), Arc::new(System));
    assert_eq!(uploads(directory.path()), 1);
    assert_eq!(open(&other, 1), Err(Status::NoEntry));
    // Both store it; neither replaces it.
    store_and_close(&other, 1, 5000);
    upload.commit().unwrap();
    assert_whole_or_absent(&one, 1, 5000);
    assert_whole_or_absent(&other, 1, 5000);
    assert_eq!((uploads(directory.path()), tree(directory.path()).len()), (0, 1));
    // Files may vanish at any time.
    store_and_close(&one, 2, 10);
    fs::remove_file(Layout::new(&location("one")).object(&id(2))).unwrap();
    assert_eq!(open(&one, 2), Err(Status::NoEntry));
    assert_eq!(open(&other, 2), Err(Status::NoEntry));
}

#[test]
fn a_flipped_bit_is_found_by_scrubbing_and_the_object_is_a_miss() {
    let (_directory, config) = in_directory();
    let layout = Layout::new(&config.location);
    {
        let cache = start(&config, Arc::new(System));
        (1..4).for_each(|number| store_and_close(&cache, number, 5000));
    }
    let mut bytes = fs::read(layout.object(&id(2))).unwrap();
    bytes[3000] ^= 4;
    fs::write(layout.object(&id(2)), bytes).unwrap();
    fs::write(layout.object(&id(9)), "of a client").unwrap();
    let cache = start(&config, Arc::new(System));
    cache.wait_until_checked();
    let scrub = |number| cache.store().scrub(&id(number), &mut |_| true);
    assert_eq!([1, 2, 3].map(scrub), [Scrubbed::Good, Scrubbed::Damaged, Scrubbed::Good]);
    assert_eq!(open(&cache, 2), Err(Status::NoEntry));
    assert!(layout.quarantine().join(id(2).to_string()).exists());
    assert_eq!(cache.status().damaged_objects, 1);
    // What another program has stored gets a digest, with which the next pass compares.
    assert_eq!([9, 9].map(scrub), [Scrubbed::Recorded, Scrubbed::Good]);
    assert_eq!(cache.store().scrub(&id(1), &mut |_| false), Scrubbed::Stopped);
}

#[test]
fn a_catalog_that_another_program_has_stored_is_known_as_one_once_it_is_scrubbed() {
    let (_directory, config) = in_directory();
    let layout = Layout::new(&config.location);
    layout.prepare().unwrap();
    fs::write(layout.object(&id(1)), "SQLite format 3\0 and more").unwrap();
    fs::write(layout.object(&id(2)), "SQLite").unwrap();
    for _ in 0..2 {
        let cache = start(&config, Arc::new(System));
        cache.wait_until_checked();
        for number in [1, 2] {
            assert_ne!(cache.store().scrub(&id(number), &mut |_| true), Scrubbed::Damaged);
        }
        assert_eq!(listed(&cache, ObjectType::Catalog), [(id(1), None)]);
        assert_eq!(listed(&cache, ObjectType::Regular), [(id(2), None)]);
    }
}

#[test]
fn an_object_that_cannot_be_read_is_a_miss_from_then_on() {
    let (directory, config) = in_directory();
    let files = Arc::new(FaultyFiles::new(&directory.path().join("graveyard")));
    let cache = start(&config, Arc::clone(&files) as Arc<dyn FileSystem>);
    store_and_close(&cache, 1, 5000);
    cache.store().name_unsynced();
    open(&cache, 1).unwrap();
    files.make_unreadable(&Layout::new(&config.location).object(&id(1)));
    assert_eq!(read(&cache, 1), Err(Status::IoErr));
    assert_eq!(open(&cache, 1), Err(Status::NoEntry), "a client stores it again");
    store_and_close(&cache, 1, 5000);
    assert_eq!(read(&cache, 1).unwrap(), content(1, 5000));
    close(&cache, 1);
    cache.store().assert_consistent();
}
