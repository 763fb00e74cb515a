//! A client of which each request is a step that a case checks.

use std::collections::BTreeSet;

use bytes::Bytes;
use cvmcache::client::{
    Client, ClientError, ListPart, NewUpload, Operation, Reload, Request, Shrunk, StorePart, Upload,
};
use cvmcache::plugin::{
    Breadcrumb, CacheInfo, ListEntry, ObjectId, ObjectInfo, ObjectType, Status,
};

use super::object::TestObject;
use super::step::{Checked, Step, Trace};

/// A client, and what the case has done before.
#[derive(Debug)]
pub(super) struct TestClient {
    /// For what is no step.
    pub(super) raw: Client,
    trace: Trace,
}

/// A listing that has not ended.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// What was listed so far.
    pub(super) entries: Vec<ListEntry>,
    /// How many parts have come.
    pub(super) parts: usize,
    /// What it goes on with.
    pub(super) number: u64,
    /// Which objects are among them.
    pub(super) ids: BTreeSet<ObjectId>,
    /// How many parts have come since there was an object that had not been listed before.
    idle: usize,
}

/// How many requests of a series are in flight at once. Each has to be answered within the timeout of a plugin
/// that asks a server, however busy the machine is.
const AT_ONCE: usize = 16;

/// How many parts without anything new make a listing one that does not end.
const IDLE_PARTS: usize = 50;

/// An upload of which every part is a step.
#[derive(Debug)]
pub(super) struct TestUpload {
    pub(super) raw: Upload,
    id: ObjectId,
}

/// A client whose reload is pending.
#[derive(Debug)]
pub(super) struct PendingReload {
    reload: Reload,
    trace: Trace,
}

impl TestClient {
    pub(super) fn new(raw: Client, trace: Trace) -> Self {
        Self { raw, trace }
    }

    pub(super) fn change_refcount(&mut self, id: &ObjectId, by: i32) -> Step<()> {
        self.trace.step(format!("refcount {by:+} of {id}"), self.raw.change_refcount(id, by))
    }

    pub(super) fn open(&mut self, id: &ObjectId) -> Step<()> {
        self.change_refcount(id, 1)
    }

    pub(super) fn close(&mut self, id: &ObjectId) -> Step<()> {
        self.change_refcount(id, -1)
    }

    /// Whether an object is in the cache, as clients check: a change of the reference count by 0.
    pub(super) fn exists(&mut self, id: &ObjectId) -> Step<()> {
        self.change_refcount(id, 0)
    }

    pub(super) fn object_info(&mut self, id: &ObjectId) -> Step<ObjectInfo> {
        self.trace.step(format!("object info of {id}"), self.raw.object_info(id))
    }

    pub(super) fn read(&mut self, id: &ObjectId, offset: u64, size: u32) -> Step<Bytes> {
        let sent = format!("read {size} bytes of {id} from {offset} on");
        self.trace.step(sent, self.raw.read(id, offset, size))
    }

    /// Reads the whole, with several requests in flight.
    pub(super) fn read_all(&mut self, id: &ObjectId) -> Step<Bytes> {
        self.trace.step(format!("read all of {id}"), self.raw.read_all(id))
    }

    /// Stores an object as clients do. It has a reference then.
    pub(super) fn store(&mut self, object: &TestObject) -> Step<()> {
        self.store_as(NewUpload::new(object.id), object)
    }

    /// Stores an object with its metadata.
    pub(super) fn store_as(&mut self, new: NewUpload, object: &TestObject) -> Step<()> {
        let sent = format!("store {} ({} bytes)", object.id, object.content.len());
        self.trace.step(sent, self.raw.store(new, object.content.clone()))
    }

    /// Stores an object and gives the reference back.
    pub(super) fn store_and_close(&mut self, object: &TestObject) -> Checked<()> {
        self.store(object).ok()?;
        self.close(&object.id).ok()
    }

    /// Stores objects of one part each, many at once. Each has a reference then.
    pub(super) fn store_all(
        &mut self,
        objects: impl IntoIterator<Item = (ObjectId, Bytes)>,
        object_type: ObjectType,
        description: &[u8],
    ) -> Checked<()> {
        let description = Bytes::copy_from_slice(description);
        let part = |(id, content): (ObjectId, Bytes)| {
            let mut part = StorePart::new(id, 1, true, content);
            part.expected_size = Some(part.data.len() as u64);
            part.object_type = object_type;
            part.description = Some(description.clone());
            (format!("store {id} ({} bytes)", part.data.len()), Operation::Store(part))
        };
        self.in_series(objects.into_iter().map(part))
    }

