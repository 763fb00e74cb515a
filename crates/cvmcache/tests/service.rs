//! The rules of the protocol, driven with plain values: no socket, no thread, no sleep.

mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cvmcache::Limits;
use cvmcache::plugin::*;
use cvmcache::service::{Service, Trust};
use cvmcache_proto::{Operation, OperationKind, ReplyBody, StorePart};
use support::sessions::{Client, PART, fixture, fixture_with, part};
use support::{Fault, TestCache, id};

#[test]
fn replies_can_carry_a_checksum() {
    let cache = TestCache::default();
    cache.insert(id(1), "123456789");
    for on in [false, true] {
        let service = Service::new(Box::new(cache.clone()), "test", Limits::default());
        let service = service.checksum_replies(on);
        let (_, open) = service.handshake(None, None);
        let client = Client { service: &service, open };
        let read = Operation::Read { object: id(1), offset: 0, size: 100 };
        let ReplyBody::Read { data_crc32, .. } = client.ask(read) else { panic!() };
        // The check value of CRC-32.
        assert_eq!(data_crc32, on.then_some(0xcbf4_3926));
    }
}

#[test]
fn with_relaxed_isolation_a_session_releases_references_of_others() {
    let cache = TestCache::default();
    cache.insert(id(1), "abc");
    let mut trust = Trust::default();
    trust.foreign_references = true;
    let service = Service::new(Box::new(cache.clone()), "test", Limits::default()).trust(trust);
    let connect = || {
        let (_, open) = service.handshake(None, None);
        Client { service: &service, open }
    };
    let (one, other) = (connect(), connect());
    one.change(id(1), 2).unwrap();
    other.change(id(1), -1).unwrap();
    assert_eq!(cache.references(id(1)), 1);
    assert_eq!(other.change(id(1), -2), Err(Status::BadCount));
    // A release that the plugin refused was not the session's, and is not repeated at its end.
    other.end();
    assert_eq!(cache.references(id(1)), 1);
}

#[test]
fn a_panic_is_answered_and_leaves_the_plugin_serving() {
    let f = fixture();
    f.cache.insert(id(1), "abc");
    let client = f.client("a");
    for callback in ["change_refcount", "read", "list", "next", "begin", "write", "commit"] {
        f.cache.upset(callback, Fault::Panic);
    }
    assert_eq!(client.change(id(1), 1), Err(Status::IoErr));
    assert_eq!(client.read(id(1), 0, 3), Err(Status::IoErr));
    assert_eq!(client.list(0), Err(Status::IoErr));
    assert_eq!(client.list(0), Err(Status::IoErr));
    for _ in ["begin", "write", "commit"] {
        assert_eq!(client.store(1, part(1, 3, true)), Err(Status::IoErr));
    }
    assert_eq!(f.cache.left_open(), (0, 0));
    assert_eq!(client.read(id(1), 0, 3).unwrap(), "abc");
    client.end();
    assert_eq!(f.cache.references(id(1)), 0);
}

#[test]
fn a_session_releases_only_references_it_holds() {
    let f = fixture();
    f.cache.insert(id(1), "abc");
    let (one, other) = (f.client("a"), f.client("b"));
    one.change(id(1), 2).unwrap();
    assert_eq!(other.change(id(1), -1), Err(Status::BadCount));
    assert_eq!(one.change(id(1), -3), Err(Status::BadCount));
    assert_eq!(one.change(id(1), i32::MIN), Err(Status::BadCount));
    assert_eq!(one.change(id(9), -1), Err(Status::NoEntry));
    assert_eq!(f.cache.references(id(1)), 2);
    one.change(id(1), -2).unwrap();
    assert_eq!(f.cache.references(id(1)), 0);
}

#[test]
fn references_cannot_overflow() {
    let f = fixture();
    f.cache.insert(id(1), "abc");
    let client = f.client("a");
    for _ in 0..5 {
        client.change(id(1), i32::MAX).unwrap();
    }
    client.store(1, part(1, 3, true)).unwrap();
    assert_eq!(f.cache.references(id(1)), 5 * i64::from(i32::MAX) + 1);
    client.end();
    assert_eq!(f.cache.references(id(1)), 0);
}

