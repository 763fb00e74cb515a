//! A cache in a map, which counts what it gave out, fails when told to, and takes note of calls
//! that the service promises not to make.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cvmcache::plugin::*;
use cvmcache::{CachePlugin, Session, Transaction};
use cvmcache_testkit::Callback;

use super::{MAX_OBJECT_SIZE, MAX_TEXT};

/// The most references to an object that the plugin counts: far more than fit into 32 bits.
pub(super) const MAX_REFERENCES: u64 = u64::MAX - 1;

/// What a callback does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Fail,
    Panic,
    /// A read returns more than it was asked for; everything else fails.
    TooMuch,
}

/// What the next call of each callback does instead of its work.
pub(super) type Faults = BTreeMap<Callback, Fault>;

#[derive(Clone)]
pub(super) struct Cache {
    state: Arc<Mutex<State>>,
    capabilities: Capabilities,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<ObjectId, Stored>,
    /// By object; none of them is zero.
    pub(super) references: BTreeMap<ObjectId, u64>,
    pub(super) open_uploads: usize,
    pub(super) open_listings: usize,
    pub(super) faults: Faults,
    /// Calls that should not have been made.
    pub(super) violations: Vec<String>,
    breadcrumbs: BTreeMap<Vec<u8>, Breadcrumb>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) data: Vec<u8>,
    pub(super) object_type: ObjectType,
    pub(super) description: Option<Bytes>,
}

impl Fault {
    /// What the client hears of it.
    pub(super) fn status(self, callback: Callback) -> Status {
        match self {
            Fault::Panic => Status::IoErr,
            Fault::TooMuch if callback == Callback::Read => Status::IoErr,
            Fault::Fail | Fault::TooMuch => Status::Timeout,
        }
    }
}

impl Cache {
    pub(super) fn new(capabilities: Capabilities, objects: BTreeMap<ObjectId, Stored>) -> Self {
        let state = State { objects, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), capabilities }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a callback; true if it should return too much.
    fn enter(&self, callback: Callback, needs: Capabilities) -> PluginResult<bool> {
        let mut state = self.state();
        if !self.capabilities.contains(needs) {
            state.violations.push(format!("{callback:?} was called without {needs:?}"));
        }
        let Some(fault) = state.faults.remove(&callback) else { return Ok(false) };
        drop(state);
        match fault {
            // Without the hook, which under a fuzzer ends the process.
            Fault::Panic => resume_unwind(Box::new("as told")),
            Fault::TooMuch if callback == Callback::Read => Ok(true),
            Fault::Fail | Fault::TooMuch => Err(fault.status(callback)),
        }
    }
}

impl State {
    fn require(&mut self, promise: bool, broken: impl FnOnce() -> String) {
        if !promise {
            self.violations.push(broken());
        }
    }

    fn add_references(&mut self, id: &ObjectId, by: i64) -> PluginResult<()> {
        let held = self.references.get(id).copied().unwrap_or(0);
        let Some(sum) = held.checked_add_signed(by) else {
            self.violations.push(format!("{id} has {held} references, and should get {by}"));
            return Err(Status::BadCount);
        };
        match sum {
            0 => drop(self.references.remove(id)),
            1..=MAX_REFERENCES => drop(self.references.insert(*id, sum)),
            _ => return Err(Status::BadCount),
        }
        Ok(())
    }

    fn sizes(&self, counts: impl Fn(&ObjectId) -> bool) -> u64 {
        let counted = self.objects.iter().filter(|(id, _)| counts(id));
        counted.map(|(_, object)| object.data.len() as u64).sum()
    }
}

impl CachePlugin for Cache {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn change_refcount(&self, _: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        self.enter(Callback::ChangeRefcount, Capabilities::REFCOUNT)?;
        let mut state = self.state();
        if !state.objects.contains_key(id) {
            return Err(Status::NoEntry);
        }
        state.add_references(id, by.into())
    }

    fn object_info(&self, _: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        self.enter(Callback::ObjectInfo, Capabilities::NONE)?;
        let state = self.state();
        let object = state.objects.get(id).ok_or(Status::NoEntry)?;
        Ok(ObjectInfo::new(object.data.len() as u64, object.object_type))
    }

