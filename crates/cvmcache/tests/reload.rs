//! Reloads: references outlive a session that has announced a reload, and no other session.

mod support;

use cvmcache::plugin::*;
use cvmcache::service::Service;
use cvmcache::{Limits, Session};
use cvmcache_proto::{Operation, ReplyBody, Request};
use support::{TestCache, id};

struct Client<'a> {
    service: &'a Service,
    open: std::sync::Arc<cvmcache::service::OpenSession>,
}

fn service() -> (TestCache, Service) {
    let cache = TestCache::default();
    for byte in 1..=3 {
        cache.insert(id(byte), "abc");
    }
    (cache.clone(), Service::new(Box::new(cache), "test", Limits::default()))
}

fn connect<'a>(service: &'a Service, name: &'static str) -> Client<'a> {
    let (_, open) = service.handshake(Some(name.into()), None);
    Client { service, open }
}

impl Client<'_> {
    fn session(&self) -> &Session {
        self.open.session()
    }

    fn change(&self, byte: u8, change_by: i32) -> PluginResult<()> {
        let operation = Operation::Refcount { object: id(byte), change_by };
        let request = Request { session: self.session().id(), id: 1, operation };
        match self.service.handle(&self.open, request).body {
            ReplyBody::Refcount(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn ioctl(&self, change: i32) {
        self.service.ioctl(&self.open, change);
    }

    fn end(self) {
        assert!(self.service.end(&self.open, usize::MAX));
    }

    /// Announces a reload, and ends the session.
    fn go_to_reload(self) {
        self.ioctl(1);
        self.end();
    }
}

/// Opens the session of a successor.
fn come_back<'a>(service: &'a Service, name: &'static str) -> Client<'a> {
    let client = connect(service, name);
    client.ioctl(-1);
    client
}

#[test]
fn references_pass_to_the_successor() {
    let (cache, service) = service();
    let old = connect(&service, "repo:1");
    old.change(1, 2).unwrap();
    old.go_to_reload();
    assert_eq!((cache.references(id(1)), service.pending_reloads()), (2, 1));

    let new = come_back(&service, "repo:1");
    assert_eq!(service.pending_reloads(), 0);
    new.change(1, 1).unwrap();
    new.change(1, -2).unwrap();
    assert_eq!(cache.references(id(1)), 1);
    assert_eq!(new.change(1, -2), Err(Status::BadCount));
    new.end();
    assert_eq!(cache.references(id(1)), 0);
}

#[test]
fn a_session_of_another_name_is_no_successor() {
    let (cache, service) = service();
    let old = connect(&service, "repo:1");
    old.change(1, 1).unwrap();
    old.go_to_reload();
    let stranger = come_back(&service, "repo:2");
    assert_eq!(stranger.change(1, -1), Err(Status::BadCount));
    assert_eq!(service.pending_reloads(), 1);
    stranger.end();
    // Nor is one of the same name that reported no reload done.
    let newcomer = connect(&service, "repo:1");
    assert_eq!(newcomer.change(1, -1), Err(Status::BadCount));
    newcomer.end();
    assert_eq!(cache.references(id(1)), 1);
}

#[test]
fn two_clients_of_one_name_that_reload_at_once_lose_no_reference() {
    let (cache, service) = service();
    let (one, two) = (connect(&service, "repo:1"), connect(&service, "repo:1"));
    one.change(1, 1).unwrap();
    two.change(2, 1).unwrap();
    one.go_to_reload();
    two.go_to_reload();

    let one = come_back(&service, "repo:1");
    one.change(1, -1).unwrap();
    one.end();
    // The other one is still away.
    assert_eq!((cache.references(id(1)), cache.references(id(2))), (0, 1));
    let two = come_back(&service, "repo:1");
    two.change(2, -1).unwrap();
    two.end();
    assert_eq!((cache.references(id(2)), service.pending_reloads()), (0, 0));
}

#[test]
fn references_that_no_successor_gives_back_end_with_the_last_successor() {
    let (cache, service) = service();
    for byte in [1, 2] {
        let old = connect(&service, "repo:1");
        old.change(byte, 1).unwrap();
        old.go_to_reload();
    }
    let (one, two) = (come_back(&service, "repo:1"), come_back(&service, "repo:1"));
    one.end();
    assert_eq!((cache.references(id(1)), cache.references(id(2))), (1, 1));
    two.end();
    assert_eq!((cache.references(id(1)), cache.references(id(2))), (0, 0));
}

#[test]
fn a_second_reload_hands_over_the_references_of_the_first() {
    let (cache, service) = service();
    let first = connect(&service, "repo:1");
    first.change(1, 1).unwrap();
    first.go_to_reload();
    let second = come_back(&service, "repo:1");
    second.change(2, 1).unwrap();
    second.go_to_reload();
    let third = come_back(&service, "repo:1");
    third.change(1, -1).unwrap();
    third.end();
    assert_eq!((cache.references(id(1)), cache.references(id(2))), (0, 0));
}

#[test]
fn a_successor_may_connect_before_the_old_session_ends() {
    let (cache, service) = service();
    let old = connect(&service, "repo:1");
    old.change(1, 1).unwrap();
    old.ioctl(1);
    let new = come_back(&service, "repo:1");
    old.end();
    assert_eq!(cache.references(id(1)), 1);
    new.change(1, -1).unwrap();
    new.end();
    assert_eq!(service.pending_reloads(), 0);
}

#[test]
fn a_reload_that_is_called_off_leaves_no_reference() {
    let (cache, service) = service();
    let client = connect(&service, "repo:1");
    client.change(1, 1).unwrap();
    client.ioctl(1);
    client.ioctl(-1);
    client.end();
    assert_eq!((cache.references(id(1)), service.pending_reloads()), (0, 0));
}

#[test]
fn a_reload_that_was_not_announced_cannot_be_ended() {
    let (_, service) = service();
    let (away, hostile) = (connect(&service, "repo:1"), connect(&service, "evil"));
    away.go_to_reload();
    hostile.ioctl(-1);
    hostile.ioctl(i32::MIN);
    hostile.ioctl(i32::MAX);
    hostile.ioctl(i32::MIN);
    hostile.ioctl(-i32::MAX);
    hostile.ioctl(0);
    hostile.end();
    assert_eq!(service.pending_reloads(), 1);
}

#[test]
fn a_successor_need_not_wait_until_the_old_session_has_ended() {
    let (cache, service) = service();
    let old = connect(&service, "repo:1");
    old.change(1, 1).unwrap();
    old.ioctl(1);
    // It has quit, but one of its requests is still in flight.
    service.retire(&old.open);
    let new = come_back(&service, "repo:1");
    new.change(1, -1).unwrap();
    assert_eq!(cache.references(id(1)), 0);
    old.end();
    new.end();
    assert_eq!(service.pending_reloads(), 0);
}

#[test]
fn pending_reloads_are_limited() {
    let cache = TestCache::default();
    cache.insert(id(1), "abc");
    let mut limits = Limits::default();
    limits.max_reloads = 2;
    let service = Service::new(Box::new(cache.clone()), "test", limits);
    for name in ["a", "b", "c"] {
        let client = connect(&service, name);
        client.change(1, 1).unwrap();
        client.go_to_reload();
    }
    // What the last one held ended with it.
    assert_eq!((service.pending_reloads(), cache.references(id(1))), (2, 2));
    come_back(&service, "a").end();
    connect(&service, "c").go_to_reload();
    assert_eq!((service.pending_reloads(), cache.references(id(1))), (2, 1));
}

/// A cache with 9 objects, and a service with so many references for all sessions.
fn limited_to(references: usize) -> (TestCache, Service) {
    let cache = TestCache::default();
    (1..=9).for_each(|byte| cache.insert(id(byte), "abc"));
    let mut limits = Limits::default();
    limits.max_references = Some(references);
    let service = Service::new(Box::new(cache.clone()), "test", limits);
    (cache, service)
}

#[test]
fn open_objects_are_limited() {
    let (cache, service) = limited_to(4);
    let client = connect(&service, "a");
    client.change(1, 1).unwrap();
    client.change(2, 1).unwrap();
    assert_eq!(client.change(3, 1), Err(Status::NoSpace));
    assert_eq!(cache.references(id(3)), 0);
    client.change(2, 1).unwrap();
    client.change(3, 0).unwrap();
    client.change(2, -1).unwrap();
    assert_eq!(client.change(3, 1), Err(Status::NoSpace), "2 is still open");
    client.change(2, -1).unwrap();
    client.change(3, 1).unwrap();
}

#[test]
fn a_session_below_its_fair_share_opens_objects_whatever_the_others_hold() {
    let (_, service) = limited_to(8);
    let most = connect(&service, "a");
    (1..=4).for_each(|byte| most.change(byte, 1).unwrap());
    let small = connect(&service, "b");
    (1..=2).for_each(|byte| small.change(byte, 1).unwrap());
    assert_eq!(small.change(3, 1), Err(Status::NoSpace));
    assert_eq!(most.change(5, 1), Err(Status::NoSpace));
    // However many hold something, one that holds nothing opens one object.
    for name in ["c", "d", "e", "f"] {
        connect(&service, name).change(1, 1).unwrap();
    }
}

#[test]
fn references_that_are_handed_over_have_half_of_the_limit() {
    let (cache, service) = limited_to(6);
    let first = connect(&service, "a");
    (1..=3).for_each(|byte| first.change(byte, 1).unwrap());
    first.go_to_reload();
    assert_eq!(cache.references(id(1)), 1);
    let second = connect(&service, "b");
    second.change(9, 1).unwrap();
    second.go_to_reload();
    assert_eq!(cache.references(id(9)), 0, "they end with the session");
    // What is left is for the sessions that are open.
    connect(&service, "c").change(4, 1).unwrap();
    let successor = come_back(&service, "a");
    (1..=3).for_each(|byte| successor.change(byte, -1).unwrap());
    successor.end();
    let third = connect(&service, "b");
    third.change(9, 1).unwrap();
    third.go_to_reload();
    assert_eq!(cache.references(id(9)), 1);
}

#[test]
fn references_that_are_released_leave_room_for_others() {
    let (cache, service) = limited_to(6);
    for round in 0..10 {
        let client = connect(&service, "a");
        (1..=3).for_each(|byte| client.change(byte, 2).unwrap());
        assert_eq!(client.change(4, 1), Err(Status::NoSpace));
        client.change(1, -2).unwrap();
        client.go_to_reload();
        let successor = come_back(&service, "a");
        successor.change(2, -1).unwrap();
        successor.change(5, 1).unwrap();
        successor.change(3, 1).unwrap();
        successor.go_to_reload();
        come_back(&service, "a").end();
        let left: i64 = (1..=5).map(|byte| cache.references(id(byte))).sum();
        assert_eq!(left, 0, "round {round}");
    }
}

#[test]
fn a_session_that_hands_many_references_over_is_retired_at_once_and_released_in_steps() {
    const OBJECTS: u64 = 3000;
    let cache = TestCache::default();
    let service = Service::new(Box::new(cache.clone()), "test", Limits::default());
    let object = |number: u64| {
        let mut digest = [0; ObjectId::DIGEST_LEN];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        ObjectId::new(HashAlgorithm::Sha1, digest)
    };
    (0..OBJECTS).for_each(|number| cache.insert(object(number), "abc"));
    let changes = || cache.state().calls.iter().filter(|call| **call == "change_refcount").count();
    for _ in 0..4 {
        let client = connect(&service, "repo:1");
        for number in 0..OBJECTS {
            let operation = Operation::Refcount { object: object(number), change_by: 1 };
            let request = Request { session: client.session().id(), id: 1, operation };
            service.handle(&client.open, request);
        }
        let before = changes();
        client.ioctl(1);
        service.retire(&client.open);
        assert!(service.end(&client.open, 1), "nothing is given back");
        assert_eq!(changes(), before);
    }
    assert_eq!(cache.references(object(7)), 4);
    let successor = connect(&service, "repo:1");
    successor.ioctl(-4);
    let mut steps = 0;
    loop {
        let before = changes();
        let is_over = service.end(&successor.open, 256);
        assert!(changes() - before <= 256);
        steps += 1;
        if is_over {
            break;
        }
    }
    assert!(steps >= OBJECTS / 256);
    assert_eq!((cache.references(object(7)), service.pending_reloads()), (0, 0));
}
