//! Kills and power cuts at any step: an object is whole or absent afterwards, what is used is what is on disk,
//! and nothing is left of uploads.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::files::System;
use faults::FaultyFiles;

const OBJECTS: [(u32, usize); 5] = [(1, 5000), (2, 40_000), (3, 1), (4, 16_384), (5, 9000)];

/// Stores, evicts and stores again. Errors are those of a process that has been killed.
fn work(cache: &DiskCache) {
    let stores = |number: u32, len| {
        if store(cache, number, ObjectType::Regular, len).is_ok() {
            close(cache, number);
        }
    };
    OBJECTS[..3].iter().for_each(|&(number, len)| stores(number, len));
    cache.store().name_unsynced();
    cache.store().write_database();
    stores(4, OBJECTS[3].1);
    let _ = cache.shrink(&session(), 30_000);
    OBJECTS.iter().for_each(|&(number, len)| stores(number, len));
    // It is given up.
    let upload = cache.begin(&session(), new_object(6, ObjectType::Regular));
    if let Ok(mut upload) = upload {
        let _ = upload.write(content(6, 9000));
    }
    cache.store().name_unsynced();
    cache.store().write_database();
    let _ = cache.shrink(&session(), 0);
    stores(1, OBJECTS[0].1);
    cache.store().name_unsynced();
}

fn assert_sound(config: &Config, directory: &Path, what: &str) {
    let cache = start(config, Arc::new(System));
    assert_eq!(uploads(directory), 0, "{what}: uploads are left");
    // Before the check, and after it.
    OBJECTS.iter().for_each(|&(number, len)| assert_whole_or_absent(&cache, number, len));
    cache.wait_until_checked();
    OBJECTS.iter().for_each(|&(number, len)| assert_whole_or_absent(&cache, number, len));
    assert_eq!(used(&cache), du(directory), "{what}");
    cache.store().assert_consistent();
    // It works as ever.
    OBJECTS.iter().for_each(|&(number, len)| store_and_close(&cache, number, len));
    OBJECTS.iter().for_each(|&(number, len)| assert_whole_or_absent(&cache, number, len));
    assert_eq!(cache.shrink(&session(), 0), Ok(0));
    assert_eq!(du(directory), 0, "{what}");
}

/// Kills the process after each number of changes to files, and does something to the directory.
fn at_each_step(fsync: Fsync, strike: impl Fn(&FaultyFiles, &Path)) {
    for changes in 0.. {
        let directory = super::directory();
        let config = config(directory.path(), Quota::Unlimited, fsync);
        let graveyard = directory.path().join("graveyard");
        let files = Arc::new(FaultyFiles::new(&graveyard).kill_after(changes));
        let cache = start(&config, Arc::clone(&files) as Arc<dyn FileSystem>);
        work(&cache);
        let is_killed = files.is_killed();
        cache.kill();
        strike(&files, directory.path());
        assert_sound(&config, directory.path(), &format!("{fsync:?}, {changes} changes"));
        if !is_killed {
            assert!(changes > 20, "it was not killed");
            return;
        }
    }
}

#[test]
fn a_kill_at_any_step_leaves_objects_whole_or_absent() {
    for fsync in [Fsync::Never, Fsync::Commit, Fsync::Batched] {
        at_each_step(fsync, |_, _| {});
    }
}

#[test]
fn a_power_cut_at_any_step_leaves_objects_whole_or_absent() {
    for fsync in [Fsync::Commit, Fsync::Batched] {
        for kept in [0, 2, 4] {
            at_each_step(fsync, |files, _| files.cut_power(kept));
        }
    }
}

#[test]
fn a_power_cut_that_takes_the_database_along_does_not_either() {
    for kept in [1, 4] {
        at_each_step(Fsync::Batched, |files, directory| {
            files.cut_power(kept);
            let database = directory.join("cache/cvmcache-disk.redb");
            fs::write(database, "torn").unwrap();
        });
    }
}

#[test]
fn files_that_a_power_cut_has_emptied_are_misses() {
    at_each_step(Fsync::Never, |files, _| files.cut_power(4));
}
