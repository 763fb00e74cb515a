//! A small cache in memory, with at most one flaw.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cvmcache::plugin::*;
use cvmcache::{CachePlugin, ServerHandle, Session, Transaction};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::SIZE;
use super::flaw::Flaw;
use super::state::{State, Upload};

/// How long a slow part waits for another upload that it blocks.
const LONG: Duration = Duration::from_secs(10);

/// The cache.
#[derive(Debug)]
pub(crate) struct Memory {
    shared: Arc<Shared>,
    capabilities: Capabilities,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    refused: Condvar,
    handle: ServerHandle,
}

/// An open upload, which may have a flaw of its own.
struct Writing {
    shared: Arc<Shared>,
    session: Session,
    number: u64,
    new: NewObject,
    parts: Vec<Bytes>,
}

impl Memory {
    /// A cache that does nothing wrong.
    pub(crate) fn sound() -> Self {
        Self { shared: Arc::default(), capabilities: Capabilities::ALL }
    }

    /// The handle for the server.
    pub(crate) fn handle(&self) -> ServerHandle {
        self.shared.handle.clone()
    }

    /// A cache with a flaw.
    pub(crate) fn with(flaw: Flaw) -> Self {
        let memory = Self::sound();
        memory.shared.lock().flaw = Some(flaw);
        memory
    }

    /// The same, which declares less.
    pub(crate) fn without(self, missing: Capabilities) -> Self {
        let capabilities = self.capabilities.difference(missing);
        self.shared.lock().is_uncounted = !capabilities.contains(Capabilities::REFCOUNT);
        Self { capabilities, ..self }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Asks clients to detach as soon as more than 70 % are pinned.
    fn ask_detach_if_pinned(&self, pinned_before: u64, pinned: u64) {
        let much = SIZE * 7 / 10;
        if pinned_before <= much && pinned > much {
            self.handle.ask_detach();
        }
    }
}

impl CachePlugin for Memory {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn change_refcount(&self, session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        let mut state = self.shared.lock();
        let before = state.pinned;
        let result = state.change(session, id, by);
        self.shared.ask_detach_if_pinned(before, state.pinned);
        result
    }

    fn object_info(&self, session: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        let mut state = self.shared.lock();
        let flaw = state.flaw;
        match state.find(session, id) {
            Ok(object) => {
                let forgets = flaw == Some(Flaw::ForgetsType);
                let object_type = if forgets { ObjectType::Regular } else { object.object_type };
                Ok(ObjectInfo::new(object.content.len() as u64, object_type))
            }
            Err(_) if flaw == Some(Flaw::KnowsWhatIsAbsent) => Ok(ObjectInfo::default()),
            Err(status) => Err(status),
        }
    }

    fn read(&self, session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let mut state = self.shared.lock();
        let flaw = state.flaw;
        state.find(session, id)?.read(flaw, offset, len).map(Data::from)
    }

    fn begin(&self, session: &Session, new: NewObject) -> PluginResult<Box<dyn Transaction>> {
        let mut state = self.shared.lock();
        match state.flaw {
            Some(Flaw::RefusesZeroDigest) if new.id.digest().iter().all(|byte| *byte == 0) => {
                return Err(Status::Malformed);
            }
            Some(Flaw::NeedsSize) if new.expected_size.is_none() => return Err(Status::NoSpace),
            _ => {}
        }
        let is_in_the_way = |other: &Upload| match state.flaw {
            Some(Flaw::OneUploadAtATime | Flaw::OneSlowUploadAtATime) => true,
            Some(Flaw::OneUploadOfAnObject | Flaw::OneSlowUploadOfAnObject) => other.id == new.id,
            _ => false,
        };
        if state.uploads.values().any(is_in_the_way) {
            state.refusals += 1;
            self.shared.refused.notify_all();
            return Err(Status::IoErr);
        }
        // Never used again: a committed upload is dropped after others may have begun.
        state.last_upload += 1;
        let number = state.last_upload;
        state.uploads.insert(number, Upload { id: new.id, len: 0, is_dead: false });
        let (shared, session) = (self.shared.clone(), session.clone());
        Ok(Box::new(Writing { shared, session, number, new, parts: Vec::new() }))
    }

    fn info(&self, _: Option<&Session>) -> PluginResult<CacheInfo> {
        Ok(self.shared.lock().info())
    }

    fn shrink(&self, _: &Session, target: u64) -> PluginResult<u64> {
        Ok(self.shared.lock().shrink(target))
    }

    fn list(&self, _: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        let mut state = self.shared.lock();
        let flaw = state.flaw;
        let pinned = |references: u64, was_open: bool| match flaw {
            Some(Flaw::ListsNothingPinned) => false,
            Some(Flaw::ListsAllPinned) => true,
            Some(Flaw::ListsPinnedForEver) => was_open,
            _ => references > 0,
        };
        let listed =
            |listed: ObjectType| listed == object_type || flaw == Some(Flaw::ListsAllTypes);
        let objects = state.objects.iter().filter(|(_, object)| listed(object.object_type));
        let mut entries: Vec<_> = objects
            .map(|(id, object)| {
                ListEntry::new(
                    *id,
                    pinned(object.references, object.was_open),
                    object.description.clone().and_then(|text| described(flaw, text)),
                )
            })
            .collect();
        match flaw {
            Some(Flaw::SkipsAnEntry) => drop(entries.pop()),
            Some(Flaw::RepeatsAnEntry) => entries.extend(entries.first().cloned()),
            Some(Flaw::ShortListings) => entries.truncate(4096),
            Some(Flaw::OneListing) => {
                state.listing += 1;
                let (number, shared) = (state.listing, self.shared.clone());
                let entries = entries.into_iter().map(Ok);
                let is_current = move |_: &_| shared.lock().listing == number;
                return Ok(Box::new(entries.take_while(is_current)));
            }
            _ => {}
        }
        Ok(Box::new(entries.into_iter().map(Ok)))
    }

