//! What an administrator has a tier do.

use std::thread;
use std::time::Duration;

use cvmcache::CachePlugin;
use cvmcache::admin::{Arguments, Value};
use cvmcache::plugin::Status;
use cvmcache_disk::DiskCache;
use serde_json::json;

use super::store::Fault;
use super::{Test, content, id};
use crate::key::StoreKey;
use crate::markers::State;
use crate::tiered::Tiered;

/// Executes a command, waits for the job that it has started, and returns what came of it.
fn job(cache: &Tiered<DiskCache>, command: &str, arguments: Value) -> Value {
    execute(cache, command, arguments).expect("the job starts");
    loop {
        let job = execute(cache, "job", json!({})).expect("there is a job");
        if job["running"] == json!(false) {
            return job;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn execute(cache: &Tiered<DiskCache>, command: &str, arguments: Value) -> Result<Value, String> {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let arguments: Arguments = arguments;
    let administration = cache.administration().expect("a tier has commands");
    administration.execute(command, &arguments).map_err(|error| error.to_string())
}

#[test]
fn objects_are_archived_and_recalled_by_id_and_all_together() {
    let test = Test::new();
    let cache = test.start();
    for number in 0..10 {
        test.store(&cache, &id(number), &content(number, 1000));
    }
    let dry = execute(&cache, "archive", json!({"older_than": 0, "dry_run": true})).unwrap();
    assert_eq!(dry, json!({"objects": 10, "bytes": 10_000}));
    let one = job(&cache, "archive", json!({"ids": [id(1).to_string(), id(99).to_string()]}));
    assert_eq!((&one["done"], &one["failed"]), (&json!(1), &json!(1)));
    assert!(one["failures"][0].as_str().unwrap().contains("it is not here"), "{one}");
    let all = job(&cache, "archive", json!({"older_than": 0}));
    assert_eq!((&all["done"], &all["failed"]), (&json!(9), &json!(0)));
    let status = execute(&cache, "tier-status", json!({})).unwrap();
    assert_eq!(status["states"]["remote"], json!({"objects": 10, "bytes": 10_000}));

    let recalled = job(&cache, "recall", json!({"ids": [id(1).to_string()]}));
    assert_eq!(recalled["done"], json!(1));
    assert!(test.is_local(&cache, &id(1)));
    let recalled = job(&cache, "recall", json!({"all": true}));
    assert_eq!((&recalled["done"], &recalled["failed"]), (&json!(9), &json!(0)));
    let status = execute(&cache, "tier-status", json!({})).unwrap();
    assert_eq!(status["states"]["remote"]["objects"], json!(0));
    let info = cache.info(None).unwrap();
    assert_eq!(info.pinned_bytes, 0, "no reference is left");
}

#[test]
fn arguments_that_are_not_understood_are_errors_with_a_remedy() {
    let test = Test::new();
    let cache = test.start();
    for (command, arguments, remedy) in [
        ("archive", json!({}), "older_than"),
        ("archive", json!({"older_than": "30d"}), "a number of seconds"),
        ("archive", json!({"older_than": 1, "ids": []}), "write either"),
        ("archive", json!({"ids": ["xyz"]}), "hexadecimal"),
        ("recall", json!({}), "write either"),
        ("recall", json!({"all": 1}), "true or false"),
        ("gc", json!({"forget": "../../x"}), "not the id of another cache"),
        ("nonsense", json!({}), "nonsense"),
    ] {
        let error = execute(&cache, command, arguments).unwrap_err();
        assert!(error.contains(remedy), "{command}: {error}");
    }
}

#[test]
fn scrubbing_finds_what_is_damaged_here_and_in_the_store() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"remote");
    job(&cache, "archive", json!({"older_than": 0}));
    test.store(&cache, &id(2), b"local");
    let good = job(&cache, "scrub-tier", json!({"remote": true}));
    assert_eq!((&good["done"], &good["failed"]), (&json!(2), &json!(0)));
    test.store.fail(Fault::DamagesOnce);
    let on_its_way = job(&cache, "scrub-tier", json!({"remote": true}));
    assert_eq!(on_its_way["failed"], json!(0));
    test.store.damage();
    let bad = job(&cache, "scrub-tier", json!({"remote": true}));
    assert_eq!((&bad["done"], &bad["failed"]), (&json!(1), &json!(1)));
    assert_eq!(test.state(&cache, &id(1)), Some(State::Error));
    test.store.damage();
    job(&cache, "scrub-tier", json!({"remote": true}));
    assert_eq!(test.state(&cache, &id(1)), Some(State::Remote), "it was mended there");
}

#[test]
fn gc_finds_objects_that_no_cache_needs_and_deletes_them_only_when_told() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"needed");
    test.store(&cache, &id(2), b"no more");
    job(&cache, "archive", json!({"older_than": 0}));
    let marker = test.marker(&cache, &id(2)).unwrap();
    cache.tier.markers.apply(&[(id(2), None)], true).unwrap();
    let objects = test.store.len();

    let dry = job(&cache, "gc", json!({"grace": 3600}));
    assert_eq!((&dry["done"], &dry["error"]), (&json!(1), &Value::Null), "{dry}");
    assert_eq!(test.store.len(), objects);
    let real = job(&cache, "gc", json!({"grace": 3600, "delete": true}));
    assert_eq!(real["done"], json!(1));
    let key = StoreKey::of_object(&id(2), &marker.digest);
    assert!(!test.store.objects.lock().contains_key(&key));
    assert_eq!(test.read(&cache, &id(1)).unwrap(), b"needed");
}