    /// Gives a reference to each object back, many at once.
    pub(super) fn close_all<'a>(
        &mut self,
        ids: impl IntoIterator<Item = &'a ObjectId>,
    ) -> Checked<()> {
        let close = |id: &ObjectId| {
            (format!("refcount -1 of {id}"), Operation::Refcount { object: *id, change_by: -1 })
        };
        self.in_series(ids.into_iter().map(close))
    }

    /// Sends requests that are to succeed. A reply each time before the next request would take most of the
    /// time of a case with thousands.
    fn in_series(
        &mut self,
        mut operations: impl Iterator<Item = (String, Operation)>,
    ) -> Checked<()> {
        loop {
            let mut in_flight = Vec::new();
            for (sent, operation) in operations.by_ref().take(AT_ONCE) {
                match self.raw.queue(operation) {
                    Ok(ticket) => in_flight.push((sent, ticket)),
                    Err(error) => return self.trace.step(sent, Err(error)).ok(),
                }
            }
            if in_flight.is_empty() {
                return Ok(());
            }
            for (sent, ticket) in in_flight {
                let reply = self.raw.wait(ticket);
                let status = reply.and_then(|body| body.status().map_err(ClientError::Status));
                self.trace.step(sent, status).ok()?;
            }
        }
    }

    pub(super) fn begin(&mut self, new: impl Into<NewUpload>, id: ObjectId) -> TestUpload {
        TestUpload { raw: self.raw.begin_upload(new), id }
    }

    pub(super) fn info(&mut self) -> Step<CacheInfo> {
        self.trace.step("info", self.raw.info())
    }

    pub(super) fn shrink(&mut self, target: u64) -> Step<Shrunk> {
        self.trace.step(format!("shrink to {target} bytes"), self.raw.shrink(target))
    }

    /// All of a listing, in however many parts it comes.
    pub(super) fn list(&mut self, object_type: ObjectType) -> Checked<Vec<ListEntry>> {
        let mut listing = Listing::default();
        while !self.list_more(&mut listing, object_type)? {}
        Ok(listing.entries)
    }

    /// One more part of a listing; true if it was the last.
    pub(super) fn list_more(
        &mut self,
        listing: &mut Listing,
        object_type: ObjectType,
    ) -> Checked<bool> {
        let part = self.list_part(listing.number, object_type).ok()?;
        let sent = format!("list {object_type:?} objects, listing {}", listing.number);
        listing.number = part.listing;
        listing.parts += 1;
        let known = listing.ids.len();
        listing.ids.extend(part.entries.iter().map(|entry| entry.id));
        listing.idle = if listing.ids.len() > known { 0 } else { listing.idle + 1 };
        listing.entries.extend(part.entries);
        if !part.last && listing.idle == IDLE_PARTS {
            let received = format!("{IDLE_PARTS} parts in which no other object is listed");
            return Err(self.trace.failure(sent, "an end", received));
        }
        Ok(part.last)
    }

    pub(super) fn list_part(&mut self, listing: u64, object_type: ObjectType) -> Step<ListPart> {
        let sent = format!("list {object_type:?} objects, listing {listing}");
        self.trace.step(sent, self.raw.list_part(listing, object_type))
    }

    pub(super) fn store_breadcrumb(&mut self, name: &[u8], breadcrumb: Breadcrumb) -> Step<()> {
        let sent = format!("store a breadcrumb for \"{}\"", name.escape_ascii());
        self.trace.step(sent, self.raw.store_breadcrumb(name.to_vec(), breadcrumb))
    }

    pub(super) fn load_breadcrumb(&mut self, name: &[u8]) -> Step<Breadcrumb> {
        let sent = format!("load the breadcrumb of \"{}\"", name.escape_ascii());
        self.trace.step(sent, self.raw.load_breadcrumb(name.to_vec()))
    }

    /// Sends a request in any session, with any id.
    pub(super) fn ask_as(&mut self, session: u64, id: u64, operation: Operation) -> Step<()> {
        let sent = format!("{}, number {id} of session {session}", name(&operation));
        let submitted = self.raw.submit_request(Request { session, id, operation });
        let body = submitted.and_then(|ticket| self.raw.wait(ticket));
        self.trace.step(sent, body.and_then(|body| Ok(body.status()?)))
    }

    /// Aborts an upload that may not be one.
    pub(super) fn abort(&mut self, id: u64, object: ObjectId) -> Step<()> {
        let session = self.raw.session();
        self.ask_as(session, id, Operation::StoreAbort { object })
    }

    /// Reloads.
    pub(super) fn reload(self) -> Checked<Self> {
        let Self { raw, trace } = self;
        let raw = trace.step("Ioctl +1, Quit, handshake, Ioctl -1", raw.reload()).ok()?;
        Ok(Self { raw, trace })
    }

    /// Begins a reload.
    pub(super) fn announce_reload(self) -> Checked<PendingReload> {
        let Self { raw, trace } = self;
        let reload = trace.step("Ioctl +1, Quit", raw.announce_reload()).ok()?;
        Ok(PendingReload { reload, trace })
    }

    /// Quits, and checks that each request got one reply.
    pub(super) fn quit(self) -> Checked<()> {
        self.one_answer_each()?;
        let Self { raw, trace } = self;
        trace.step("Quit, and wait until the connection is closed", raw.quit()).ok()
    }

    /// Checks that there was no reply without a request.
    pub(super) fn one_answer_each(&self) -> Checked<()> {
        match self.raw.unclaimed_replies() {
            0 => Ok(()),
            more => Err(self.trace.failure(
                "all the requests above",
                "one reply to each request",
                format!("{more} more replies than requests"),
            )),
        }
    }

    /// That an object is there, and as it was stored.
    pub(super) fn has(&mut self, object: &TestObject) -> Checked<()> {
        self.open(&object.id).ok()?;
        let size = object.content.len() as u64;
        let info = self.object_info(&object.id);
        info.ok_and(format!("OK, with a size of {size}"), |info| info.size == size)?;
        self.read_all(&object.id).has_content(&object.content)?;
        self.close(&object.id).ok()
    }

    /// That an object is not there.
    pub(super) fn lacks(&mut self, id: &ObjectId) -> Checked<()> {
        self.exists(id).fails(Status::NoEntry)
    }
}

