//! The store: the index behind its lock, and which objects' files are being changed. It is shared by the
//! plugin, its uploads and its threads.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use cvmcache::plugin::{ObjectId, ObjectInfo, ObjectType, PluginResult, Status};
use cvmcache::{EvictionCounter, ServerHandle, Watermarks};
use metrics::{Counter, counter};
use parking_lot::{Condvar, Mutex};

use crate::config::Fsync;
use crate::database::Database;
use crate::descriptors::Descriptors;
use crate::digest::BlockDigests;
use crate::entry::{Evicted, NewEntry, Place};
use crate::files::FileSystem;
use crate::index::{Dirty, Index};
use crate::layout::{Layout, UploadNumber};
use crate::scrub::Scrubbing;

/// Everything that a cache consists of but its threads.
///
/// Locks: `database` before `state`, and `state` before those of `descriptors`; under that of `scrubbing` no other; nothing waits for a disk while
/// it holds `state`. Whatever changes or looks for the file of an object does so under [`Change`], which no two
/// threads have for one object, and which is taken before `state`.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) layout: Layout,
    pub(crate) files: Arc<dyn FileSystem>,
    pub(crate) fsync: Fsync,
    pub(crate) descriptors: Descriptors,
    state: Mutex<State>,
    /// A change has ended.
    changed: Condvar,
    pub(crate) database: Mutex<Database>,
    /// The tree has been compared with the index since the start.
    pub(crate) checked: AtomicBool,
    /// The file system can tell what is in the page cache, as far as is known.
    pub(crate) can_read_cached: AtomicBool,
    pub(crate) damaged: AtomicU64,
    pub(crate) scrubbed: AtomicU64,
    pub(crate) scrubbing: Scrubbing,
    handle: ServerHandle,
    wake: (Sender<()>, Receiver<()>),
    run: u64,
    uploads: AtomicU64,
    evictions: EvictionCounter,
    damaged_objects: Counter,
}

/// Invariant: nothing panics between two changes to the state that belong together, since the SDK answers a
/// panic and the plugin goes on.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: Index,
    /// Objects that are to be synchronised and to get their names.
    pub(crate) unsynced: Vec<ObjectId>,
    pub(crate) unsynced_bytes: u64,
    /// Digests that the database has not been told.
    pub(crate) digests: HashMap<ObjectId, BlockDigests>,
    /// The thread of `sync.rs` sleeps until there is something for it to do.
    has_idle_thread: bool,
}

/// What there is to do for the thread of `sync.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    /// A clean-up goes on, or much waits to be synchronised.
    pub(crate) is_urgent: bool,
    /// Files are to be synchronised.
    pub(crate) sync: bool,
    /// The database is to be told of changes.
    pub(crate) write: bool,
}

/// The right to change the file of an object, until it is dropped.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    store: &'a Store,
    id: ObjectId,
}

impl Store {
    /// A store without objects.
    pub(crate) fn new(
        layout: Layout,
        files: Arc<dyn FileSystem>,
        fsync: Fsync,
        index: Index,
        database: Database,
        handle: ServerHandle,
    ) -> Self {
        let state = State {
            index,
            unsynced: Vec::new(),
            unsynced_bytes: 0,
            digests: HashMap::new(),
            has_idle_thread: false,
        };
        Self {
            layout,
            files,
            fsync,
            descriptors: Descriptors::new(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            database: Mutex::new(database),
            checked: AtomicBool::new(false),
            can_read_cached: AtomicBool::new(true),
            damaged: AtomicU64::new(0),
            scrubbed: AtomicU64::new(0),
            scrubbing: Scrubbing::new(),
            evictions: handle.eviction_counter(),
            handle,
            wake: bounded(1),
            run: fastrand::u64(..),
            uploads: AtomicU64::new(0),
            damaged_objects: counter!("cvmcache_damaged_objects_total"),
        }
    }

    /// Runs `work` under the lock, and then what follows from it.
    pub(crate) fn locked<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let (result, ask_detach, wake) = {
            let mut state = self.state.lock();
            let result = work(&mut state);
            let pending = state.pending();
            let wake = pending.is_urgent || (state.has_idle_thread && pending.is_any());
            state.has_idle_thread &= !wake;
            (result, state.index.take_ask_detach(), wake)
        };
        if wake {
            self.wake();
        }
        if ask_detach {
            tracing::warn!(
                "more than {} % of the cache is pinned, asking clients to close file catalogs",
                Watermarks::PINNED_HIGH_PERCENT
            );
            self.handle.ask_detach();
        }
        result
    }

    /// What there is to do for the thread of `sync.rs`. If there is nothing, the thread is woken when there is.
    pub(crate) fn pending(&self) -> Pending {
        let mut state = self.state.lock();
        let pending = state.pending();
        state.has_idle_thread = !pending.is_any();
        pending
    }

