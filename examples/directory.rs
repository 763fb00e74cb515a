//! The plugin of the tutorial (docs/tutorial.md): a cache in a directory, a file for each object.
//!
//! Objects survive the plugin; references, descriptions and the order of use do not. A cache that
//! stays within `CVMFS_CACHE_PLUGIN_SIZE` evicts what was used longest ago. `directory/reading.rs` and
//! `directory/storing.rs` are the steps before this one.

// ANCHOR: all
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cvmcache::plugin::*;
use cvmcache::{CachePlugin, Session, Transaction};
use tempfile::NamedTempFile;

// ANCHOR: state
struct Directory {
    path: PathBuf,
    store: Arc<Mutex<Store>>,
}

struct Store {
    path: PathBuf,
    objects: HashMap<ObjectId, Object>,
    /// What may be used, and what is: bytes of committed objects.
    size: u64,
    used: u64,
    /// Counts uses, so that they have an order.
    clock: u64,
    clean_ups: u64,
}

struct Object {
    info: ObjectInfo,
    description: Option<Bytes>,
    references: i32,
    last_use: u64,
}
// ANCHOR_END: state

// ANCHOR: lock
/// A panic in one callback must not end all others, and none leaves the table half changed.
fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}
// ANCHOR_END: lock

/// The file of an object: its name, and its type unless that is the usual one.
fn file_name(id: &ObjectId, object_type: ObjectType) -> String {
    match object_type {
        ObjectType::Catalog => format!("{id}.catalog"),
        ObjectType::Volatile => format!("{id}.volatile"),
        _ => id.to_string(),
    }
}

/// The object of a file, if it is one of ours.
fn parse_file_name(name: &str) -> Option<(ObjectId, ObjectType)> {
    let (id, object_type) = match name.split_once('.') {
        None => (name, ObjectType::Regular),
        Some((id, "catalog")) => (id, ObjectType::Catalog),
        Some((id, "volatile")) => (id, ObjectType::Volatile),
        Some(_) => return None,
    };
    Some((id.parse().ok()?, object_type))
}

/// What the names of uploads under way begin with.
const UPLOAD: &str = "upload-";

impl Directory {
    // ANCHOR: open
    /// Finds what was stored before, and removes what a killed plugin left of its uploads.
    fn open(path: &Path, size: u64) -> std::io::Result<Self> {
        let objects = HashMap::new();
        let mut store =
            Store { path: path.to_owned(), objects, size, used: 0, clock: 0, clean_ups: 0 };
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(UPLOAD) {
                std::fs::remove_file(entry.path())?;
            } else if let Some((id, object_type)) = parse_file_name(name) {
                let info = ObjectInfo::new(entry.metadata()?.len(), object_type);
                store.used += info.size;
                let object = Object { info, description: None, references: 0, last_use: 0 };
                store.objects.insert(id, object);
            }
        }
        Ok(Self { path: path.to_owned(), store: Arc::new(Mutex::new(store)) })
    }
    // ANCHOR_END: open
}

impl CachePlugin for Directory {
    // ANCHOR: capabilities
    fn capabilities(&self) -> Capabilities {
        Capabilities::WRITE
            | Capabilities::REFCOUNT
            | Capabilities::INFO
            | Capabilities::SHRINK
            | Capabilities::SHRINK_RATE
            | Capabilities::LIST
    }
    // ANCHOR_END: capabilities

    fn workers(&self) -> usize {
        8
    }

    // ANCHOR: lookups
    fn object_info(&self, _: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        Ok(lock(&self.store).use_object(id)?.info)
    }

    fn read(&self, session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let info = self.object_info(session, id)?;
        if offset > info.size {
            return Err(Status::OutOfBounds);
        }
        let path = self.path.join(file_name(id, info.object_type));
        let file = File::open(path).map_err(status)?;
        let mut buffer = ReadBuffer::new(len as usize)?;
        buffer.read_at(&file, offset).map_err(status)?;
        Ok(buffer.into())
    }

    fn change_refcount(&self, _: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        lock(&self.store).use_object(id)?.refer(by)
    }
    // ANCHOR_END: lookups

    // ANCHOR: begin
    fn begin(&self, _: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        let size = lock(&self.store).size;
        if object.expected_size.is_some_and(|expected| expected > size) {
            return Err(Status::NoSpace);
        }
        let file = tempfile::Builder::new().prefix(UPLOAD).tempfile_in(&self.path);
        Ok(Box::new(Upload {
            file: file.map_err(status)?,
            id: object.id,
            info: ObjectInfo::new(0, object.object_type),
            description: object.description,
            limit: size,
            store: Arc::clone(&self.store),
        }))
    }
    // ANCHOR_END: begin

    // ANCHOR: info
    fn info(&self, _: Option<&Session>) -> PluginResult<CacheInfo> {
        let store = lock(&self.store);
        let pinned = store.objects.values().filter(|object| object.references > 0);
        Ok(CacheInfo::new(store.size, store.used, pinned.map(|object| object.info.size).sum())
            .with_shrink_count(store.clean_ups))
    }

    fn shrink(&self, _: &Session, target: u64) -> PluginResult<u64> {
        lock(&self.store).shrink(target)
    }

