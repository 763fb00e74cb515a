//! What should be: what each session holds, and what every request is answered with. It knows no locks and
//! no half-done work, so it can be much simpler than the service.

use std::collections::BTreeMap;

use bytes::Bytes;
use cvmcache::plugin::*;
use cvmcache_proto::{Operation, ReplyBody};
use cvmcache_testkit::Callback;

use super::plugin::{Faults, MAX_REFERENCES, Stored};
use super::uploads::{Uploads, cut_text};
use super::{MAX_LISTINGS, MAX_OBJECT_SIZE, MAX_TEXT};

pub(super) type References = BTreeMap<ObjectId, u64>;

pub(super) struct Model {
    pub(super) capabilities: Capabilities,
    pub(super) objects: BTreeMap<ObjectId, Stored>,
    breadcrumbs: BTreeMap<Bytes, Breadcrumb>,
    /// By the number of the session.
    pub(super) sessions: BTreeMap<u64, Holder>,
    pub(super) handovers: BTreeMap<Bytes, Handover>,
}

/// A session.
#[derive(Default)]
pub(super) struct Holder {
    pub(super) name: Bytes,
    pub(super) references: References,
    /// How many reloads it has announced.
    pub(super) announced: u32,
    pub(super) is_successor: bool,
    /// That has ended and still has this to give back.
    pub(super) leaving: Option<References>,
    pub(super) uploads: Uploads,
    /// What each listing still has to tell.
    pub(super) listings: BTreeMap<u64, Vec<ListEntry>>,
    last_listing: u64,
}

/// What sessions of a name that announced a reload hand over.
#[derive(Default)]
pub(super) struct Handover {
    pub(super) references: References,
    pub(super) announced: u32,
    pub(super) successors: u32,
}

impl Model {
    pub(super) fn new(capabilities: Capabilities, objects: BTreeMap<ObjectId, Stored>) -> Self {
        Self {
            capabilities,
            objects,
            breadcrumbs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            handovers: BTreeMap::new(),
        }
    }

    pub(super) fn open(&mut self, session: u64, name: Bytes) {
        self.sessions.insert(session, Holder { name, ..Holder::default() });
    }

    /// What the plugin should count: what living sessions hold, and what was handed over.
    pub(super) fn references(&self) -> References {
        let mut sum = References::new();
        for holder in self.sessions.values() {
            merge(&mut sum, holder.references.clone());
            merge(&mut sum, holder.leaving.clone().unwrap_or_default());
        }
        for handover in self.handovers.values() {
            merge(&mut sum, handover.references.clone());
        }
        sum
    }

