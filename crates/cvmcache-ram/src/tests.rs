//! The behaviour of the RAM cache, one sentence each. Evictions and refusals are in
//! `space.rs`, and arbitrary sequences of requests are in `model.rs`.

mod model;
mod space;
mod steps;

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::thread;

use bytes::Bytes;
use cvmcache::plugin::{
    Breadcrumb, Capabilities, HashAlgorithm, ListEntry, NewObject, ObjectId, ObjectType,
    PluginResult, Status,
};
use cvmcache::{CachePlugin, Options, PluginContext, ServerHandle, Session, Transaction};

use crate::arena::Arena;
use crate::object::Object;
use crate::plugin::RamCache;
use crate::size::CacheSize;
use crate::store::Store;

fn id(number: u32) -> ObjectId {
    let mut digest = [0; ObjectId::DIGEST_LEN];
    digest[..4].copy_from_slice(&number.to_le_bytes());
    ObjectId::new(HashAlgorithm::Sha1, digest)
}

fn ram_cache(size: u64) -> RamCache {
    RamCache::new(size, ServerHandle::new()).unwrap()
}

fn session() -> Session {
    Session::new(1, "test.cern.ch:1")
}

fn begin(
    cache: &RamCache,
    number: u32,
    object_type: ObjectType,
    expected_size: Option<u64>,
) -> PluginResult<Box<dyn Transaction>> {
    let mut object = NewObject::new(id(number));
    object.object_type = object_type;
    object.expected_size = expected_size;
    object.description = Some(description(number));
    cache.begin(&session(), object)
}

fn description(number: u32) -> Bytes {
    format!("/object/{number}").into()
}

/// Stores an object and keeps it open.
fn store_open(
    cache: &RamCache,
    number: u32,
    object_type: ObjectType,
    len: usize,
) -> PluginResult<()> {
    let mut upload = begin(cache, number, object_type, Some(len as u64))?;
    upload.write(Bytes::from(vec![number as u8; len]))?;
    upload.commit()
}

fn store(cache: &RamCache, number: u32, object_type: ObjectType, len: usize) -> PluginResult<()> {
    store_open(cache, number, object_type, len)?;
    refer(cache, number, -1)
}

fn refer(cache: &RamCache, number: u32, by: i32) -> PluginResult<()> {
    cache.change_refcount(&session(), &id(number), by)
}

fn has(cache: &RamCache, number: u32) -> bool {
    cache.object_info(&session(), &id(number)).is_ok()
}

fn used(cache: &RamCache) -> u64 {
    cache.info(Some(&session())).unwrap().used_bytes
}

fn clean_ups(cache: &RamCache) -> u64 {
    cache.info(Some(&session())).unwrap().shrink_count.unwrap()
}

fn uploading(cache: &RamCache) -> u64 {
    cache.shared().locked(|store| store.uploading())
}

fn assert_consistent(cache: &RamCache) {
    cache.shared().locked(|store| store.assert_consistent());
}

/// An object with a description of the common length.
fn object(number: u32, object_type: ObjectType, len: usize) -> Object {
    let arena = Arena::new(1 << 20).unwrap();
    let extents = |len| arena.allocate(len, u64::MAX).unwrap();
    let text = description(number);
    let described = Some((&text[..], extents(text.len())));
    let mut object = Object::new(id(number), object_type, described);
    object.push(extents(len), &vec![0; len]).unwrap();
    object
}

/// The content that [`store`] makes of `len` bytes.
fn cost(len: usize) -> u64 {
    Store::cost(&object(0, ObjectType::Regular, len))
}

#[test]
fn the_size_comes_from_the_options() {
    let size = |text: &[u8]| {
        let cache =
            RamCache::from_context(&PluginContext::new(Options::parse(text), ServerHandle::new()));
        cache
            .map(|cache| cache.info(Some(&session())).unwrap().size_bytes)
            .map_err(|e| e.to_string())
    };
    assert_eq!(size(b"CVMFS_CACHE_PLUGIN_SIZE=200"), Ok(200 << 20));
    assert_eq!(size(b"CVMFS_CACHE_PLUGIN_SIZE=5"), Ok(100 << 20));
    assert_eq!(size(b""), Ok(1000 << 20));
    assert!(size(b"CVMFS_CACHE_PLUGIN_SIZE=all").unwrap_err().contains("\"all\""));
}