#[test]
fn the_end_of_a_session_ends_its_uploads_listings_and_references() {
    let f = fixture();
    for byte in 1..50 {
        f.cache.insert(id(byte), "abc");
    }
    let (client, bystander) = (f.client("a"), f.client("b"));
    client.change(id(1), 3).unwrap();
    bystander.change(id(1), 1).unwrap();
    client.store(1, StorePart { object: id(100), ..part(1, 3, true) }).unwrap();
    client.store(2, part(1, PART, false)).unwrap();
    assert!(!client.list(0).unwrap().1);
    client.end();
    assert_eq!(f.cache.left_open(), (0, 0));
    assert_eq!(f.cache.references(id(1)), 1);
    assert_eq!(f.cache.references(id(100)), 0);
}

#[test]
fn methods_of_undeclared_capabilities_are_not_called() {
    let f = fixture_with(TestCache::with(Capabilities::NONE));
    f.cache.insert(id(1), "abc");
    let client = f.client("a");
    assert_eq!(client.store(1, part(1, 3, true)), Err(Status::NoSupport));
    assert_eq!(client.abort(1, id(1)), Err(Status::NoSupport));
    assert_eq!(client.list(0), Err(Status::NoSupport));
    assert_eq!(client.ask(Operation::Info), ReplyBody::Info(Err(Status::NoSupport)));
    let shrink = ReplyBody::Shrink { result: Err(Status::NoSupport), used_bytes: 0 };
    assert_eq!(client.ask(Operation::Shrink { target: 0 }), shrink);
    let load = Operation::BreadcrumbLoad { repository: "x".into() };
    assert_eq!(client.ask(load), ReplyBody::Breadcrumb(Err(Status::NoSupport)));
    assert_eq!(f.cache.state().calls, Vec::<&str>::new());
}

#[test]
fn a_declared_capability_without_its_method_logs_one_warning() {
    let f = fixture();
    f.cache.insert(id(1), "abc");
    for callback in ["begin", "begin", "shrink"] {
        f.cache.upset(callback, Fault::Fail(Status::NoSupport));
    }
    let client = f.client("a");
    let log = logged(|| {
        for _ in 0..2 {
            assert_eq!(client.store(1, part(1, 3, true)), Err(Status::NoSupport));
        }
        let shrink = ReplyBody::Shrink { result: Err(Status::NoSupport), used_bytes: 0 };
        assert_eq!(client.ask(Operation::Shrink { target: 0 }), shrink);
    });
    for (capability, method) in [("write", "begin"), ("shrink", "shrink")] {
        let names = format!("capability={capability} method=\"{method}\"");
        assert_eq!(log.matches(&names).count(), 1, "{log}");
    }
}

/// The warnings that are logged meanwhile, on this thread.
fn logged(body: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("what is logged").write(line)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, body);
    String::from_utf8(lines.0.lock().expect("what is logged").clone()).expect("what is logged")
}

#[test]
fn without_reference_counts_an_open_calls_object_info() {
    let f = fixture_with(TestCache::with(Capabilities::NONE));
    f.cache.insert(id(1), "abc");
    let client = f.client("a");
    client.change(id(1), 1).unwrap();
    client.change(id(1), -1).unwrap();
    assert_eq!(client.change(id(2), 1), Err(Status::NoEntry));
    assert_eq!(client.change(id(2), 0), Err(Status::NoEntry));
    assert_eq!(f.cache.state().calls, ["object_info"; 3]);
}

#[test]
fn without_reference_counts_a_commit_calls_no_change_refcount() {
    let f = fixture_with(TestCache::with(Capabilities::WRITE));
    let client = f.client("a");
    client.store(1, part(1, 3, true)).unwrap();
    client.end();
    assert_eq!(f.cache.state().calls, ["begin", "write", "commit"]);
}

