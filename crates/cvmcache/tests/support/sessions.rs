//! Sessions with a service around a [`TestCache`], without a socket.

#![allow(dead_code, unreachable_pub, reason = "every test uses a part of it")]

use std::sync::Arc;

use bytes::Bytes;
use cvmcache::Limits;
use cvmcache::plugin::*;
use cvmcache::service::{OpenSession, Service};
use cvmcache_proto::{Operation, ReplyBody, Request, StorePart};

use super::{TestCache, id};

pub const PART: usize = 4096;

pub struct Fixture {
    pub cache: TestCache,
    pub service: Service,
}

/// A session, with a method for each request.
pub struct Client<'a> {
    pub service: &'a Service,
    pub open: Arc<OpenSession>,
}

pub fn fixture() -> Fixture {
    fixture_with(TestCache::default())
}

pub fn fixture_with(cache: TestCache) -> Fixture {
    let mut limits = Limits::default();
    limits.max_object_size = PART as u32;
    limits.max_text = 100;
    limits.max_uploads = 3;
    limits.max_listings = 2;
    limits.max_upload_bytes = 5 * PART as u64;
    limits.listing_part = 1000;
    let service = Service::new(Box::new(cache.clone()), "test", limits);
    Fixture { cache, service }
}

impl Fixture {
    pub fn client(&self, name: &'static str) -> Client<'_> {
        let (ack, open) = self.service.handshake(Some(name.into()), None);
        assert_eq!(ack.session, open.session().id());
        Client { service: &self.service, open }
    }
}

impl Client<'_> {
    pub fn ask_as(&self, id: u64, operation: Operation) -> ReplyBody {
        let session = self.open.session().id();
        let reply = self.service.handle(&self.open, Request { session, id, operation });
        assert_eq!(reply.id, id);
        reply.body
    }

    pub fn ask(&self, operation: Operation) -> ReplyBody {
        self.ask_as(77, operation)
    }

    pub fn change(&self, object: ObjectId, change_by: i32) -> PluginResult<()> {
        match self.ask(Operation::Refcount { object, change_by }) {
            ReplyBody::Refcount(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn store(&self, upload: u64, part: StorePart) -> PluginResult<()> {
        let number = part.number;
        match self.ask_as(upload, Operation::Store(part)) {
            ReplyBody::Store { result, part } => {
                assert_eq!(part, number);
                result
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn abort(&self, upload: u64, object: ObjectId) -> PluginResult<()> {
        match self.ask_as(upload, Operation::StoreAbort { object }) {
            ReplyBody::Store { result, part: 0 } => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn read(&self, object: ObjectId, offset: u64, size: u32) -> PluginResult<Bytes> {
        match self.ask(Operation::Read { object, offset, size }) {
            ReplyBody::Read { result, .. } => result.map(Data::into_bytes),
            other => panic!("{other:?}"),
        }
    }

    pub fn list(&self, listing: u64) -> PluginResult<(u64, bool, Vec<ListEntry>)> {
        match self.ask(Operation::List { listing, object_type: ObjectType::Regular }) {
            ReplyBody::List { result, listing, last, entries } => {
                result.map(|()| (listing, last, entries))
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn end(&self) {
        while !self.service.end(&self.open, 1) {}
    }
}

/// A part of object 1, whose size is not known.
pub fn part(number: u64, len: usize, last: bool) -> StorePart {
    StorePart::new(id(1), number, last, vec![number as u8; len])
}