#[test]
fn the_cache_declares_all_capabilities() {
    let cache = ram_cache(1 << 20);
    assert_eq!(cache.capabilities(), Capabilities::ALL);
    let breadcrumb = Breadcrumb { catalog: id(1), timestamp: 2, revision: Some(3) };
    cache.store_breadcrumb(&session(), b"test.cern.ch", breadcrumb).unwrap();
    assert_eq!(cache.load_breadcrumb(&session(), b"test.cern.ch"), Ok(breadcrumb));
}

#[test]
fn seven_bytes_raise_what_is_used_and_shrinking_to_zero_takes_all_of_it_back() {
    let cache = ram_cache(1 << 20);
    assert_eq!(used(&cache), 0);
    store_open(&cache, 1, ObjectType::Catalog, 7).unwrap();
    assert!(used(&cache) >= 7);
    assert_eq!(cache.info(Some(&session())).unwrap().pinned_bytes, used(&cache));
    assert_eq!(cache.shrink(&session(), 0), Ok(used(&cache)));
    refer(&cache, 1, -1).unwrap();
    assert_eq!(cache.info(Some(&session())).unwrap().pinned_bytes, 0);
    assert_eq!(cache.shrink(&session(), 0), Ok(0));
    assert_eq!(used(&cache), 0);
}

#[test]
fn an_open_upload_does_not_count_as_used_and_survives_shrinking_to_zero() {
    let cache = ram_cache(1 << 20);
    let mut upload = begin(&cache, 1, ObjectType::Regular, None).unwrap();
    upload.write(Bytes::from_static(b"abc")).unwrap();
    assert_eq!(used(&cache), 0);
    assert_eq!(cache.shrink(&session(), 0), Ok(0));
    upload.write(Bytes::from_static(b"def")).unwrap();
    upload.commit().unwrap();
    assert_eq!(cache.read(&session(), &id(1), 0, 10).unwrap().into_bytes(), "abcdef");
}

#[test]
fn an_aborted_upload_frees_its_memory() {
    let cache = ram_cache(1 << 20);
    let mut upload = begin(&cache, 1, ObjectType::Regular, None).unwrap();
    assert!(uploading(&cache) > 0);
    upload.write(Bytes::from(vec![0; 1000])).unwrap();
    assert!(uploading(&cache) > 1000);
    drop(upload);
    assert_eq!(uploading(&cache), 0);
    assert!(!has(&cache, 1));
}

#[test]
fn of_two_uploads_the_first_is_kept_and_both_leave_a_reference() {
    let cache = ram_cache(1 << 20);
    store_open(&cache, 1, ObjectType::Regular, 5).unwrap();
    store_open(&cache, 1, ObjectType::Volatile, 9).unwrap();
    assert_eq!(cache.object_info(&session(), &id(1)).unwrap().size, 5);
    assert_eq!((used(&cache), uploading(&cache)), (cost(5), 0));
    assert_eq!(refer(&cache, 1, -3), Err(Status::BadCount));
    assert_eq!(refer(&cache, 1, -2), Ok(()));
    store_open(&cache, 1, ObjectType::Regular, 9).unwrap();
    assert_eq!(cache.info(Some(&session())).unwrap().pinned_bytes, cost(5));
    assert_consistent(&cache);
}

#[test]
fn reference_counts_neither_overflow_nor_fall_below_zero() {
    let cache = ram_cache(1 << 20);
    store(&cache, 1, ObjectType::Regular, 1).unwrap();
    for by in [-1, i32::MIN, -i32::MAX] {
        assert_eq!(refer(&cache, 1, by), Err(Status::BadCount));
    }
    assert_eq!(refer(&cache, 1, i32::MAX), Ok(()));
    for by in [1, i32::MAX, i32::MIN] {
        assert_eq!(refer(&cache, 1, by), Err(Status::BadCount));
    }
    assert_eq!(store_open(&cache, 1, ObjectType::Regular, 1), Err(Status::BadCount));
    assert_eq!(uploading(&cache), 0);
    assert_eq!(refer(&cache, 1, -i32::MAX), Ok(()));
    assert_eq!(refer(&cache, 1, 0), Ok(()));
    assert_eq!(refer(&cache, 2, 0), Err(Status::NoEntry));
    assert_consistent(&cache);
}

