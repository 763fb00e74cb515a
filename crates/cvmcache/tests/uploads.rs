//! The rules of uploads, driven with plain values: no socket, no thread, no sleep.

mod support;

use cvmcache::Limits;
use cvmcache::plugin::*;
use cvmcache::service::Service;
use cvmcache_proto::StorePart;
use support::sessions::{Client, PART, fixture, part};
use support::{Fault, TestCache, id};

#[test]
fn an_upload_in_parts_becomes_an_object_with_one_reference() {
    let f = fixture();
    let client = f.client("a");
    client.store(5, part(1, PART, false)).unwrap();
    client.store(5, part(2, PART, false)).unwrap();
    assert!(f.cache.state().objects.is_empty());
    client.store(5, part(3, 10, true)).unwrap();
    assert_eq!(f.cache.references(id(1)), 1);
    assert_eq!(client.read(id(1), 2 * PART as u64 - 1, 3).unwrap(), [2, 3, 3][..]);
    client.change(id(1), -1).unwrap();
    assert_eq!(f.cache.references(id(1)), 0);
}

#[test]
fn a_last_part_may_be_full_or_empty() {
    let f = fixture();
    let client = f.client("a");
    client.store(1, part(1, PART, true)).unwrap();
    client.store(2, StorePart { object: id(2), ..part(1, 0, true) }).unwrap();
    client.store(3, StorePart { object: id(3), ..part(1, PART, false) }).unwrap();
    client.store(3, StorePart { object: id(3), ..part(2, 0, true) }).unwrap();
    let sizes: Vec<_> = f.cache.state().objects.values().map(|o| o.data.len()).collect();
    assert_eq!(sizes, [PART, 0, PART]);
}

#[test]
fn an_invalid_part_is_malformed_and_leaves_the_upload_unchanged() {
    let f = fixture();
    let client = f.client("a");
    let expecting = |part: StorePart| StorePart { expected_size: Some(2 * PART as u64), ..part };
    client.store(5, expecting(part(1, PART, false))).unwrap();
    for (what, bad) in [
        ("the first part again", part(1, PART, false)),
        ("a part number skipped", part(3, PART, false)),
        ("part number zero", part(0, PART, false)),
        ("part number 2^64-1", part(u64::MAX, PART, false)),
        ("another object", StorePart { object: id(2), ..part(2, PART, false) }),
        ("a short part that is not the last", part(2, PART - 1, false)),
        ("a part that is too large", part(2, PART + 1, true)),
        ("less than expected in all", part(2, PART - 1, true)),
    ] {
        assert_eq!(client.store(5, bad), Err(Status::Malformed), "{what}");
    }
    assert_eq!(client.store(6, part(2, PART, false)), Err(Status::Malformed));
    assert_eq!(client.abort(5, id(2)), Err(Status::Malformed));
    // The upload is as it was.
    client.store(5, part(2, PART, false)).unwrap();
    assert_eq!(client.store(5, part(3, 1, true)), Err(Status::Malformed));
    client.store(5, part(3, 0, true)).unwrap();
    assert_eq!(client.read(id(1), 0, PART as u32).unwrap().len(), PART);
}

#[test]
fn an_announced_size_is_enforced_and_reserves_nothing() {
    let f = fixture();
    let client = f.client("a");
    let of_size = |size, part| StorePart { expected_size: Some(size), ..part };
    for size in [1 << 63, 1_000_000_000_000, (1 << 32) - 40, 11, 9] {
        assert_eq!(client.store(1, of_size(size, part(1, 10, true))), Err(Status::Malformed));
    }
    assert_eq!(f.cache.state().calls, Vec::<&str>::new());
    client.store(1, of_size(1 << 63, part(1, PART, false))).unwrap();
    assert_eq!(client.store(1, part(2, 1, true)), Err(Status::Malformed));
    client.abort(1, id(1)).unwrap();
    assert_eq!(f.cache.left_open(), (0, 0));
}

#[test]
fn an_aborted_upload_is_dropped_and_its_number_is_free_again() {
    let f = fixture();
    let client = f.client("a");
    client.store(5, part(1, PART, false)).unwrap();
    client.abort(5, id(1)).unwrap();
    assert_eq!(client.abort(5, id(1)), Err(Status::Malformed));
    assert_eq!(client.store(5, part(2, 1, true)), Err(Status::Malformed));
    assert_eq!(f.cache.left_open(), (0, 0));
    client.store(5, part(1, 3, true)).unwrap();
}

#[test]
fn a_failure_with_the_first_part_frees_the_number() {
    let f = fixture();
    let client = f.client("a");
    for callback in ["begin", "write", "commit"] {
        f.cache.upset(callback, Fault::Fail(Status::NoSpace));
        assert_eq!(client.store(5, part(1, 9, true)), Err(Status::NoSpace));
        assert_eq!(f.cache.left_open(), (0, 0), "{callback}");
    }
    client.store(5, part(1, 9, true)).unwrap();
}