    /// Wakes the thread of `sync.rs`.
    fn wake(&self) {
        // One that waits there is enough.
        let _ = self.wake.0.try_send(());
    }

    pub(crate) fn wake_ups(&self) -> &Receiver<()> {
        &self.wake.1
    }

    pub(crate) fn new_upload_number(&self) -> UploadNumber {
        UploadNumber { run: self.run, count: self.uploads.fetch_add(1, Ordering::Relaxed) }
    }

    /// Opens, closes or, with `by` = 0, checks for an object.
    pub(crate) fn change_references(&self, id: &ObjectId, by: i32) -> PluginResult<()> {
        match self.try_change_references(id, by) {
            Some(result) => result,
            None => self.find(id, change_references(id, by)),
        }
    }

    /// The same; `None` if the file of the object has to be looked at before.
    pub(crate) fn try_change_references(&self, id: &ObjectId, by: i32) -> Option<PluginResult<()>> {
        let change = change_references(id, by);
        if by < 0 {
            return Some(self.locked(|state| change(&mut state.index)));
        }
        self.try_find(id, change).ok()
    }

    /// The size and type of an object.
    pub(crate) fn info(&self, id: &ObjectId) -> PluginResult<ObjectInfo> {
        self.find(id, |index| index.info_of(id))
    }

    /// Calls `work` once the index is certain to say what is on disk; not at all if the object was looked for
    /// there in vain.
    pub(crate) fn find<T>(
        &self,
        id: &ObjectId,
        work: impl FnOnce(&mut Index) -> PluginResult<T>,
    ) -> PluginResult<T> {
        let work = match self.try_find(id, work) {
            Ok(result) => return result,
            Err(work) => work,
        };
        let change = self.change(id);
        self.look(&change)?;
        self.locked(|state| work(&mut state.index))
    }

    /// Calls `work` if the index is certain to say what is on disk, and returns it if not.
    pub(crate) fn try_find<T, W>(&self, id: &ObjectId, work: W) -> Result<PluginResult<T>, W>
    where
        W: FnOnce(&mut Index) -> PluginResult<T>,
    {
        self.locked(|state| {
            let index = &mut state.index;
            let is_certain = match index.get(id) {
                Some(entry) => entry.verified || entry.place != Place::Named,
                // Only a cache that others write to has objects that the check did not find.
                None => self.checked.load(Ordering::Relaxed) && !self.layout.is_alien(),
            };
            if is_certain && !index.is_changing(id) { Ok(work(index)) } else { Err(work) }
        })
    }