#[test]
fn a_listing_names_every_object_of_its_type_and_exactly_the_open_ones_as_pinned() {
    let cache = ram_cache(4000 * cost(1000));
    for number in 0..2000 {
        let object_type = if number % 3 == 0 { ObjectType::Catalog } else { ObjectType::Regular };
        store(&cache, number, object_type, 1).unwrap();
        if number % 5 == 0 {
            refer(&cache, number, 1).unwrap();
        }
    }
    let listed = cache.list(&session(), ObjectType::Catalog).unwrap().map(Result::unwrap);
    let mut listed: Vec<ListEntry> = listed.collect();
    listed.sort_by_key(|entry| entry.description.clone());
    let mut expected: Vec<ListEntry> = (0..2000)
        .step_by(3)
        .map(|number| {
            ListEntry::new(id(number), number % 5 == 0, Some(format!("/object/{number}").into()))
        })
        .collect();
    expected.sort_by_key(|entry| entry.description.clone());
    assert_eq!(listed, expected);
    assert_eq!(cache.list(&session(), ObjectType::Volatile).unwrap().count(), 0);
}

#[test]
fn a_listing_goes_on_while_objects_come_and_go() {
    let cache = ram_cache(4000 * cost(1000));
    (0..1000).for_each(|number| store(&cache, number, ObjectType::Regular, 1).unwrap());
    refer(&cache, 999, 1).unwrap();
    let mut listing = cache.list(&session(), ObjectType::Regular).unwrap();
    assert!(listing.next().is_some());
    assert_eq!(cache.shrink(&session(), 0), Ok(cost(1)));
    (1000..3000).for_each(|number| store(&cache, number, ObjectType::Regular, 1).unwrap());
    let stayed = listing.filter(|entry| entry.as_ref().unwrap().id == id(999));
    assert_eq!(stayed.count(), 1);
}

#[test]
fn data_that_was_read_outlives_its_eviction() {
    let cache = ram_cache(1 << 20);
    store(&cache, 1, ObjectType::Regular, 100).unwrap();
    let data = cache.read(&session(), &id(1), 10, 5).unwrap();
    assert_eq!(cache.shrink(&session(), 0), Ok(0));
    assert_eq!(data.into_bytes(), [1; 5][..]);
}

#[test]
fn a_panic_under_the_lock_does_not_end_the_cache() {
    let cache = ram_cache(1 << 20);
    store(&cache, 1, ObjectType::Regular, 100).unwrap();
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
        cache.shared().locked(|_| panic!("on purpose"));
    }));
    assert!(panicked.is_err());
    store(&cache, 2, ObjectType::Regular, 100).unwrap();
    assert!(has(&cache, 1) && has(&cache, 2));
    assert_eq!(cache.shrink(&session(), 0), Ok(0));
}

#[test]
fn many_threads_find_every_object_whole() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 3000;
    // Some forty objects fit, of the hundred that all threads use.
    let cache = ram_cache(40 * cost(1500));
    let part = |number: u32, nth: u32| Bytes::from(vec![(number + nth) as u8; 500]);
    let use_object = |number: u32, object_type| -> PluginResult<()> {
        if refer(&cache, number, 1).is_err() {
            let mut upload = begin(&cache, number, object_type, Some(1500))?;
            (0..3).try_for_each(|nth| upload.write(part(number, nth)))?;
            upload.commit()?;
        }
        let data = cache.read(&session(), &id(number), 250, 1000).unwrap().into_bytes();
        assert_eq!(data[..250], part(number, 0)[..250]);
        assert_eq!(data[250..750], part(number, 1));
        assert_eq!(data[750..], part(number, 2)[..250]);
        assert_eq!(cache.object_info(&session(), &id(number)).unwrap().size, 1500);
        refer(&cache, number, -1)
    };
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (cache, use_object) = (&cache, &use_object);
            scope.spawn(move || {
                let mut random = thread + 1;
                for round in 0..ROUNDS {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let number = (random >> 16) % 100;
                    let object_type = ObjectType::ALL[number as usize % 3];
                    // Four uploads and four open objects never fill the cache.
                    assert_eq!(use_object(number, object_type), Ok(()));
                    match round % 100 {
                        0 => assert!(cache.shrink(&session(), cost(1500) * 5).is_ok()),
                        50 => assert!(cache.list(&session(), object_type).unwrap().count() <= 40),
                        _ => {}
                    }
                    let info = cache.info(Some(&session())).unwrap();
                    assert!(info.pinned_bytes <= info.used_bytes);
                    assert!(info.used_bytes <= info.size_bytes);
                }
            });
        }
    });
    assert_consistent(&cache);
    assert_eq!(uploading(&cache), 0);
    assert_eq!(cache.shrink(&session(), 0), Ok(0));
}

#[test]
fn the_table_of_configuration_keys_is_that_of_the_cache() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/running-a-plugin.md");
    let marker = "<!-- configuration keys of the RAM cache -->\n";
    cvmcache_testkit::check_key_table(&page, marker, &[CacheSize::KEY]);
}
