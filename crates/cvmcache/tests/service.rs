//! The rules of the protocol, driven with plain values: no socket, no thread, no sleep.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use cvmcache::Limits;
use cvmcache::plugin::*;
use cvmcache::service::{OpenSession, Service};
use cvmcache_proto::{Operation, ReplyBody, Request, StorePart};
use support::{Fault, TestCache, id};

const PART: usize = 4096;

struct Fixture {
    cache: TestCache,
    service: Service,
}

/// A session, and what it says.
struct Client<'a> {
    service: &'a Service,
    open: Arc<OpenSession>,
}

fn fixture() -> Fixture {
    fixture_with(TestCache::default())
}

fn fixture_with(cache: TestCache) -> Fixture {
    let mut limits = Limits::default();
    limits.max_object_size = PART as u32;
    limits.max_text = 100;
    limits.max_uploads = 3;
    limits.max_listings = 2;
    limits.listing_part = 1000;
    let service = Service::new(Box::new(cache.clone()), "test", limits);
    Fixture { cache, service }
}

impl Fixture {
    fn client(&self, name: &'static str) -> Client<'_> {
        let (ack, open) = self.service.handshake(Some(name.into()), None).expect("a session");
        assert_eq!(ack.session, open.session().id());
        Client { service: &self.service, open }
    }
}

impl Client<'_> {
    fn ask_as(&self, id: u64, operation: Operation) -> ReplyBody {
        let session = self.open.session().id();
        let reply = self.service.handle(&self.open, Request { session, id, operation });
        assert_eq!(reply.id, id);
        reply.body
    }

    fn ask(&self, operation: Operation) -> ReplyBody {
        self.ask_as(77, operation)
    }

    fn change(&self, object: ObjectId, change_by: i32) -> Result<()> {
        match self.ask(Operation::Refcount { object, change_by }) {
            ReplyBody::Refcount(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn store(&self, upload: u64, part: StorePart) -> Result<()> {
        let number = part.number;
        match self.ask_as(upload, Operation::Store(part)) {
            ReplyBody::Store { result, part } => {
                assert_eq!(part, number);
                result
            }
            other => panic!("{other:?}"),
        }
    }

    fn abort(&self, upload: u64, object: ObjectId) -> Result<()> {
        match self.ask_as(upload, Operation::StoreAbort { object }) {
            ReplyBody::Store { result, part: 0 } => result,
            other => panic!("{other:?}"),
        }
    }

    fn read(&self, object: ObjectId, offset: u64, size: u32) -> Result<Bytes> {
        match self.ask(Operation::Read { object, offset, size }) {
            ReplyBody::Read { result, .. } => result.map(Data::into_bytes),
            other => panic!("{other:?}"),
        }
    }

    fn list(&self, listing: u64) -> Result<(u64, bool, Vec<ListEntry>)> {
        match self.ask(Operation::List { listing, object_type: ObjectType::Regular }) {
            ReplyBody::List { result, listing, last, entries } => {
                result.map(|()| (listing, last, entries))
            }
            other => panic!("{other:?}"),
        }
    }

    fn end(&self) {
        while !self.service.end(&self.open, 1) {}
    }
}

/// A part of object 1, whose size is not known.
fn part(number: u64, len: usize, last: bool) -> StorePart {
    StorePart {
        object: id(1),
        number,
        last,
        expected_size: None,
        object_type: ObjectType::Regular,
        description: None,
        data_crc32: None,
        data: vec![number as u8; len].into(),
    }
}

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
fn a_part_that_makes_no_sense_is_malformed_and_changes_nothing() {
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
fn an_announced_size_is_held_to_and_reserves_nothing() {
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
fn an_aborted_upload_leaves_nothing_and_its_number_is_free_again() {
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
fn a_session_gives_back_only_what_it_holds() {
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
    client.change(id(1), i32::MAX).unwrap();
    client.change(id(1), i32::MAX).unwrap();
    assert_eq!(client.change(id(1), i32::MAX), Err(Status::BadCount));
    client.end();
    assert_eq!(f.cache.references(id(1)), 0);
}

#[test]
fn the_end_of_a_session_ends_all_it_began() {
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
fn what_is_not_declared_is_not_called() {
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
fn without_reference_counts_opening_asks_whether_the_object_exists() {
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
fn without_reference_counts_a_stored_object_is_not_given_back() {
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
    // A client has no room for more than it asked for.
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
fn a_listing_belongs_to_who_started_it() {
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
fn texts_are_carried_verbatim_up_to_the_limit() {
    let f = fixture();
    let client = f.client("a");
    let described =
        |len| StorePart { description: Some(vec![0xff; len].into()), ..part(1, 3, true) };
    assert_eq!(client.store(1, described(101)), Err(Status::Malformed));
    client.store(1, described(100)).unwrap();
    let description = f.cache.state().objects[&id(1)].description.clone().unwrap();
    assert_eq!(description, vec![0xff; 100]);
    assert!(f.service.handshake(Some(vec![b'n'; 101].into()), None).is_err());
    let long = Operation::BreadcrumbLoad { repository: vec![b'r'; 101].into() };
    assert_eq!(client.ask(long), ReplyBody::Breadcrumb(Err(Status::Malformed)));
}

#[test]
fn a_breadcrumb_comes_back_as_it_was_left() {
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
fn a_shrink_that_falls_short_is_partial() {
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
fn the_number_of_clean_ups_is_told_only_if_it_is_declared() {
    let f = fixture_with(TestCache::with(Capabilities::ALL.without(Capabilities::SHRINK_RATE)));
    let ReplyBody::Info(Ok(info)) = f.client("a").ask(Operation::Info) else { panic!() };
    assert_eq!(info.shrink_count, None);
    let f = fixture();
    let ReplyBody::Info(Ok(info)) = f.client("a").ask(Operation::Info) else { panic!() };
    assert_eq!(info.shrink_count, Some(3));
}