    /// Compares the index with the file of an object. What is on disk counts.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if there is no such object.
    pub(crate) fn look(&self, change: &Change<'_>) -> PluginResult<()> {
        let id = change.id;
        let known = self.locked(|state| {
            let entry = state.index.get(&id)?;
            Some((entry.size, entry.place, entry.verified))
        });
        if let Some((_, place, verified)) = known
            && (verified || place != Place::Named)
        {
            return Ok(());
        }
        let metadata = match self.files.metadata(&self.layout.object(&id)) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lose(&id);
                return Err(Status::NoEntry);
            }
            Err(error) => {
                tracing::error!(%error, "cannot look at object {id}");
                return Err(Status::IoErr);
            }
        };
        let size = metadata.len();
        match known {
            Some((known, ..)) if known != size => {
                self.damaged(change, &format!("it has {size} bytes instead of {known}"));
                return Err(Status::NoEntry);
            }
            Some(_) => {
                // Files of an alien cache may vanish at any time.
                if !self.layout.is_alien() {
                    self.locked(|state| state.index.set_verified(&id));
                }
                return Ok(());
            }
            None => {}
        }
        if !metadata.is_file() || (size == 0 && !Layout::is_empty_object(&id)) {
            return Err(Status::NoEntry);
        }
        let entry = NewEntry {
            id,
            size,
            object_type: ObjectType::Regular,
            description: None,
            place: Place::Named,
            verified: !self.layout.is_alien(),
        };
        let nanoseconds = metadata.atime().saturating_mul(1_000_000_000) + metadata.atime_nsec();
        let last_use = u64::try_from(nanoseconds).unwrap_or(0);
        let now = now();
        self.locked(|state| {
            state.index.set_now(now);
            // A date in the future would keep it for ever.
            let last_use = last_use.min(state.index.now());
            state.index.insert(entry, 0, Some(last_use));
            state.index.mark_dirty(id, Dirty::Changed);
        });
        Ok(())
    }

    /// Waits until no other thread changes the file of this object.
    pub(crate) fn change(&self, id: &ObjectId) -> Change<'_> {
        let mut state = self.state.lock();
        while !state.index.begin_change(id) {
            self.changed.wait(&mut state);
        }
        Change { store: self, id: *id }
    }

    /// Evicts one object. False if it has references, is not there, or is not this node's to evict.
    pub(crate) fn evict(&self, id: &ObjectId) -> bool {
        if self.layout.is_alien() {
            return false;
        }
        let change = self.change(id);
        if self.look(&change).is_err() {
            return false;
        }
        let evicted = self.locked(|state| state.index.evict_one(id));
        self.remove_files(evicted.as_slice());
        evicted.is_some()
    }

    /// The object is not there any more.
    pub(crate) fn lose(&self, id: &ObjectId) {
        self.locked(|state| state.index.lose(id));
        self.descriptors.remove(id);
    }

    /// Moves the file of an object aside that is not what was stored, so that clients store it again.
    pub(crate) fn damaged(&self, change: &Change<'_>, reason: &str) {
        let id = change.id;
        tracing::error!("object {id} is damaged and moved aside: {reason}");
        self.damaged.fetch_add(1, Ordering::Relaxed);
        self.damaged_objects.increment(1);
        let place = self.locked(|state| state.index.get(&id).map(|entry| entry.place));
        self.lose(&id);
        let result = match place {
            Some(Place::Upload(number)) => self.files.remove(&self.layout.upload(number)),
            Some(Place::Named) | None => self.move_aside(&id),
        };
        if let Err(error) = result
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(%error, "cannot move object {id} aside");
        }
    }

    /// Removes the files of objects that have left the index. They are being changed until then: an upload of
    /// the same object does not get its name in between.
    pub(crate) fn remove_evicted(&self, evicted: &[Evicted]) {
        if evicted.is_empty() {
            return;
        }
        self.remove_files(evicted);
        self.locked(|state| evicted.iter().for_each(|object| state.index.end_change(&object.id)));
        self.changed.notify_all();
    }

    fn remove_files(&self, evicted: &[Evicted]) {
        self.evictions.count(evicted.len() as u64, evicted.iter().map(|object| object.cost).sum());
        for object in evicted {
            self.descriptors.remove(&object.id);
            if let Err(error) = self.files.remove(&self.path(&object.id, object.place))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::error!(%error, "cannot remove object {}", object.id);
            }
        }
    }

    pub(crate) fn path(&self, id: &ObjectId, place: Place) -> PathBuf {
        match place {
            Place::Named => self.layout.object(id),
            Place::Upload(number) => self.layout.upload(number),
        }
    }

    /// Evicts objects without references until at most `target` bytes are in use, and returns how many are.
    /// What others close meanwhile could keep this going for ever, so it ends after as many objects as could
    /// be evicted when it began.
    pub(crate) fn shrink(&self, target: u64) -> u64 {
        let mut left = self.locked(|state| state.index.idle());
        let mut evicted_any = false;
        loop {
            let mut state = self.state.lock();
            let used = state.index.info().used_bytes;
            let excess = used.saturating_sub(target);
            let evicted = state.index.evict(excess, left.min(Index::BATCH));
            if evicted.is_empty() {
                // An object whose file is getting its name at this moment can be evicted afterwards.
                if excess > 0 && left > 0 && state.index.idle() > 0 {
                    self.changed.wait(&mut state);
                    left -= 1;
                    continue;
                }
                if evicted_any {
                    state.index.count_clean_up();
                    tracing::info!("evicted objects on request, {used} bytes are used");
                }
                return used;
            }
            drop(state);
            evicted_any = true;
            left -= evicted.len();
            self.remove_evicted(&evicted);
        }
    }

    #[cfg(test)]
    pub(crate) fn assert_consistent(&self) {
        let state = self.state.lock();
        state.index.assert_consistent();
    }
}

impl Pending {
    pub(crate) fn is_any(self) -> bool {
        self.is_urgent || self.sync || self.write
    }
}

impl State {
    fn pending(&self) -> Pending {
        Pending {
            is_urgent: self.index.is_cleaning_up() || self.unsynced_bytes > MAX_UNSYNCED_BYTES,
            sync: !self.unsynced.is_empty(),
            write: self.index.is_dirty() || !self.digests.is_empty(),
        }
    }
}

impl Change<'_> {
    pub(crate) fn id(&self) -> ObjectId {
        self.id
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.store.state.lock().index.end_change(&self.id);
        self.store.changed.notify_all();
    }
}

/// A change at this time.
fn change_references(id: &ObjectId, by: i32) -> impl FnOnce(&mut Index) -> PluginResult<()> {
    let now = now();
    move |index| {
        index.set_now(now);
        index.change_references(id, by)
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    to_nanoseconds(SystemTime::now())
}

pub(crate) fn to_nanoseconds(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX / 2)
}

/// More than this is not left to a power cut.
const MAX_UNSYNCED_BYTES: u64 = 64 * 1024 * 1024;