#[test]
fn reads_are_bounded_on_both_sides() {
    let f = fixture();
    f.cache.insert(id(1), "abc");
    let client = f.client("a");
    assert_eq!(client.read(id(1), 0, PART as u32 + 1), Err(Status::Malformed));
    assert_eq!(client.read(id(1), 3, 5).unwrap(), "");
    assert_eq!(client.read(id(1), 4, 0), Err(Status::OutOfBounds));
    assert_eq!(client.read(id(1), u64::MAX, 1), Err(Status::OutOfBounds));
    assert_eq!(client.read(id(2), 0, 1), Err(Status::NoEntry));
    // A client has no room for more than it requested.
    f.cache.upset("read", Fault::TooMuch);
    assert_eq!(client.read(id(1), 0, 2), Err(Status::IoErr));
}

#[test]
fn a_listing_comes_in_parts_and_ends() {
    let f = fixture();
    for byte in 1..=100 {
        f.cache.insert(id(byte), "x");
    }
    f.cache.change(|state| {
        for object in state.objects.values_mut() {
            object.description = Some(vec![b'd'; 300].into());
        }
    });
    let client = f.client("a");
    let (listing, mut last, mut entries) = client.list(0).unwrap();
    while !last {
        let part = client.list(listing).unwrap();
        assert!(part.2.len() < 10);
        last = part.1;
        entries.extend(part.2);
    }
    assert_eq!(entries.len(), 100);
    // Descriptions are cut to the limit.
    assert!(entries.iter().all(|entry| entry.description.as_ref().unwrap().len() == 100));
    assert_eq!(client.list(listing), Err(Status::Malformed));
    assert_eq!(f.cache.left_open(), (0, 0));
}

#[test]
fn a_listing_belongs_to_the_session_that_started_it() {
    let f = fixture();
    for byte in 1..=100 {
        f.cache.insert(id(byte), "x");
    }
    let (client, other) = (f.client("a"), f.client("b"));
    let (listing, _, _) = client.list(0).unwrap();
    assert_eq!(other.list(listing), Err(Status::Malformed));
    assert_eq!(client.list(u64::MAX), Err(Status::Malformed));
    client.list(0).unwrap();
    assert_eq!(client.list(0), Err(Status::NoSpace));
    f.cache.upset("next", Fault::Fail(Status::IoErr));
    assert_eq!(client.list(listing), Err(Status::IoErr));
    client.list(0).unwrap();
}

#[test]
fn open_listings_of_all_sessions_are_limited_and_each_may_have_one() {
    let cache = TestCache::default();
    (1..=100).for_each(|byte| cache.insert(id(byte), "x"));
    let mut limits = Limits::default();
    limits.listing_part = 1000;
    limits.max_listings_total = 4;
    let service = Service::new(Box::new(cache.clone()), "test", limits);
    let connect = || {
        let (_, open) = service.handshake(None, None);
        Client { service: &service, open }
    };
    let (most, other) = (connect(), connect());
    let (first, _, _) = most.list(0).unwrap();
    most.list(0).unwrap();
    assert_eq!(most.list(0).unwrap_err(), Status::NoSpace);
    other.list(0).unwrap();
    assert_eq!(other.list(0).unwrap_err(), Status::NoSpace);
    other.end();
    while !most.list(first).unwrap().1 {}
    most.list(0).unwrap();
}

#[test]
fn texts_reach_the_plugin_verbatim_up_to_the_limit() {
    let f = fixture();
    let client = f.client("a");
    let described =
        |len| StorePart { description: Some(vec![0xff; len].into()), ..part(1, 3, true) };
    client.store(1, described(100)).unwrap();
    let description = f.cache.state().objects[&id(1)].description.clone().unwrap();
    assert_eq!(description, vec![0xff; 100]);
    let (_, open) = f.service.handshake(Some(vec![b'n'; 100].into()), None);
    assert_eq!(open.session().name(), [b'n'; 100]);
}

#[test]
fn descriptions_and_client_names_over_the_limit_are_cut_before_a_character() {
    let f = fixture();
    let client = f.client("a");
    let long = Bytes::from("\u{20ac}".repeat(20_000));
    let description = Some(long.clone());
    client.store(1, StorePart { description, ..part(1, 3, true) }).unwrap();
    let kept = f.cache.state().objects[&id(1)].description.clone().unwrap();
    assert_eq!(kept, long[..99]);
    assert_eq!(client.read(id(1), 0, 10).unwrap(), vec![1; 3]);
    let (ack, open) = f.service.handshake(Some(long.clone()), None);
    assert_eq!((ack.result, open.session().name()), (Ok(()), &long[..99]));
}