    fn store_breadcrumb(
        &self,
        session: &Session,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        let mut state = self.shared.lock();
        let key = breadcrumb_key(state.flaw, session, repository);
        let (flaw, before) = (state.flaw, state.breadcrumbs.get(&key));
        let stays = match flaw {
            Some(Flaw::FirstBreadcrumbStays) => before.is_some(),
            Some(Flaw::HighestBreadcrumbStays) => {
                before.is_some_and(|before| before.revision > breadcrumb.revision)
            }
            _ => false,
        };
        if !stays {
            state.breadcrumbs.insert(key, breadcrumb);
        }
        Ok(())
    }

    fn load_breadcrumb(&self, session: &Session, repository: &[u8]) -> PluginResult<Breadcrumb> {
        let state = self.shared.lock();
        let key = breadcrumb_key(state.flaw, session, repository);
        let Some(mut breadcrumb) = state.breadcrumbs.get(&key).copied() else {
            let catalog = ObjectId::new(HashAlgorithm::Sha1, [0; ObjectId::DIGEST_LEN]);
            let made_up = Breadcrumb { catalog, timestamp: 0, revision: None };
            return if state.has(Flaw::BreadcrumbForAll) {
                Ok(made_up)
            } else {
                Err(Status::NoEntry)
            };
        };
        match state.flaw {
            Some(Flaw::LosesRevision) => breadcrumb.revision = None,
            Some(Flaw::Timestamps32) => breadcrumb.timestamp &= 0xffff_ffff,
            Some(Flaw::LosesAlgorithm) => {
                let digest = *breadcrumb.catalog.digest();
                breadcrumb.catalog = ObjectId::new(HashAlgorithm::Sha1, digest);
            }
            _ => {}
        }
        Ok(breadcrumb)
    }
}

impl Transaction for Writing {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        let mut state = self.shared.lock();
        if let Some(Flaw::OneSlowUploadAtATime | Flaw::OneSlowUploadOfAnObject) = state.flaw {
            let none_refused = |state: &mut State| state.refusals == 0;
            self.shared.refused.wait_while_for(&mut state, none_refused, LONG);
        }
        let upload = state.uploads.get_mut(&self.number).ok_or(Status::IoErr)?;
        upload.len += data.len() as u64;
        if upload.is_dead {
            return Err(Status::IoErr);
        }
        if state.has(Flaw::AppearsEarly) {
            state.store(&self.session, &self.new, data.clone(), 0)?;
        }
        if state.has(Flaw::OneBuffer) {
            state.buffer.push(data);
        } else {
            self.parts.push(data);
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> PluginResult<()> {
        let mut state = self.shared.lock();
        let upload = state.uploads.remove(&self.number).ok_or(Status::IoErr)?;
        let parts = match state.flaw {
            Some(Flaw::OneBuffer) => std::mem::take(&mut state.buffer),
            _ => std::mem::take(&mut self.parts),
        };
        let is_refused = match state.flaw {
            Some(Flaw::RefusesEmpty) => upload.len == 0,
            Some(Flaw::RefusesWholeParts) => upload.len.is_multiple_of(super::PART as u64),
            _ => upload.is_dead,
        };
        if is_refused {
            return Err(Status::IoErr);
        }
        let references = match state.flaw {
            Some(Flaw::CommitHoldsNothing) => 0,
            Some(Flaw::CommitHoldsTwice) => 2,
            // No session would give it back.
            _ if state.is_uncounted => 0,
            _ => 1,
        };
        let before = state.pinned;
        state.store(&self.session, &self.new, joined(parts), references)?;
        self.shared.ask_detach_if_pinned(before, state.pinned);
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.uploads.remove(&self.number).is_none() {
            return;
        }
        match state.flaw {
            Some(Flaw::AbortCommits) => {
                let content = joined(std::mem::take(&mut self.parts));
                // An abort has no reply of the plugin.
                let _ = state.store(&self.session, &self.new, content, 0);
            }
            Some(Flaw::AbortTakesOthers) => {
                let others = state.uploads.values_mut().filter(|other| other.id == self.new.id);
                others.for_each(|other| other.is_dead = true);
            }
            _ => {}
        }
    }
}

fn joined(mut parts: Vec<Bytes>) -> Bytes {
    match parts.len() {
        0 => Bytes::new(),
        1 => parts.remove(0),
        _ => {
            let mut content = BytesMut::new();
            parts.iter().for_each(|part| content.extend_from_slice(part));
            content.freeze()
        }
    }
}

fn described(flaw: Option<Flaw>, mut text: Bytes) -> Option<Bytes> {
    match flaw {
        Some(Flaw::NoDescriptions) => return None,
        Some(Flaw::LossyDescriptions) => text = lossy(&text).into(),
        Some(Flaw::ShortDescriptions) => text.truncate(100),
        _ => {}
    }
    Some(text)
}

fn breadcrumb_key(flaw: Option<Flaw>, session: &Session, repository: &[u8]) -> Vec<u8> {
    match flaw {
        Some(Flaw::PrivateBreadcrumbs) => {
            [repository, b"@", session.id().to_string().as_bytes()].concat()
        }
        Some(Flaw::OneBreadcrumb) => Vec::new(),
        Some(Flaw::LossyNames) => lossy(repository),
        Some(Flaw::ShortNames) => repository[..repository.len().min(100)].to_vec(),
        _ => repository.to_vec(),
    }
}

fn lossy(bytes: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(bytes).into_owned().into_bytes()
}
