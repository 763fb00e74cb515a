//! Tests of the cache through its callbacks, on a real directory.

mod crashes;
mod faults;
mod maintenance;
mod model;
mod restarts;
mod room;
mod without_waiting;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cvmcache::plugin::{HashAlgorithm, NewObject, ObjectId, ObjectType, PluginResult, Status};
use cvmcache::{CachePlugin, ServerHandle, Session};

use crate::config::{Config, Fsync, Quota};
use crate::entry::cost;
use crate::files::FileSystem;
use crate::layout::Layout;
use crate::plugin::DiskCache;

/// A directory in memory, if there is one: what is tested synchronises often.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

fn session() -> Session {
    Session::new(1, "test.cern.ch:1")
}

/// Objects are spread over the directories.
fn id(number: u32) -> ObjectId {
    let mut digest = [number as u8; ObjectId::DIGEST_LEN];
    digest[0] = (number as u8).wrapping_mul(37);
    ObjectId::new(HashAlgorithm::ALL[number as usize % 3], digest)
}

/// What an object of this number and length consists of.
fn content(number: u32, len: usize) -> Bytes {
    (0..len).map(|at| (at / 7) as u8 ^ number as u8).collect::<Vec<_>>().into()
}

fn config(directory: &Path, quota: Quota, fsync: Fsync) -> Config {
    let mut config = Config::managed(directory.join("cache"), quota);
    config.fsync = fsync;
    config
}

fn start(config: &Config, files: Arc<dyn FileSystem>) -> DiskCache {
    DiskCache::with_files(config, files, ServerHandle::new()).expect("it starts")
}

fn new_object(number: u32, object_type: ObjectType) -> NewObject {
    let mut new = NewObject::new(id(number));
    new.object_type = object_type;
    new.description = Some(format!("/path/{number}").into());
    new
}

/// Stores an object, and leaves it open.
fn store(cache: &DiskCache, number: u32, object_type: ObjectType, len: usize) -> PluginResult<()> {
    let mut upload = cache.begin(&session(), new_object(number, object_type))?;
    let data = content(number, len);
    for part in data.chunks(16 * 1024) {
        upload.write(Bytes::copy_from_slice(part))?;
    }
    upload.commit()
}

fn open(cache: &DiskCache, number: u32) -> PluginResult<()> {
    cache.change_refcount(&session(), &id(number), 1)
}

fn close(cache: &DiskCache, number: u32) {
    cache.change_refcount(&session(), &id(number), -1).expect("it is open");
}

fn store_and_close(cache: &DiskCache, number: u32, len: usize) {
    store(cache, number, ObjectType::Regular, len).expect("there is room");
    close(cache, number);
}

/// Reads an object as clients do.
fn read(cache: &DiskCache, number: u32) -> PluginResult<Vec<u8>> {
    let size = cache.object_info(&session(), &id(number))?.size;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < size {
        let part = cache.read(&session(), &id(number), bytes.len() as u64, 128 * 1024)?;
        bytes.extend_from_slice(&part.into_bytes());
    }
    Ok(bytes)
}

fn used(cache: &DiskCache) -> u64 {
    cache.info(None).expect("it is known").used_bytes
}

/// The objects in the tree, with their lengths.
fn tree(directory: &Path) -> Vec<(ObjectId, u64)> {
    let mut objects = Vec::new();
    for first in 0..=u8::MAX {
        let shard = directory.join(format!("cache/{first:02x}"));
        for entry in fs::read_dir(shard).into_iter().flatten().flatten() {
            let object = Layout::object_of(first, &entry.file_name()).expect("an object");
            objects.push((object, entry.metadata().expect("a file").len()));
        }
    }
    objects
}

/// What objects in the tree take.
fn du(directory: &Path) -> u64 {
    tree(directory).iter().map(|(_, len)| cost(*len)).sum()
}

fn uploads(directory: &Path) -> usize {
    fs::read_dir(directory.join("cache/txn")).expect("a directory").count()
}

/// Asserts that an object is whole, or absent.
fn assert_whole_or_absent(cache: &DiskCache, number: u32, len: usize) {
    match open(cache, number) {
        Ok(()) => {
            let bytes = read(cache, number).unwrap_or_else(|status| panic!("{number}: {status}"));
            assert!(bytes == content(number, len), "object {number} has {} bytes", bytes.len());
            close(cache, number);
        }
        Err(status) => assert_eq!(status, Status::NoEntry, "object {number}"),
    }
}

#[test]
fn the_tables_of_configuration_keys_are_those_of_the_cache() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/disk.md");
    let marker = "<!-- configuration keys -->\n";
    cvmcache_testkit::check_key_table(&page, marker, Config::KEYS);
}