    fn list(&self, _: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        let store = lock(&self.store);
        let objects = store.objects.iter().filter(|(_, o)| o.info.object_type == object_type);
        let entries: Vec<_> = objects
            .map(|(id, object)| {
                ListEntry::new(*id, object.references > 0, object.description.clone())
            })
            .collect();
        Ok(Box::new(entries.into_iter().map(Ok)))
    }
    // ANCHOR_END: info
}

// ANCHOR: store
impl Store {
    /// An object that is used now.
    fn use_object(&mut self, id: &ObjectId) -> PluginResult<&mut Object> {
        self.clock += 1;
        let object = self.objects.get_mut(id).ok_or(Status::NoEntry)?;
        object.last_use = self.clock;
        Ok(object)
    }

    /// Evicts closed objects until at most `target` bytes are used: volatile ones first, then those
    /// that were used longest ago. Returns what is used then.
    fn shrink(&mut self, target: u64) -> PluginResult<u64> {
        if self.used <= target {
            return Ok(self.used);
        }
        let closed = self.objects.iter().filter(|(_, object)| object.references == 0);
        let mut closed: Vec<_> = closed
            .map(|(id, o)| (o.info.object_type != ObjectType::Volatile, o.last_use, *id, o.info))
            .collect();
        closed.sort_unstable_by_key(|&(keep, last_use, id, _)| (keep, last_use, id));
        self.clean_ups += u64::from(!closed.is_empty());
        for (_, _, id, info) in closed {
            if self.used <= target {
                break;
            }
            let path = self.path.join(file_name(&id, info.object_type));
            std::fs::remove_file(path).map_err(status)?;
            self.objects.remove(&id);
            self.used -= info.size;
        }
        Ok(self.used)
    }

    /// Makes room for `size` bytes more: if they do not fit, it evicts a quarter of the cache at once.
    fn make_room(&mut self, size: u64) -> PluginResult<()> {
        if self.used.saturating_add(size) <= self.size {
            return Ok(());
        }
        let target = (self.size / 4 * 3).min(self.size.saturating_sub(size));
        let used = self.shrink(target)?;
        if used.saturating_add(size) <= self.size { Ok(()) } else { Err(Status::NoSpace) }
    }
}
// ANCHOR_END: store

impl Object {
    fn refer(&mut self, by: i32) -> PluginResult<()> {
        let references = self.references.checked_add(by).filter(|&count| count >= 0);
        self.references = references.ok_or(Status::BadCount)?;
        Ok(())
    }
}

// ANCHOR: upload
/// An upload. Dropping it removes its file, because that is what dropping a `NamedTempFile` does.
struct Upload {
    file: NamedTempFile,
    id: ObjectId,
    info: ObjectInfo,
    description: Option<Bytes>,
    /// The largest object that fits at all.
    limit: u64,
    store: Arc<Mutex<Store>>,
}

impl Transaction for Upload {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        self.info.size += data.len() as u64;
        if self.info.size > self.limit {
            return Err(Status::NoSpace);
        }
        self.file.write_all(&data).map_err(status)
    }

    fn commit(self: Box<Self>) -> PluginResult<()> {
        let Upload { file, id, info, description, store, .. } = *self;
        let mut store = lock(&store);
        // Another upload may have been committed first. Its object stays: clients may be reading it.
        if let Ok(object) = store.use_object(&id) {
            return object.refer(1);
        }
        store.make_room(info.size)?;
        let path = store.path.join(file_name(&id, info.object_type));
        file.persist(path).map_err(|failed| status(failed.error))?;
        let object = Object { info, description, references: 1, last_use: store.clock };
        store.used += info.size;
        store.objects.insert(id, object);
        Ok(())
    }
}
// ANCHOR_END: upload

/// What a client is told of an error of the file system.
fn status(error: std::io::Error) -> Status {
    match error.kind() {
        std::io::ErrorKind::NotFound => Status::NoEntry,
        std::io::ErrorKind::StorageFull => Status::NoSpace,
        _ => Status::IoErr,
    }
}

// ANCHOR: main
use cvmcache::ConfigKey;

const DIRECTORY: ConfigKey =
    ConfigKey::new("CVMFS_CACHE_PLUGIN_DIRECTORY", "DIR", "where the objects are").required();

const SIZE: ConfigKey =
    ConfigKey::new("CVMFS_CACHE_PLUGIN_SIZE", "MB", "how large the cache may grow")
        .bounds(0, 100_000_000)
        .default_value("1000");

fn main() -> ExitCode {
    cvmcache::Program::new("directory").keys(&[DIRECTORY, SIZE]).run(|context| {
        let options = context.options();
        let hint = "write in which directory the objects are";
        let path = options.get(DIRECTORY).ok_or_else(|| options.missing(DIRECTORY, hint))?;
        let megabytes = options.value::<u64>(&SIZE)?.unwrap_or(1000);
        Directory::open(path.as_ref(), megabytes << 20)
            .map_err(|error| options.bad_value(DIRECTORY, error))
    })
}
// ANCHOR_END: main
// ANCHOR_END: all
