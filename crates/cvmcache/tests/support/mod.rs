//! A cache whose state tests can inspect, and into which they inject faults.

#![allow(dead_code, unreachable_pub, reason = "every test uses a part of it")]

pub mod crash_command;
pub mod crashes;
pub mod plugin;
pub mod served;
pub mod sessions;
pub mod syslog;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cvmcache::plugin::*;
use cvmcache::{ServerHandle, Session};
use parking_lot::{Condvar, Mutex, MutexGuard};

/// The object id whose digest is all `byte`.
pub fn id(byte: u8) -> ObjectId {
    ObjectId::new(HashAlgorithm::Sha1, [byte; 20])
}

/// A cache in a map. Clones share it, so that a test keeps one and the server another.
#[derive(Clone)]
pub struct TestCache {
    state: Arc<(Mutex<State>, Condvar)>,
    capabilities: Capabilities,
}

#[derive(Default)]
pub struct State {
    pub objects: BTreeMap<ObjectId, Object>,
    pub breadcrumbs: BTreeMap<Vec<u8>, Breadcrumb>,
    /// Uploads that were begun and neither committed nor dropped.
    pub open_uploads: usize,
    pub open_listings: usize,
    /// The name of every callback that was called.
    pub calls: Vec<&'static str>,
    /// What the next calls of a callback do instead of their work.
    faults: Vec<(&'static str, Fault)>,
    /// The handle on its server.
    pub handle: ServerHandle,
    /// Calls of `read` wait as long as this is set; how many do.
    pub hold_reads: bool,
    pub held_reads: usize,
    /// The same for writes to uploads.
    pub hold_writes: bool,
    /// The same for changes of references.
    pub hold_references: bool,
    /// Callbacks need not wait, but for reads that are held.
    pub is_ready: bool,
    /// Those that need not wait do so all the same.
    pub hold_ready: bool,
}

#[derive(Clone)]
pub struct Object {
    pub data: Bytes,
    pub references: i64,
    pub object_type: ObjectType,
    pub description: Option<Bytes>,
}

#[derive(Clone, Copy)]
pub enum Fault {
    Fail(Status),
    Panic,
    /// Only for `read`: one byte more than requested.
    TooMuch,
}

impl Default for TestCache {
    fn default() -> Self {
        Self::with(Capabilities::ALL)
    }
}

impl TestCache {
    pub fn with(capabilities: Capabilities) -> Self {
        Self { state: Arc::default(), capabilities }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock()
    }

    /// Puts an object in, without a client.
    pub fn insert(&self, id: ObjectId, data: impl Into<Bytes>) {
        let object = Object {
            data: data.into(),
            references: 0,
            object_type: ObjectType::Regular,
            description: None,
        };
        self.state().objects.insert(id, object);
    }

    /// How many references the plugin counts.
    pub fn references(&self, id: ObjectId) -> i64 {
        self.state().objects.get(&id).map_or(0, |object| object.references)
    }

    /// How many uploads and listings are neither done nor dropped.
    pub fn left_open(&self) -> (usize, usize) {
        let state = self.state();
        (state.open_uploads, state.open_listings)
    }

    /// Injects a fault into the next call of a callback.
    pub fn upset(&self, callback: &'static str, fault: Fault) {
        self.state().faults.push((callback, fault));
    }

    /// Waits until the state is as wanted.
    pub fn wait_until(&self, wanted: impl Fn(&State) -> bool) {
        let limit = std::time::Duration::from_secs(20);
        let mut state = self.state();
        let timeout = self.state.1.wait_while_for(&mut state, |state| !wanted(state), limit);
        drop(state);
        assert!(!timeout.timed_out(), "the cache did not get there within {limit:?}");
    }

    /// Changes the state, and wakes the threads that wait for it.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.state.1.notify_all();
        changed
    }

    fn attempt<T>(
        &self,
        callback: &'static str,
        call: impl FnOnce() -> PluginResult<T>,
    ) -> Option<PluginResult<T>> {
        let is_ready = self.state().is_ready;
        is_ready.then(|| {
            self.enter(callback)?;
            self.wait_until(|state| !state.hold_ready);
            call()
        })
    }

    fn enter(&self, callback: &'static str) -> PluginResult<bool> {
        let fault = self.change(|state| {
            state.calls.push(callback);
            let fault = state.faults.iter().position(|(upset, _)| *upset == callback);
            fault.map(|index| state.faults.remove(index).1)
        });
        match fault {
            None => Ok(false),
            Some(Fault::Fail(status)) => Err(status),
            Some(Fault::Panic) => panic!("panic of {callback} on purpose"),
            Some(Fault::TooMuch) => Ok(true),
        }
    }
}

impl CachePlugin for TestCache {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn change_refcount(&self, _: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        self.enter("change_refcount")?;
        self.wait_until(|state| !state.hold_references);
        self.change(|state| {
            let object = state.objects.get_mut(id).ok_or(Status::NoEntry)?;
            let references = object.references + i64::from(by);
            if references < 0 {
                return Err(Status::BadCount);
            }
            object.references = references;
            Ok(())
        })
    }

