//! The first lesson for authors of cache plugins: a complete plugin on the standard collections.
//!
//! It keeps every object in memory until a client asks it to shrink, so it is good for
//! tests and for reading, top to bottom. What it leaves out is what a cache in production is
//! about: a limit, and a choice of what to evict. For that, read `crates/cvmcache-ram`.
//!
//! ```text
//! cargo run --example null -- null.conf      # with CVMFS_CACHE_PLUGIN_LOCATOR=unix=/tmp/null
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cvmcache::admin::{Administration, Gauge};
use cvmcache::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, ListEntry, Listing, NewObject, ObjectId, ObjectInfo,
    ObjectType, PluginResult, Status,
};
use cvmcache::{CachePlugin, Session, Transaction};

/// Everything around the plugin (configuration, socket, signals, supervision) is `run`'s work.
fn main() -> ExitCode {
    cvmcache::run("null", |_options| Ok::<_, Infallible>(NullCache::default()))
}

/// The plugin. Callbacks take `&self`, from several threads if it is run with workers, so what
/// changes is behind a lock; and uploads outlive the callback that began them, so it is shared.
#[derive(Default)]
struct NullCache {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectId, Object>,
    breadcrumbs: BTreeMap<Vec<u8>, Breadcrumb>,
    shrink_count: u64,
}

struct Object {
    object_type: ObjectType,
    description: Option<Bytes>,
    /// How many times it is open. The protocol counts in 32 bits with a sign.
    references: i32,
    /// The data in the pieces it came in: putting them together would only copy them.
    parts: Vec<Bytes>,
}

impl CachePlugin for NullCache {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn change_refcount(&self, _session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        lock(&self.state).object(id)?.refer(by)
    }

    fn object_info(&self, _session: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        let mut state = lock(&self.state);
        let object = state.object(id)?;
        Ok(ObjectInfo::new(object.size(), object.object_type))
    }

    fn read(&self, _session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        lock(&self.state).object(id)?.read(offset, len)
    }

    fn begin(&self, _session: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        // A cache with a limit would refuse an `expected_size` that can never fit here.
        let NewObject { id, object_type, description, .. } = object;
        let object = Object { object_type, description, references: 0, parts: Vec::new() };
        Ok(Box::new(Upload { state: Arc::clone(&self.state), id, object }))
    }

    fn info(&self, _session: Option<&Session>) -> PluginResult<CacheInfo> {
        let state = lock(&self.state);
        Ok(CacheInfo::new(
            u64::MAX,
            state.objects.values().map(Object::size).sum(),
            state.objects.values().filter(|o| o.is_pinned()).map(Object::size).sum(),
        )
        .with_shrink_count(state.shrink_count))
    }

    fn shrink(&self, _session: &Session, target: u64) -> PluginResult<u64> {
        let mut state = lock(&self.state);
        let before = state.objects.len();
        let mut used = state.objects.values().map(Object::size).sum();
        for volatile in [true, false] {
            state.objects.retain(|_, object| {
                let in_turn = (object.object_type == ObjectType::Volatile) == volatile;
                let evict = used > target && in_turn && !object.is_pinned();
                if evict {
                    used -= object.size();
                }
                !evict
            });
        }
        state.shrink_count += u64::from(state.objects.len() < before);
        // Whether that is enough is for the caller to see.
        Ok(used)
    }

    fn list(&self, _session: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        let snapshot: Vec<ListEntry> = lock(&self.state)
            .objects
            .iter()
            .filter(|(_, object)| object.object_type == object_type)
            .map(|(id, object)| ListEntry::new(*id, object.is_pinned(), object.description.clone()))
            .collect();
        Ok(Box::new(snapshot.into_iter().map(Ok)))
    }

    fn store_breadcrumb(
        &self,
        _session: &Session,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        lock(&self.state).breadcrumbs.insert(repository.to_vec(), breadcrumb);
        Ok(())
    }

    fn load_breadcrumb(&self, _session: &Session, repository: &[u8]) -> PluginResult<Breadcrumb> {
        lock(&self.state).breadcrumbs.get(repository).copied().ok_or(Status::NoEntry)
    }

    fn administration(&self) -> Option<&dyn Administration> {
        Some(self)
    }
}

/// What an administrator sees of the cache besides what every server has. It is called on another thread,
/// while callbacks run.
impl Administration for NullCache {
    fn gauges(&self) -> Vec<Gauge> {
        let state = lock(&self.state);
        vec![
            Gauge::new("objects", state.objects.len(), "Objects in the cache"),
            Gauge::new("breadcrumbs", state.breadcrumbs.len(), "Repositories with a breadcrumb"),
        ]
    }
}

/// An upload: a value that holds what has come so far. Only this upload sees it, so it needs no
/// lock until it is committed; and since dropping it frees it, there is nothing to do to give it up.
struct Upload {
    state: Arc<Mutex<State>>,
    id: ObjectId,
    object: Object,
}

impl Transaction for Upload {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        self.object.parts.push(data);
        Ok(())
    }

    fn commit(self: Box<Self>) -> PluginResult<()> {
        let Upload { state, id, object } = *self;
        // Another upload may have been committed first. Its object stays: clients may be reading it.
        lock(&state).objects.entry(id).or_insert(object).refer(1)
    }
}

impl State {
    fn object(&mut self, id: &ObjectId) -> PluginResult<&mut Object> {
        self.objects.get_mut(id).ok_or(Status::NoEntry)
    }
}

impl Object {
    fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    fn is_pinned(&self) -> bool {
        self.references > 0
    }

