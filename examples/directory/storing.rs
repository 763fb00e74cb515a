//! The tutorial's plugin after its second step: clients store objects, and hold them open. Nothing is
//! ever evicted. The whole of it is `examples/directory.rs`; docs/tutorial.md goes from here to there.

// ANCHOR: uses
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
// ANCHOR_END: uses

// ANCHOR: state
struct Directory {
    path: PathBuf,
    objects: Arc<Mutex<Objects>>,
}

type Objects = HashMap<ObjectId, Object>;

struct Object {
    info: ObjectInfo,
    references: i32,
}
// ANCHOR_END: state

// ANCHOR: lock
/// A panic in one callback must not end all others, and none leaves the table half changed.
fn lock(objects: &Mutex<Objects>) -> MutexGuard<'_, Objects> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}
// ANCHOR_END: lock

// ANCHOR: names
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
// ANCHOR_END: names

// ANCHOR: open
/// What the names of uploads under way begin with.
const UPLOAD: &str = "upload-";

impl Directory {
    /// Finds what was stored before, and removes what a killed plugin left of its uploads.
    fn open(path: &Path) -> std::io::Result<Self> {
        let mut objects = Objects::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(UPLOAD) {
                std::fs::remove_file(entry.path())?;
            } else if let Some((id, object_type)) = parse_file_name(name) {
                let info = ObjectInfo::new(entry.metadata()?.len(), object_type);
                objects.insert(id, Object { info, references: 0 });
            }
        }
        Ok(Self { path: path.to_owned(), objects: Arc::new(Mutex::new(objects)) })
    }
}
// ANCHOR_END: open

// ANCHOR: callbacks
impl CachePlugin for Directory {
    fn capabilities(&self) -> Capabilities {
        Capabilities::WRITE | Capabilities::REFCOUNT
    }

    fn workers(&self) -> usize {
        8
    }

    fn object_info(&self, _: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        Ok(lock(&self.objects).get(id).ok_or(Status::NoEntry)?.info)
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
        lock(&self.objects).get_mut(id).ok_or(Status::NoEntry)?.refer(by)
    }

    fn begin(&self, _: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        let file = tempfile::Builder::new().prefix(UPLOAD).tempfile_in(&self.path);
        Ok(Box::new(Upload {
            file: file.map_err(status)?,
            id: object.id,
            info: ObjectInfo::new(0, object.object_type),
            path: self.path.join(file_name(&object.id, object.object_type)),
            objects: Arc::clone(&self.objects),
        }))
    }
}

impl Object {
    fn refer(&mut self, by: i32) -> PluginResult<()> {
        let references = self.references.checked_add(by).filter(|&count| count >= 0);
        self.references = references.ok_or(Status::BadCount)?;
        Ok(())
    }
}
// ANCHOR_END: callbacks

// ANCHOR: upload
/// An upload. Dropping it removes its file, because that is what dropping a `NamedTempFile` does.
struct Upload {
    file: NamedTempFile,
    id: ObjectId,
    info: ObjectInfo,
    /// Where the file goes in the end.
    path: PathBuf,
    objects: Arc<Mutex<Objects>>,
}

impl Transaction for Upload {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        self.info.size += data.len() as u64;
        self.file.write_all(&data).map_err(status)
    }

    fn commit(self: Box<Self>) -> PluginResult<()> {
        let mut objects = lock(&self.objects);
        // Another upload may have been committed first. Its object stays: clients may be reading it.
        if let Some(object) = objects.get_mut(&self.id) {
            return object.refer(1);
        }
        self.file.persist(&self.path).map_err(|failed| status(failed.error))?;
        objects.insert(self.id, Object { info: self.info, references: 1 });
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
fn main() -> ExitCode {
    const KEY: &str = "CVMFS_CACHE_PLUGIN_DIRECTORY";
    cvmcache::run("directory", |context| {
        let options = context.options();
        match options.get(KEY) {
            Some(path) => {
                Directory::open(path.as_ref()).map_err(|error| options.bad_value(KEY, error))
            }
            None => Err(options.missing(KEY, "write in which directory the objects are")),
        }
    })
}
// ANCHOR_END: main