#[test]
fn gc_deletes_nothing_that_another_cache_needs_nor_if_its_list_is_old_or_damaged() {
    let test = Test::new();
    let other = Test { store: test.store.clone(), ..Test::new() };
    let cache = test.start();
    let other_cache = other.start();
    other.store(&other_cache, &id(1), b"of the other");
    job(&other_cache, "archive", json!({"older_than": 0}));
    let delete = json!({"grace": 3600, "delete": true});
    let done = job(&cache, "gc", delete.clone());
    assert_eq!((&done["done"], &done["error"]), (&json!(0), &Value::Null), "{done}");

    let key = StoreKey::of_markers(other_cache.tier.markers.cache_id());
    let list = test.store.objects.lock().get(&key).cloned().unwrap();
    let mut old = list.to_vec();
    old[10..18].fill(0);
    let end = old.len() - 32;
    let checksum = blake3::hash(&old[..end]);
    old[end..].copy_from_slice(checksum.as_bytes());
    for (bad, reason) in [
        (old, "old, more than the grace"),
        (list[..40].to_vec(), "its length"),
        ([&list[..list.len() - 1], b"x"].concat(), "checksum"),
        (b"<html>".to_vec(), "no list"),
    ] {
        test.store.objects.lock().insert(key.clone(), bad.into());
        let refused = job(&cache, "gc", delete.clone());
        let error = refused["error"].as_str().unwrap();
        assert!(error.contains(reason), "{error}");
        assert!(error.contains(other_cache.tier.markers.cache_id()), "{error}");
        assert_eq!(refused["done"], json!(0));
    }
    assert_eq!(other.read(&other_cache, &id(1)).unwrap(), b"of the other");
    let forget = json!({"forget": other_cache.tier.markers.cache_id()});
    execute(&cache, "gc", forget).unwrap();
    assert_eq!(job(&cache, "gc", delete)["done"], json!(1));
}

#[test]
fn gc_goes_by_the_clock_of_the_store() {
    let test = Test::new();
    let cache = test.start();
    test.store(&cache, &id(1), b"of another cache, in none of its lists yet");
    job(&cache, "archive", json!({"older_than": 0}));
    cache.tier.markers.apply(&[(id(1), None)], true).unwrap();
    *test.store.behind.lock() = Duration::from_secs(30 * 24 * 3600);
    let objects = test.store.len();
    let done = job(&cache, "gc", json!({"grace": 3600, "delete": true}));
    assert_eq!((&done["done"], &done["error"]), (&json!(0), &Value::Null), "{done}");
    assert_eq!(test.store.len(), objects);
}

#[test]
fn gc_stops_at_a_store_that_fails() {
    let test = Test::new();
    let cache = test.start();
    test.store.fail(Fault::Unavailable);
    let refused = job(&cache, "gc", json!({"grace": 3600, "delete": true}));
    assert!(refused["error"].as_str().unwrap().contains("not available"), "{refused}");
}

#[test]
fn markers_that_were_lost_are_made_again_from_the_store() {
    let test = Test::new();
    let cache = test.start();
    for number in 0..20 {
        test.store(&cache, &id(number), &content(number, 5000 * number as usize + 1));
    }
    job(&cache, "archive", json!({"older_than": 0}));
    let before = test.marker(&cache, &id(3)).unwrap();
    drop(cache);
    std::fs::write(test.cache_directory().join(crate::tiered::MARKERS), [7; 5000]).unwrap();
    let cache = test.start();
    assert_eq!(test.read(&cache, &id(3)), Err(Status::NoEntry));
    let rebuilt = job(&cache, "rebuild", json!({}));
    assert_eq!((&rebuilt["done"], &rebuilt["failed"]), (&json!(20), &json!(0)), "{rebuilt}");
    let after = test.marker(&cache, &id(3)).unwrap();
    assert_eq!((after.len, after.digest, after.state), (before.len, before.digest, State::Remote));
    for number in 0..20 {
        let content = content(number, 5000 * number as usize + 1);
        assert_eq!(test.read(&cache, &id(number)).unwrap(), content);
    }
}
