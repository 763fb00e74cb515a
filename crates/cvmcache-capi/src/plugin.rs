//! The table of callbacks of C as a plugin of the SDK.

use std::sync::atomic::Ordering;

use cvmcache::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, Listing, NewObject, ObjectId, ObjectInfo,
    ObjectType, PluginResult, Status,
};
use cvmcache::{CachePlugin, Session, Transaction};

use crate::listing::Entries;
use crate::session::c_string;
use crate::state::Shared;
use crate::transaction::Upload;

/// What the server calls.
#[derive(Debug)]
pub(crate) struct Plugin(pub(crate) Shared);

impl CachePlugin for Plugin {
    fn capabilities(&self) -> Capabilities {
        self.0.callbacks.capabilities()
    }

    /// The reference library calls `cvmcache_chrefcnt` whatever is declared, and plugins open and close
    /// files in it.
    fn takes_references(&self) -> bool {
        self.0.callbacks.has_chrefcnt()
    }

    fn workers(&self) -> usize {
        self.0.workers.load(Ordering::Relaxed)
    }

    fn change_refcount(&self, session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        let result = self.0.callbacks.chrefcnt(session, id, by);
        match result {
            Ok(()) => self.0.references.add(*id, by),
            Err(_) => self.0.references.forget(id),
        }
        result
    }

    fn object_info(&self, session: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        self.0.callbacks.obj_info(session, id)
    }

    /// Plugins may take it for granted that the object is there.
    fn read(&self, session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        if !self.0.references.hold(id) {
            self.0.callbacks.obj_info(session, id)?;
        }
        self.0.callbacks.pread(session, id, offset, len)
    }

    fn begin(&self, session: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        let id = self.0.next_upload.fetch_add(1, Ordering::Relaxed);
        self.0.callbacks.start_txn(session, id, &object)?;
        Ok(Box::new(Upload::new(self.0.clone(), session.clone(), object.id, id)))
    }

    fn info(&self, session: Option<&Session>) -> PluginResult<CacheInfo> {
        self.0.callbacks.info(session)
    }

    fn shrink(&self, session: &Session, target: u64) -> PluginResult<u64> {
        self.0.callbacks.shrink(session, target)
    }

    fn list(&self, session: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        let id = self.0.next_listing.fetch_add(1, Ordering::Relaxed);
        self.0.callbacks.listing_begin(session, id, object_type)?;
        Ok(Box::new(Entries::new(self.0.clone(), session.clone(), id)))
    }

    fn store_breadcrumb(
        &self,
        session: &Session,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        let repository = repository_name(repository)?;
        self.0.callbacks.breadcrumb_store(session, &repository, breadcrumb)
    }

    fn load_breadcrumb(&self, session: &Session, repository: &[u8]) -> PluginResult<Breadcrumb> {
        let repository = repository_name(repository)?;
        self.0.callbacks.breadcrumb_load(session, &repository)
    }
}

/// The name as C has it. One with a zero byte would be another name there.
fn repository_name(name: &[u8]) -> PluginResult<std::ffi::CString> {
    if name.contains(&0) {
        return Err(Status::Malformed);
    }
    Ok(c_string(name))
}