    fn object_info(&self, _: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        self.enter("object_info")?;
        let state = self.state();
        let object = state.objects.get(id).ok_or(Status::NoEntry)?;
        Ok(ObjectInfo::new(object.data.len() as u64, object.object_type))
    }

    fn read(&self, _: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let too_much = self.enter("read")?;
        self.change(|state| state.held_reads += 1);
        self.wait_until(|state| !state.hold_reads);
        let state = self.state();
        let object = state.objects.get(id).ok_or(Status::NoEntry)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if start > object.data.len() {
            return Err(Status::OutOfBounds);
        }
        if too_much {
            return Ok(vec![0; len as usize + 1].into());
        }
        let end = object.data.len().min(start + len as usize);
        Ok(object.data.slice(start..end).into())
    }

    fn try_change_refcount(
        &self,
        session: &Session,
        id: &ObjectId,
        by: i32,
    ) -> Option<PluginResult<()>> {
        self.attempt("try_change_refcount", || self.change_refcount(session, id, by))
    }

    fn try_object_info(
        &self,
        session: &Session,
        id: &ObjectId,
    ) -> Option<PluginResult<ObjectInfo>> {
        self.attempt("try_object_info", || self.object_info(session, id))
    }

    fn try_read(
        &self,
        session: &Session,
        id: &ObjectId,
        offset: u64,
        len: u32,
    ) -> Option<PluginResult<Data>> {
        if self.state().hold_reads {
            return None;
        }
        self.attempt("try_read", || self.read(session, id, offset, len))
    }

    fn begin(&self, _: &Session, new: NewObject) -> PluginResult<Box<dyn Transaction>> {
        self.enter("begin")?;
        self.change(|state| state.open_uploads += 1);
        Ok(Box::new(TestUpload { cache: self.clone(), new, data: Vec::new() }))
    }

    fn info(&self, _: Option<&Session>) -> PluginResult<CacheInfo> {
        self.enter("info")?;
        let state = self.state();
        let size = |pinned: bool| {
            let counted = state.objects.values().filter(|o| !pinned || o.references > 0);
            counted.map(|object| object.data.len() as u64).sum()
        };
        Ok(CacheInfo::new(u64::MAX, size(false), size(true)).with_shrink_count(3))
    }

    fn shrink(&self, session: &Session, target: u64) -> PluginResult<u64> {
        self.enter("shrink")?;
        if self.info(Some(session))?.used_bytes > target {
            self.change(|state| state.objects.retain(|_, object| object.references > 0));
        }
        Ok(self.info(Some(session))?.used_bytes)
    }

    fn list(&self, _: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        self.enter("list")?;
        self.change(|state| state.open_listings += 1);
        let entries: Vec<_> = self
            .state()
            .objects
            .iter()
            .filter(|(_, object)| object.object_type == object_type)
            .map(|(id, object)| {
                ListEntry::new(*id, object.references > 0, object.description.clone())
            })
            .collect();
        Ok(Box::new(TestListing { cache: self.clone(), entries: entries.into_iter() }))
    }

    fn store_breadcrumb(
        &self,
        _: &Session,
        name: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        self.enter("store_breadcrumb")?;
        self.change(|state| state.breadcrumbs.insert(name.to_vec(), breadcrumb));
        Ok(())
    }

    fn load_breadcrumb(&self, _: &Session, name: &[u8]) -> PluginResult<Breadcrumb> {
        self.enter("load_breadcrumb")?;
        self.state().breadcrumbs.get(name).copied().ok_or(Status::NoEntry)
    }
}

struct TestUpload {
    cache: TestCache,
    new: NewObject,
    data: Vec<u8>,
}

impl Transaction for TestUpload {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        self.cache.enter("write")?;
        self.cache.wait_until(|state| !state.hold_writes);
        self.data.extend_from_slice(&data);
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> PluginResult<()> {
        self.cache.enter("commit")?;
        let data = std::mem::take(&mut self.data).into();
        let object = Object {
            data,
            references: 0,
            object_type: self.new.object_type,
            description: self.new.description.clone(),
        };
        self.cache.change(|state| {
            state.objects.entry(self.new.id).or_insert(object).references += 1;
        });
        Ok(())
    }
}

impl Drop for TestUpload {
    fn drop(&mut self) {
        self.cache.change(|state| state.open_uploads -= 1);
    }
}

struct TestListing {
    cache: TestCache,
    entries: std::vec::IntoIter<ListEntry>,
}

impl Iterator for TestListing {
    type Item = PluginResult<ListEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(self.cache.enter("next").map(|_| entry))
    }
}

impl Drop for TestListing {
    fn drop(&mut self) {
        self.cache.change(|state| state.open_listings -= 1);
    }
}