#[test]
fn a_failure_later_on_drops_the_upload_and_waits_for_the_abort() {
    let f = fixture();
    let client = f.client("a");
    client.store(5, part(1, PART, false)).unwrap();
    f.cache.upset("write", Fault::Fail(Status::NoSpace));
    assert_eq!(client.store(5, part(2, PART, false)), Err(Status::NoSpace));
    assert_eq!(f.cache.left_open(), (0, 0));
    assert_eq!(client.store(5, part(3, 1, true)), Err(Status::NoSpace));
    client.abort(5, id(1)).unwrap();
}

#[test]
fn bytes_in_open_uploads_are_limited() {
    let f = fixture();
    let client = f.client("a");
    for number in 1..=4 {
        client.store(1, part(number, PART, false)).unwrap();
    }
    client.store(2, part(1, PART, false)).unwrap();
    assert_eq!(client.store(2, part(2, PART, false)), Err(Status::NoSpace));
    // What failed counts no more.
    client.store(1, part(5, PART, false)).unwrap();
    client.abort(2, id(1)).unwrap();
    assert_eq!(client.store(2, part(1, 1, true)), Err(Status::NoSpace));
    client.store(1, part(6, 0, true)).unwrap();
    for number in 1..=5 {
        client.store(3, part(number, PART, false)).unwrap();
    }
}

#[test]
fn an_upload_without_parts_is_aborted_at_its_timeout() {
    let f = fixture();
    let client = f.client("a");
    client.store(1, part(1, PART, false)).unwrap();
    client.store(2, StorePart { object: id(2), ..part(1, PART, false) }).unwrap();
    for number in 2..6 {
        f.service.sweep(&client.open);
        f.service.abort_idle(&client.open, usize::MAX);
        assert_eq!(client.store(1, part(number, PART, false)), Ok(()), "{number}");
        if number == 4 {
            // The other one has been idle for three sweeps, and its bytes count no more.
            assert_eq!(f.cache.left_open(), (1, 0));
        }
    }
    let late = StorePart { object: id(2), ..part(2, PART, false) };
    assert_eq!(client.store(2, late), Err(Status::Timeout));
    client.abort(2, id(2)).unwrap();
    client.store(1, part(6, 0, true)).unwrap();
}

#[test]
fn idle_uploads_are_aborted_in_steps_however_many_there_are() {
    let (cache, mut limits) = (TestCache::default(), Limits::default());
    limits.max_object_size = PART as u32;
    let sessions = limits.max_uploads_total / limits.max_uploads / 2;
    let service = Service::new(Box::new(cache.clone()), "test", limits.clone());
    let clients: Vec<_> = (0..sessions)
        .map(|_| Client { service: &service, open: service.handshake(None, None).1 })
        .collect();
    for client in &clients {
        for upload in 0..limits.max_uploads as u64 {
            client.store(upload, part(1, PART, false)).unwrap();
        }
    }
    let all = sessions * limits.max_uploads;
    for _ in 0..3 {
        assert_eq!(cache.left_open(), (all, 0), "a sweep calls no plugin");
        clients.iter().for_each(|client| service.sweep(&client.open));
    }
    let (first, rest) = clients.split_first().unwrap();
    assert_eq!(service.abort_idle(&first.open, 16), 16);
    assert_eq!(cache.left_open(), (all - 16, 0));
    // A part that comes before its upload is aborted is too late all the same.
    assert_eq!(first.store(0, part(2, PART, false)), Err(Status::Timeout));
    first.abort(0, id(1)).unwrap();
    // The end of a session takes what is left in steps as well.
    assert!(!service.end(&first.open, 16));
    assert_eq!(cache.left_open(), (all - 32, 0));
    while !service.end(&first.open, 16) {}
    for client in rest {
        assert_eq!(service.abort_idle(&client.open, usize::MAX), limits.max_uploads);
        assert!(service.end(&client.open, usize::MAX));
    }
    assert_eq!(cache.left_open(), (0, 0));
}

#[test]
fn bytes_in_open_uploads_of_all_sessions_are_limited_and_each_may_have_one_part() {
    let (cache, mut limits) = (TestCache::default(), Limits::default());
    limits.max_object_size = PART as u32;
    limits.max_upload_bytes_total = 16 * PART as u64;
    let service = Service::new(Box::new(cache.clone()), "test", limits);
    let client = || Client { service: &service, open: service.handshake(None, None).1 };
    let fill = |client: &Client<'_>| {
        let parts = (1..).take_while(|&number| client.store(1, part(number, PART, false)).is_ok());
        parts.count()
    };
    let (first, second) = (client(), client());
    assert_eq!(fill(&first), 8, "half of it goes to the session that comes first");
    assert_eq!(cache.left_open(), (0, 0), "what was refused is ended, and counts no more");
    first.abort(1, id(1)).unwrap();
    for number in 1..=8 {
        first.store(1, part(number, PART, false)).unwrap();
    }
    assert_eq!(fill(&second), 4, "its fair share");
    second.abort(1, id(1)).unwrap();
    let late: Vec<_> = (0..40).map(|_| client()).collect();
    for client in &late {
        client.store(1, part(1, PART, false)).unwrap();
    }
    for client in &late {
        assert_eq!(client.store(2, part(1, 1, true)), Err(Status::NoSpace), "one part is there");
        client.store(1, part(2, 0, true)).unwrap();
        client.store(3, part(1, PART, true)).unwrap();
    }
    // All that was counted is given back, whatever became of the uploads.
    for client in late.iter().chain([&first, &second]) {
        assert!(service.end(&client.open, usize::MAX));
    }
    assert_eq!(fill(&client()), 8);
}

