//! A plugin that costs next to nothing: what is measured around it is the SDK's.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use cvmcache::plugin::{
    Capabilities, Data, HashAlgorithm, NewObject, ObjectId, ObjectInfo, ObjectType, PluginResult,
};
use cvmcache::{CachePlugin, Session, Transaction};
use cvmcache_proto::{Operation, StorePart};

/// How large the object is, in bytes.
pub(crate) const SIZE: usize = 1024 * 1024;

/// The name of the object.
pub(crate) const OBJECT: ObjectId = ObjectId::new(HashAlgorithm::Sha1, [7; 20]);

/// A cache of one object, which takes in others and forgets them.
#[derive(Debug)]
pub(crate) struct Shelf {
    content: Bytes,
    backend: Duration,
}

impl Shelf {
    /// A shelf that waits for a backend for so long in each call.
    pub(crate) fn with_backend(backend: Duration) -> Self {
        Self { content: vec![7; SIZE].into(), backend }
    }

    fn wait(&self) {
        if !self.backend.is_zero() {
            thread::sleep(self.backend);
        }
    }
}

impl CachePlugin for Shelf {
    fn capabilities(&self) -> Capabilities {
        Capabilities::WRITE | Capabilities::REFCOUNT
    }

    fn change_refcount(&self, _: &Session, _: &ObjectId, _: i32) -> PluginResult<()> {
        self.wait();
        Ok(())
    }

    fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
        self.wait();
        Ok(ObjectInfo::new(SIZE as u64, ObjectType::Regular))
    }

    fn read(&self, _: &Session, _: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        self.wait();
        let begin = SIZE.min(offset as usize);
        Ok(self.content.slice(begin..SIZE.min(begin + len as usize)).into())
    }

    fn begin(&self, _: &Session, _: NewObject) -> PluginResult<Box<dyn Transaction>> {
        Ok(Box::new(Forgotten))
    }
}

struct Forgotten;

impl Transaction for Forgotten {
    fn write(&mut self, _: Bytes) -> PluginResult<()> {
        Ok(())
    }

    fn commit(self: Box<Self>) -> PluginResult<()> {
        Ok(())
    }
}

/// An upload of one part.
pub(crate) fn upload(data: impl Into<Bytes>) -> Operation {
    Operation::Store(StorePart::new(OBJECT, 1, true, data))
}