    fn read(&self, _: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let too_much = self.enter(Callback::Read, Capabilities::NONE)?;
        let mut state = self.state();
        state.require(len <= MAX_OBJECT_SIZE, || format!("a read of {len} bytes"));
        if too_much {
            return Ok(vec![0; len as usize + 1].into());
        }
        let data = &state.objects.get(id).ok_or(Status::NoEntry)?.data;
        let start = usize::try_from(offset).map_err(|_| Status::OutOfBounds)?;
        let rest = data.get(start..).ok_or(Status::OutOfBounds)?;
        Ok(rest[..rest.len().min(len as usize)].to_vec().into())
    }

    fn begin(&self, _: &Session, new: NewObject) -> PluginResult<Box<dyn Transaction>> {
        self.enter(Callback::Begin, Capabilities::WRITE)?;
        let mut state = self.state();
        let text = new.description.as_ref().map_or(0, Bytes::len);
        state.require(text <= MAX_TEXT, || format!("a description of {text} bytes"));
        state.open_uploads += 1;
        Ok(Box::new(Upload { cache: self.clone(), new, data: Vec::new() }))
    }

    fn info(&self, _: Option<&Session>) -> PluginResult<CacheInfo> {
        self.enter(Callback::Info, Capabilities::INFO)?;
        let state = self.state();
        Ok(CacheInfo::new(
            u64::MAX,
            state.sizes(|_| true),
            state.sizes(|id| state.references.contains_key(id)),
        )
        .with_shrink_count(3))
    }

    fn shrink(&self, _: &Session, target: u64) -> PluginResult<u64> {
        self.enter(Callback::Shrink, Capabilities::SHRINK)?;
        let state = &mut *self.state();
        if state.sizes(|_| true) > target {
            state.objects.retain(|id, _| state.references.contains_key(id));
        }
        Ok(state.sizes(|_| true))
    }

    fn list(&self, _: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        self.enter(Callback::List, Capabilities::LIST)?;
        let mut state = self.state();
        state.open_listings += 1;
        let listed = state.objects.iter().filter(|(_, object)| object.object_type == object_type);
        let entry = |(id, object): (&ObjectId, &Stored)| {
            ListEntry::new(*id, state.references.contains_key(id), object.description.clone())
        };
        let entries: Vec<_> = listed.map(entry).collect();
        Ok(Box::new(Entries { cache: self.clone(), entries: entries.into_iter() }))
    }

    fn store_breadcrumb(
        &self,
        _: &Session,
        name: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        self.enter(Callback::StoreBreadcrumb, Capabilities::BREADCRUMB)?;
        let mut state = self.state();
        state.require(name.len() <= MAX_TEXT, || format!("a name of {} bytes", name.len()));
        state.breadcrumbs.insert(name.to_vec(), breadcrumb);
        Ok(())
    }

    fn load_breadcrumb(&self, _: &Session, name: &[u8]) -> PluginResult<Breadcrumb> {
        self.enter(Callback::LoadBreadcrumb, Capabilities::BREADCRUMB)?;
        self.state().breadcrumbs.get(name).copied().ok_or(Status::NoEntry)
    }
}

struct Upload {
    cache: Cache,
    new: NewObject,
    data: Vec<u8>,
}

impl Transaction for Upload {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        self.cache.enter(Callback::Write, Capabilities::WRITE)?;
        let fits = (1..=MAX_OBJECT_SIZE as usize).contains(&data.len());
        self.cache.state().require(fits, || format!("a write of {} bytes", data.len()));
        self.data.extend_from_slice(&data);
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> PluginResult<()> {
        self.cache.enter(Callback::Commit, Capabilities::WRITE)?;
        let mut state = self.cache.state();
        if self.cache.capabilities.contains(Capabilities::REFCOUNT) {
            state.add_references(&self.new.id, 1)?;
        }
        let stored = Stored {
            data: std::mem::take(&mut self.data),
            object_type: self.new.object_type,
            description: self.new.description.clone(),
        };
        let len = stored.data.len() as u64;
        let kept = self.new.expected_size.is_none_or(|expected| expected == len);
        state.require(kept, || format!("an object of {len} bytes, not {:?}", self.new));
        state.objects.entry(self.new.id).or_insert(stored);
        drop(state);
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.cache.state().open_uploads -= 1;
    }
}

struct Entries {
    cache: Cache,
    entries: std::vec::IntoIter<ListEntry>,
}

impl Iterator for Entries {
    type Item = PluginResult<ListEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.cache.enter(Callback::Next, Capabilities::LIST) {
            Ok(_) => self.entries.next().map(Ok),
            Err(status) => Some(Err(status)),
        }
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.cache.state().open_listings -= 1;
    }
}