#[test]
fn a_part_with_a_wrong_checksum_leaves_the_upload_unchanged() {
    let f = fixture();
    let client = f.client("a");
    let checked = |crc| StorePart { data_crc32: Some(crc), ..part(1, 9, true) };
    let crc = crc32fast::hash(&[1; 9]);
    assert_eq!(client.store(1, checked(crc ^ 1)), Err(Status::Corrupted));
    assert_eq!(f.cache.state().calls, Vec::<&str>::new());
    client.store(1, checked(crc)).unwrap();
}

#[test]
fn an_upload_that_would_become_one_open_object_too_many_takes_no_space() {
    let cache = TestCache::default();
    let mut limits = Limits::default();
    limits.max_object_size = PART as u32;
    limits.max_references = Some(2);
    let service = Service::new(Box::new(cache.clone()), "test", limits);
    let (_, open) = service.handshake(None, None);
    let client = Client { service: &service, open };
    let of = |object, number, len| StorePart { object, ..part(number, len, len < PART) };
    client.store(1, of(id(1), 1, PART)).unwrap();
    client.store(2, of(id(2), 1, 3)).unwrap();
    assert_eq!(client.store(1, of(id(1), 2, 3)), Err(Status::NoSpace), "it began in time");
    assert_eq!(client.store(3, of(id(3), 1, 3)), Err(Status::NoSpace));
    assert_eq!(client.abort(1, id(1)), Err(Status::Malformed), "it is over");
    client.change(id(2), -1).unwrap();
    client.store(1, of(id(1), 1, 3)).unwrap();
}

#[test]
fn open_uploads_of_all_sessions_are_limited_and_each_may_have_one() {
    let mut limits = Limits::default();
    limits.max_object_size = PART as u32;
    limits.max_uploads_total = 4;
    let service = Service::new(Box::new(TestCache::default()), "test", limits);
    let connect = || {
        let (_, open) = service.handshake(None, None);
        Client { service: &service, open }
    };
    let (most, other) = (connect(), connect());
    most.store(1, part(1, PART, false)).unwrap();
    most.store(2, part(1, PART, false)).unwrap();
    assert_eq!(most.store(3, part(1, PART, false)), Err(Status::NoSpace));
    other.store(1, part(1, PART, false)).unwrap();
    assert_eq!(other.store(2, part(1, PART, false)), Err(Status::NoSpace));
    let others: Vec<_> = (0..5).map(|_| connect()).collect();
    others.iter().for_each(|client| client.store(1, part(1, PART, false)).unwrap());
    others.iter().for_each(Client::end);
    most.store(1, part(2, 3, true)).unwrap();
    most.abort(2, id(1)).unwrap();
    other.end();
    // All room is there again.
    most.store(1, part(1, PART, false)).unwrap();
    most.store(2, part(1, PART, false)).unwrap();
}

#[test]
fn many_uploads_end_with_their_session_in_steps() {
    let cache = TestCache::default();
    let mut limits = Limits::default();
    limits.max_object_size = PART as u32;
    let service = Service::new(Box::new(cache.clone()), "test", limits);
    let (_, open) = service.handshake(None, None);
    let client = Client { service: &service, open };
    (0..100).for_each(|upload| client.store(upload, part(1, PART, false)).unwrap());
    let mut left = cache.state().open_uploads;
    assert_eq!(left, 100);
    while !service.end(&client.open, 256) {
        let now = cache.state().open_uploads;
        assert!((1..=16).contains(&(left - now)), "{left} {now}");
        left = now;
    }
    assert_eq!((cache.state().open_uploads, service.uploads(&client.open)), (0, (0, 0)));
}

#[test]
fn open_uploads_are_limited() {
    let f = fixture();
    let client = f.client("a");
    for upload in 0..3 {
        client.store(upload, part(1, PART, false)).unwrap();
    }
    assert_eq!(client.store(3, part(1, PART, false)), Err(Status::NoSpace));
    client.abort(0, id(1)).unwrap();
    client.store(3, part(1, PART, false)).unwrap();
    // Another session has its own.
    f.client("b").store(3, part(1, PART, false)).unwrap();
}