/// Cut names of two repositories could be one.
#[test]
fn names_of_repositories_over_the_limit_are_malformed() {
    let f = fixture();
    let client = f.client("a");
    let repository = Bytes::from(vec![b'r'; 101]);
    let breadcrumb = Breadcrumb { catalog: id(1), timestamp: 7, revision: None };
    for operation in [
        Operation::BreadcrumbLoad { repository: repository.clone() },
        Operation::BreadcrumbStore { repository, breadcrumb },
    ] {
        assert_eq!(client.ask(operation), ReplyBody::Breadcrumb(Err(Status::Malformed)));
    }
}

#[test]
fn a_breadcrumb_is_loaded_as_it_was_stored() {
    let f = fixture();
    let client = f.client("a");
    let repository = Bytes::from_static(b"caf\xe9.cern.ch");
    let breadcrumb = Breadcrumb { catalog: id(1), timestamp: 7, revision: Some(u64::MAX) };
    let load = Operation::BreadcrumbLoad { repository: repository.clone() };
    assert_eq!(client.ask(load.clone()), ReplyBody::Breadcrumb(Err(Status::NoEntry)));
    let store = Operation::BreadcrumbStore { repository: repository.clone(), breadcrumb };
    assert_eq!(client.ask(store), ReplyBody::Breadcrumb(Ok(None)));
    assert_eq!(client.ask(load), ReplyBody::Breadcrumb(Ok(Some((repository, breadcrumb)))));
}

#[test]
fn the_number_of_clean_ups_is_sent_only_with_its_capability() {
    let f = fixture_with(TestCache::with(Capabilities::ALL.difference(Capabilities::SHRINK_RATE)));
    let ReplyBody::Info(Ok(info)) = f.client("a").ask(Operation::Info) else { panic!() };
    assert_eq!(info.shrink_count, None);
    let f = fixture();
    let ReplyBody::Info(Ok(info)) = f.client("a").ask(Operation::Info) else { panic!() };
    assert_eq!(info.shrink_count, Some(3));
}

#[test]
fn a_shrink_above_its_target_is_partial() {
    let f = fixture();
    f.cache.insert(id(1), "abc");
    f.cache.insert(id(2), "defg");
    let client = f.client("a");
    client.change(id(1), 1).unwrap();
    let partial = ReplyBody::Shrink { result: Err(Status::Partial), used_bytes: 3 };
    assert_eq!(client.ask(Operation::Shrink { target: 0 }), partial);
    let enough = ReplyBody::Shrink { result: Ok(()), used_bytes: 3 };
    assert_eq!(client.ask(Operation::Shrink { target: 3 }), enough);
}

#[test]
fn every_operation_of_the_protocol_is_known_to_the_service() {
    let f = fixture();
    f.cache.insert(id(1), "abc");
    let client = f.client("a");
    let refcount = |change_by| Operation::Refcount { object: id(1), change_by };
    let breadcrumb = Breadcrumb { catalog: id(1), timestamp: 1, revision: None };
    let operations = [
        refcount(1),
        refcount(0),
        refcount(-1),
        Operation::ObjectInfo { object: id(1) },
        Operation::Read { object: id(1), offset: 0, size: 3 },
        Operation::Store(part(1, 3, true)),
        Operation::StoreAbort { object: id(1) },
        Operation::List { listing: 0, object_type: ObjectType::Regular },
        Operation::Shrink { target: 0 },
        Operation::Info,
        Operation::BreadcrumbStore { repository: "a".into(), breadcrumb },
        Operation::BreadcrumbLoad { repository: "a".into() },
    ];
    assert_eq!(operations.each_ref().map(Operation::kind), OperationKind::ALL);
    for operation in operations {
        let kind = operation.kind();
        assert_ne!(client.ask(operation).status(), Err(Status::NoSupport), "{kind:?}");
    }
}