    /// The answer to a request, which changes what is held. A listing may be cut anywhere, so the
    /// part of it is taken from what the service answered.
    pub(super) fn answer(
        &mut self,
        session: u64,
        id: u64,
        operation: Operation,
        faults: &Faults,
        got: &ReplyBody,
    ) -> ReplyBody {
        let fails = |callback| match faults.get(&callback) {
            Some(fault) => Err(fault.status(callback)),
            None => Ok(()),
        };
        let has = |capability| {
            if self.capabilities.contains(capability) { Ok(()) } else { Err(Status::NoSupport) }
        };
        match operation {
            Operation::Refcount { object, change_by } => {
                ReplyBody::Refcount(self.refcount(session, object, change_by, faults))
            }
            Operation::Read { object, offset, size } => {
                let result = if size > MAX_OBJECT_SIZE {
                    Err(Status::Malformed)
                } else {
                    fails(Callback::Read).and_then(|()| self.read(&object, offset, size))
                };
                ReplyBody::Read { result, data_crc32: None }
            }
            Operation::ObjectInfo { object } => {
                ReplyBody::ObjectInfo(fails(Callback::ObjectInfo).and_then(|()| self.info(&object)))
            }
            Operation::Store(part) => {
                let number = part.number;
                let result = has(Capabilities::WRITE).and_then(|()| {
                    let references = self.references();
                    let holder = self.sessions.get_mut(&session).expect("it is open");
                    let Some((object, stored)) = holder.uploads.store(id, part, faults)? else {
                        return Ok(());
                    };
                    if self.capabilities.contains(Capabilities::REFCOUNT) {
                        if references.get(&object) == Some(&MAX_REFERENCES) {
                            return Err(Status::BadCount);
                        }
                        *holder.references.entry(object).or_default() += 1;
                    }
                    self.objects.entry(object).or_insert(stored);
                    Ok(())
                });
                ReplyBody::Store { result, part: number }
            }
            Operation::StoreAbort { object } => {
                let result = has(Capabilities::WRITE).and_then(|()| {
                    self.sessions.get_mut(&session).expect("it is open").uploads.abort(id, &object)
                });
                ReplyBody::Store { result, part: 0 }
            }
            Operation::Info => {
                let result = has(Capabilities::INFO).and_then(|()| fails(Callback::Info));
                ReplyBody::Info(result.map(|()| self.fill_level()))
            }
            Operation::Shrink { target } => {
                let result = has(Capabilities::SHRINK).and_then(|()| fails(Callback::Shrink));
                let used_bytes = if result.is_ok() { self.shrink(target) } else { 0 };
                let partial = if used_bytes > target { Err(Status::Partial) } else { Ok(()) };
                ReplyBody::Shrink { result: result.and(partial), used_bytes }
            }
            Operation::List { listing, object_type } => {
                let started = has(Capabilities::LIST)
                    .and_then(|()| self.start_listing(session, listing, object_type, faults));
                match started {
                    Ok(id) => self.continue_listing(session, id, got),
                    Err(status) => failed_list(status, listing),
                }
            }
            Operation::BreadcrumbStore { repository, breadcrumb } => {
                let result = has(Capabilities::BREADCRUMB)
                    .and_then(|()| check_repository(&repository))
                    .and_then(|()| fails(Callback::StoreBreadcrumb));
                ReplyBody::Breadcrumb(result.map(|()| {
                    self.breadcrumbs.insert(repository, breadcrumb);
                    None
                }))
            }
            Operation::BreadcrumbLoad { repository } => {
                let result = has(Capabilities::BREADCRUMB)
                    .and_then(|()| check_repository(&repository))
                    .and_then(|()| fails(Callback::LoadBreadcrumb))
                    .and_then(|()| self.breadcrumbs.get(&repository).ok_or(Status::NoEntry));
                ReplyBody::Breadcrumb(result.map(|&breadcrumb| Some((repository, breadcrumb))))
            }
            unknown => unknown.refusal(Status::NoSupport),
        }
    }

    fn refcount(
        &mut self,
        session: u64,
        id: ObjectId,
        by: i32,
        faults: &Faults,
    ) -> PluginResult<()> {
        let counts = self.capabilities.contains(Capabilities::REFCOUNT);
        if !counts && by < 0 {
            return Ok(());
        }
        let callback = if counts { Callback::ChangeRefcount } else { Callback::ObjectInfo };
        let look = match faults.get(&callback) {
            Some(fault) => Err(fault.status(callback)),
            None => self.info(&id).map(|_| ()),
        };
        if !counts {
            return look;
        }
        let all = self.references().get(&id).copied().unwrap_or(0);
        let holder = self.sessions.get_mut(&session).expect("it is open");
        let own = holder.references.get(&id).copied().unwrap_or(0);
        let count = u64::from(by.unsigned_abs());
        if by >= 0 {
            look?;
            if all + count > MAX_REFERENCES {
                return Err(Status::BadCount);
            }
            set(&mut holder.references, id, own + count);
            return Ok(());
        }
        let handed_over = count.saturating_sub(own);
        if handed_over > 0 {
            let handover = self.handovers.get_mut(&holder.name).filter(|_| holder.is_successor);
            let left = |handover: &Handover| handover.references.get(&id).copied().unwrap_or(0);
            let Some(handover) = handover.filter(|handover| left(handover) >= handed_over) else {
                look?;
                return Err(Status::BadCount);
            };
            let left = left(handover);
            set(&mut handover.references, id, left - handed_over);
        }
        // Of what could not be given back, nothing is lost.
        set(&mut holder.references, id, own + handed_over - if look.is_ok() { count } else { 0 });
        look
    }