    fn refer(&mut self, by: i32) -> PluginResult<()> {
        let references = self.references.checked_add(by).filter(|&count| count >= 0);
        self.references = references.ok_or(Status::BadCount)?;
        Ok(())
    }

    /// Slices of the parts: they share the memory of the object, and keep it if it is evicted.
    fn read(&self, offset: u64, len: u32) -> PluginResult<Data> {
        if offset > self.size() {
            return Err(Status::OutOfBounds);
        }
        let mut skip = offset as usize;
        let mut wanted = len as usize;
        let slices = self.parts.iter().map(|part| {
            let start = skip.min(part.len());
            let end = start + wanted.min(part.len() - start);
            skip -= start;
            wanted -= end - start;
            part.slice(start..end)
        });
        Ok(slices.collect())
    }
}

/// A panic in one callback is answered by the SDK and must not end all others: the lock is taken
/// even if a thread panicked while holding it. No callback leaves the state half changed.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use cvmcache::plugin::HashAlgorithm;

    use super::*;

    fn id(number: u8) -> ObjectId {
        ObjectId::new(HashAlgorithm::Sha1, [number; ObjectId::DIGEST_LEN])
    }

    fn session() -> Session {
        Session::new(1, "test.cern.ch:1")
    }

    fn store(cache: &NullCache, number: u8, object_type: ObjectType, parts: &[&'static str]) {
        let mut new = NewObject::new(id(number));
        new.object_type = object_type;
        new.description = Some("/a path".into());
        let mut upload = cache.begin(&session(), new).unwrap();
        parts.iter().for_each(|part| upload.write(Bytes::from(*part)).unwrap());
        upload.commit().unwrap();
    }

    #[test]
    fn an_object_is_read_across_the_borders_of_its_parts() {
        let cache = NullCache::default();
        store(&cache, 1, ObjectType::Catalog, &["abc", "", "defg", "h"]);
        let info = ObjectInfo::new(8, ObjectType::Catalog);
        assert_eq!(cache.object_info(&session(), &id(1)), Ok(info));
        let read = |offset: usize, len: usize| {
            let data = cache.read(&session(), &id(1), offset as u64, len as u32)?;
            Ok(data.into_bytes())
        };
        for offset in 0..=8 {
            for len in 0..=9 {
                let end = (offset + len).min(8);
                assert_eq!(read(offset, len).unwrap(), b"abcdefgh"[offset..end]);
            }
        }
        assert_eq!(read(9, 0), Err(Status::OutOfBounds));
        assert_eq!(read(usize::MAX, usize::MAX), Err(Status::OutOfBounds));
        assert_eq!(cache.read(&session(), &id(2), 0, 1), Err(Status::NoEntry));
    }

    #[test]
    fn an_object_exists_only_after_its_commit() {
        let cache = NullCache::default();
        let mut upload = cache.begin(&session(), NewObject::new(id(1))).unwrap();
        upload.write(Bytes::from("abc")).unwrap();
        assert_eq!(cache.change_refcount(&session(), &id(1), 0), Err(Status::NoEntry));
        assert_eq!(cache.info(Some(&session())).unwrap().used_bytes, 0);
        drop(upload);
        assert_eq!(cache.change_refcount(&session(), &id(1), 0), Err(Status::NoEntry));
    }

    #[test]
    fn of_two_uploads_the_first_is_kept_and_both_leave_a_reference() {
        let cache = NullCache::default();
        store(&cache, 1, ObjectType::Regular, &["first"]);
        store(&cache, 1, ObjectType::Regular, &["second"]);
        assert_eq!(cache.object_info(&session(), &id(1)).unwrap().size, 5);
        assert_eq!(cache.change_refcount(&session(), &id(1), -3), Err(Status::BadCount));
        assert_eq!(cache.change_refcount(&session(), &id(1), i32::MAX), Err(Status::BadCount));
        assert_eq!(cache.change_refcount(&session(), &id(1), i32::MIN), Err(Status::BadCount));
        assert_eq!(cache.change_refcount(&session(), &id(1), -2), Ok(()));
    }

    #[test]
    fn shrinking_evicts_volatile_objects_first_and_open_ones_never() {
        let cache = NullCache::default();
        store(&cache, 1, ObjectType::Regular, &["regular"]);
        store(&cache, 2, ObjectType::Volatile, &["volatile"]);
        store(&cache, 3, ObjectType::Volatile, &["open"]);
        for closed in [1, 2] {
            cache.change_refcount(&session(), &id(closed), -1).unwrap();
        }
        assert_eq!(cache.shrink(&session(), 11), Ok(11));
        assert_eq!(cache.change_refcount(&session(), &id(2), 0), Err(Status::NoEntry));
        assert_eq!(cache.shrink(&session(), 0), Ok(4));
        let info = cache.info(Some(&session())).unwrap();
        assert_eq!((info.used_bytes, info.pinned_bytes, info.shrink_count), (4, 4, Some(2)));
        let listed: Vec<_> = cache.list(&session(), ObjectType::Volatile).unwrap().collect();
        let entry = ListEntry::new(id(3), true, Some("/a path".into()));
        assert_eq!(listed, [Ok(entry)]);
    }

    #[test]
    fn breadcrumbs_are_kept_for_each_repository() {
        let cache = NullCache::default();
        let breadcrumb = Breadcrumb { catalog: id(1), timestamp: 2, revision: Some(3) };
        cache.store_breadcrumb(&session(), b"caf\xe9", breadcrumb).unwrap();
        assert_eq!(cache.load_breadcrumb(&session(), b"caf\xe9"), Ok(breadcrumb));
        assert_eq!(cache.load_breadcrumb(&session(), b"cafe"), Err(Status::NoEntry));
    }
}