impl PendingReload {
    /// Ends the reload.
    pub(super) fn finish(self) -> Checked<TestClient> {
        let Self { reload, trace } = self;
        let raw = trace.step("handshake, Ioctl -1", Client::finish_reload(reload)).ok()?;
        Ok(TestClient { raw, trace })
    }
}

impl TestUpload {
    pub(super) fn write(&mut self, client: &mut TestClient, data: impl Into<Bytes>) -> Step<()> {
        self.part(client, data, false)
    }

    pub(super) fn commit(&mut self, client: &mut TestClient, data: impl Into<Bytes>) -> Step<()> {
        self.part(client, data, true)
    }

    pub(super) fn abort(self, client: &mut TestClient) -> Step<()> {
        let sent = format!("abort the upload of {}", self.id);
        client.trace.step(sent, self.raw.abort(&mut client.raw))
    }

    fn part(&mut self, client: &mut TestClient, data: impl Into<Bytes>, last: bool) -> Step<()> {
        let data = data.into();
        let (number, which) = (self.raw.next_part(), if last { ", the last" } else { "" });
        let sent = format!("part {number} of {} ({} bytes{which})", self.id, data.len());
        let got = match last {
            true => self.raw.commit(&mut client.raw, data),
            false => self.raw.write(&mut client.raw, data),
        };
        client.trace.step(sent, got)
    }
}

/// A request with a part of an upload of unknown size.
pub(super) fn part(object: ObjectId, number: u64, last: bool, data: Bytes) -> Operation {
    Operation::Store(StorePart::new(object, number, last, data))
}

/// A request as text.
fn name(operation: &Operation) -> String {
    match operation {
        Operation::Refcount { object, change_by } => format!("refcount {change_by:+} of {object}"),
        Operation::Store(part) => {
            let which = if part.last { ", the last" } else { "" };
            let (number, object, len) = (part.number, part.object, part.data.len());
            format!("part {number} of {object} ({len} bytes{which})")
        }
        Operation::StoreAbort { object } => format!("abort the upload of {object}"),
        other => format!("{other:?}"),
    }
}