    fn read(&self, id: &ObjectId, offset: u64, size: u32) -> PluginResult<Data> {
        let data = &self.objects.get(id).ok_or(Status::NoEntry)?.data;
        if offset > data.len() as u64 {
            return Err(Status::OutOfBounds);
        }
        let rest = data.iter().copied().skip(offset as usize);
        Ok(rest.take(size as usize).collect::<Vec<_>>().into())
    }

    fn info(&self, id: &ObjectId) -> PluginResult<ObjectInfo> {
        let object = self.objects.get(id).ok_or(Status::NoEntry)?;
        Ok(ObjectInfo::new(object.data.len() as u64, object.object_type))
    }

    fn fill_level(&self) -> CacheInfo {
        let pinned = self.references();
        let size = |(_, object): (&ObjectId, &Stored)| object.data.len() as u64;
        CacheInfo::new(
            u64::MAX,
            self.objects.iter().map(size).sum(),
            self.objects.iter().filter(|o| pinned.contains_key(o.0)).map(size).sum(),
        )
        .with_shrink_count(self.capabilities.contains(Capabilities::SHRINK_RATE).then_some(3))
    }

    fn shrink(&mut self, target: u64) -> u64 {
        if self.fill_level().used_bytes > target {
            let pinned = self.references();
            self.objects.retain(|id, _| pinned.contains_key(id));
        }
        self.fill_level().used_bytes
    }

    /// The listing to take a part of, unless it fails.
    fn start_listing(
        &mut self,
        session: u64,
        listing: u64,
        object_type: ObjectType,
        faults: &Faults,
    ) -> PluginResult<u64> {
        let pinned = self.references();
        let holder = self.sessions.get_mut(&session).expect("it is open");
        let mut id = listing;
        if listing == 0 {
            if holder.listings.len() >= MAX_LISTINGS {
                return Err(Status::NoSpace);
            }
            // A number is used up, whatever becomes of it.
            holder.last_listing += 1;
            id = holder.last_listing;
            if let Some(fault) = faults.get(&Callback::List) {
                return Err(fault.status(Callback::List));
            }
            let listed = self.objects.iter().filter(|(_, o)| o.object_type == object_type);
            let entry = |(id, object): (&ObjectId, &Stored)| {
                ListEntry::new(
                    *id,
                    pinned.contains_key(id),
                    object.description.clone().map(cut_text),
                )
            };
            holder.listings.insert(id, listed.map(entry).collect());
        } else if !holder.listings.contains_key(&listing) {
            return Err(Status::Malformed);
        }
        if let Some(fault) = faults.get(&Callback::Next) {
            holder.listings.remove(&id);
            return Err(fault.status(Callback::Next));
        }
        Ok(id)
    }

    fn continue_listing(&mut self, session: u64, listing: u64, got: &ReplyBody) -> ReplyBody {
        let holder = self.sessions.get_mut(&session).expect("it is open");
        let rest = holder.listings.get_mut(&listing).expect("it was started");
        let ReplyBody::List { last, entries, .. } = got else { return failed_list_of(listing) };
        assert!(*last || !entries.is_empty(), "a part of a listing that tells nothing");
        assert!(entries.len() <= 2, "{} entries in a part of a listing", entries.len());
        let entries: Vec<_> = rest.drain(..entries.len().min(rest.len())).collect();
        let last = *last && rest.is_empty();
        if last {
            holder.listings.remove(&listing);
        }
        ReplyBody::List { result: Ok(()), listing, last, entries }
    }
}

fn check_repository(name: &[u8]) -> PluginResult<()> {
    if name.len() <= MAX_TEXT { Ok(()) } else { Err(Status::Malformed) }
}

fn failed_list(status: Status, listing: u64) -> ReplyBody {
    ReplyBody::List { result: Err(status), listing, last: true, entries: Vec::new() }
}

/// What no reply is equal to that is not a listing.
fn failed_list_of(listing: u64) -> ReplyBody {
    failed_list(Status::Unknown, listing)
}

fn set(references: &mut References, id: ObjectId, count: u64) {
    if count == 0 {
        references.remove(&id);
    } else {
        references.insert(id, count);
    }
}

pub(super) fn merge(to: &mut References, from: References) {
    for (id, count) in from {
        *to.entry(id).or_default() += count;
    }
}
