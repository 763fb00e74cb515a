//! The callbacks of a plugin in C as functions of Rust: the only place that calls its code.
//!
//! Each call has the session set, and what it returns is checked before it is used.

#![expect(unsafe_code, reason = "the plugin's code is behind pointers")]

use std::ffi::{CStr, c_int};
use std::{mem, process, ptr};

use cvmcache::Session;
use cvmcache::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, ListEntry, NewObject, ObjectId, ObjectInfo,
    ObjectType, PluginResult, ReadBuffer, Status,
};
use tracing::warn;

use crate::ffi::{free_malloc, report_error, take_malloc, to_malloc};
use crate::layout::{self, Hash, SIZE_UNKNOWN};
use crate::session;

/// A table of callbacks that has all that it declares.
///
/// What the functions of the table rely on is said where the table comes from, in
/// [`exports::cvmcache_init`](crate::exports::cvmcache_init): each gets pointers to what the header
/// says, for as long as the call lasts, and no other thread uses that meanwhile. This is what every
/// SAFETY line below means by its contract.
#[derive(Debug)]
pub(crate) struct Callbacks(layout::Callbacks);

impl Callbacks {
    /// Takes a table that has what it declares; otherwise the error names what it lacks.
    pub(crate) fn new(table: layout::Callbacks) -> Result<Self, String> {
        let declared = capabilities(&table);
        for (name, is_there, capability) in [
            ("obj_info", table.obj_info.is_some(), Capabilities::NONE),
            ("pread", table.pread.is_some(), Capabilities::NONE),
            ("chrefcnt", table.chrefcnt.is_some(), Capabilities::REFCOUNT),
            ("start_txn", table.start_txn.is_some(), Capabilities::WRITE),
            ("write_txn", table.write_txn.is_some(), Capabilities::WRITE),
            ("commit_txn", table.commit_txn.is_some(), Capabilities::WRITE),
            ("abort_txn", table.abort_txn.is_some(), Capabilities::WRITE),
            ("info", table.info.is_some(), Capabilities::INFO),
            ("shrink", table.shrink.is_some(), Capabilities::SHRINK),
            ("listing_begin", table.listing_begin.is_some(), Capabilities::LIST),
            ("listing_next", table.listing_next.is_some(), Capabilities::LIST),
            ("listing_end", table.listing_end.is_some(), Capabilities::LIST),
            ("breadcrumb_store", table.breadcrumb_store.is_some(), Capabilities::BREADCRUMB),
            ("breadcrumb_load", table.breadcrumb_load.is_some(), Capabilities::BREADCRUMB),
        ] {
            if is_there || !declared.contains(capability) {
                continue;
            }
            return Err(match capability {
                Capabilities::NONE => {
                    format!("the callback cvmcache_{name} is NULL, but every plugin needs it")
                }
                declared => format!(
                    "the callback cvmcache_{name} is NULL, but the plugin declares {declared}: \
                     implement it, or do not declare that"
                ),
            });
        }
        if declared.contains(Capabilities::SHRINK_RATE) && !declared.contains(Capabilities::INFO) {
            return Err("CVMCACHE_CAP_SHRINK_RATE goes with CVMCACHE_CAP_INFO: declare both".into());
        }
        Ok(Self(table))
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        capabilities(&self.0)
    }

    /// True if the plugin is told of references, whether it declares to count them or not.
    pub(crate) fn has_chrefcnt(&self) -> bool {
        self.0.chrefcnt.is_some()
    }

    pub(crate) fn chrefcnt(&self, session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        let callback = self.0.chrefcnt.ok_or(Status::NoSupport)?;
        let mut id = Hash::from(*id);
        // SAFETY: the contract of the table.
        call("cvmcache_chrefcnt", session, || unsafe { callback(&mut id, by) })
    }

    pub(crate) fn obj_info(&self, session: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        let callback = self.0.obj_info.ok_or(Status::NoSupport)?;
        let mut name = Hash::from(*id);
        let mut info = layout::ObjectInfo { size: SIZE_UNKNOWN, ..layout::ObjectInfo::EMPTY };
        let result = call("cvmcache_obj_info", session, || {
            // SAFETY: the contract of the table.
            unsafe { callback(&mut name, &mut info) }
        });
        // SAFETY: the callback has left null or a string from malloc.
        drop(unsafe { take_malloc(&mut info.description) });
        result?;
        let object_type = i32::try_from(info.object_type).ok().and_then(ObjectType::from_wire);
        Ok(ObjectInfo::new(
            info.size,
            object_type.unwrap_or_else(|| {
                warn!(%id, number = info.object_type, "cvmcache_obj_info has set no object type");
                ObjectType::Regular
            }),
        ))
    }

    pub(crate) fn pread(
        &self,
        session: &Session,
        id: &ObjectId,
        offset: u64,
        len: u32,
    ) -> PluginResult<Data> {
        let callback = self.0.pread.ok_or(Status::NoSupport)?;
        let mut name = Hash::from(*id);
        ReadBuffer::fill(id, len as usize, |buffer| {
            let mut size = len;
            call("cvmcache_pread", session, || {
                // SAFETY: the contract of the table; the buffer has `size` bytes.
                unsafe { callback(&mut name, offset, &mut size, buffer.as_mut_ptr()) }
            })?;
            if size > len {
                warn!(%id, offset, len, size, "cvmcache_pread has set a size larger than the buffer");
                return Err(Status::IoErr);
            }
            Ok(size as usize)
        })
    }

    pub(crate) fn start_txn(
        &self,
        session: &Session,
        id: u64,
        object: &NewObject,
    ) -> PluginResult<()> {
        let callback = self.0.start_txn.ok_or(Status::NoSupport)?;
        let mut name = Hash::from(object.id);
        let description = object.description.as_deref().filter(|text| !text.is_empty());
        let mut info = layout::ObjectInfo {
            size: object.expected_size.unwrap_or(SIZE_UNKNOWN),
            object_type: object.object_type.to_wire().cast_unsigned(),
            description: description.map_or(ptr::null_mut(), to_malloc),
            ..layout::ObjectInfo::EMPTY
        };
        let result = call("cvmcache_start_txn", session, || {
            // SAFETY: the contract of the table.
            unsafe { callback(&mut name, id, &mut info) }
        });
        // SAFETY: it is ours or, if the callback has exchanged it, from malloc.
        unsafe { free_malloc(info.description) };
        result
    }

    pub(crate) fn write_txn(
        &self,
        session: &Session,
        id: u64,
        data: &mut [u8],
    ) -> PluginResult<()> {
        let callback = self.0.write_txn.ok_or(Status::NoSupport)?;
        // A part is at most `max_object_size` bytes.
        let size = u32::try_from(data.len()).map_err(|_| Status::Malformed)?;
        // SAFETY: the contract of the table.
        call("cvmcache_write_txn", session, || unsafe { callback(id, data.as_mut_ptr(), size) })
    }

    pub(crate) fn commit_txn(&self, session: &Session, id: u64) -> PluginResult<()> {
        let callback = self.0.commit_txn.ok_or(Status::NoSupport)?;
        // SAFETY: the contract of the table.
        call("cvmcache_commit_txn", session, || unsafe { callback(id) })
    }

    pub(crate) fn abort_txn(&self, session: &Session, id: u64) {
        let Some(callback) = self.0.abort_txn else { return };
        // SAFETY: the contract of the table.
        let result = call("cvmcache_abort_txn", session, || unsafe { callback(id) });
        log_failure("cvmcache_abort_txn", session, result);
    }

    pub(crate) fn info(&self, session: Option<&Session>) -> PluginResult<CacheInfo> {
        let callback = self.0.info.ok_or(Status::NoSupport)?;
        let mut info =
            layout::Info { size_bytes: 0, used_bytes: 0, pinned_bytes: 0, no_shrink: -1 };
        // SAFETY: the contract of the table.
        call("cvmcache_info", session, || unsafe { callback(&mut info) })?;
        Ok(CacheInfo::new(info.size_bytes, info.used_bytes, info.pinned_bytes)
            .with_shrink_count(u64::try_from(info.no_shrink).ok()))
    }

    pub(crate) fn shrink(&self, session: &Session, target: u64) -> PluginResult<u64> {
        let callback = self.0.shrink.ok_or(Status::NoSupport)?;
        let mut used = 0;
        // SAFETY: the contract of the table.
        match call("cvmcache_shrink", session, || unsafe { callback(target, &mut used) }) {
            // The service replies PARTIAL, because more than the target is in use.
            Err(Status::Partial) if used > target => Ok(used),
            result => result.map(|()| used),
        }
    }

    pub(crate) fn listing_begin(
        &self,
        session: &Session,
        id: u64,
        object_type: ObjectType,
    ) -> PluginResult<()> {
        let callback = self.0.listing_begin.ok_or(Status::NoSupport)?;
        let number = object_type.to_wire().cast_unsigned();
        // SAFETY: the contract of the table.
        call("cvmcache_listing_begin", session, || unsafe { callback(id, number) })
    }

    pub(crate) fn listing_next(&self, session: &Session, id: u64) -> PluginResult<ListEntry> {
        let callback = self.0.listing_next.ok_or(Status::NoSupport)?;
        let mut item = layout::ObjectInfo::EMPTY;
        let result = call("cvmcache_listing_next", session, || {
            // SAFETY: the contract of the table.
            unsafe { callback(id.cast_signed(), &mut item) }
        });
        // SAFETY: the callback has left null or a string from malloc.
        let description = unsafe { take_malloc(&mut item.description) };
        result?;
        let Some(name) = item.id.id() else {
            warn!(hash = item.id.print(), "cvmcache_listing_next has set no hash algorithm");
            return Err(Status::IoErr);
        };
        Ok(ListEntry::new(name, item.pinned != 0, description.map(Into::into)))
    }

    pub(crate) fn listing_end(&self, session: &Session, id: u64) {
        let Some(callback) = self.0.listing_end else { return };
        // SAFETY: the contract of the table.
        let result =
            call("cvmcache_listing_end", session, || unsafe { callback(id.cast_signed()) });
        log_failure("cvmcache_listing_end", session, result);
    }

    pub(crate) fn breadcrumb_store(
        &self,
        session: &Session,
        repository: &CStr,
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        let callback = self.0.breadcrumb_store.ok_or(Status::NoSupport)?;
        let breadcrumb = layout::Breadcrumb {
            catalog_hash: breadcrumb.catalog.into(),
            timestamp: breadcrumb.timestamp,
            revision: breadcrumb.revision.unwrap_or(0),
        };
        call("cvmcache_breadcrumb_store", session, || {
            // SAFETY: the contract of the table.
            unsafe { callback(repository.as_ptr(), &breadcrumb) }
        })
    }

    pub(crate) fn breadcrumb_load(
        &self,
        session: &Session,
        repository: &CStr,
    ) -> PluginResult<Breadcrumb> {
        let callback = self.0.breadcrumb_load.ok_or(Status::NoSupport)?;
        let mut found = layout::Breadcrumb { catalog_hash: Hash::NONE, timestamp: 0, revision: 0 };
        call("cvmcache_breadcrumb_load", session, || {
            // SAFETY: the contract of the table.
            unsafe { callback(repository.as_ptr(), &mut found) }
        })?;
        let Some(catalog) = found.catalog_hash.id() else {
            let hash = found.catalog_hash.print();
            warn!(hash, "cvmcache_breadcrumb_load has set no hash algorithm");
            return Err(Status::IoErr);
        };
        let revision = Some(found.revision);
        Ok(Breadcrumb { catalog, timestamp: found.timestamp, revision })
    }
}

impl layout::ObjectInfo {
    const EMPTY: Self =
        Self { id: Hash::NONE, size: 0, object_type: 0, pinned: 0, description: ptr::null_mut() };
}

fn capabilities(table: &layout::Callbacks) -> Capabilities {
    Capabilities::from_bits_retain(table.capabilities.cast_unsigned().into())
}

/// Calls the plugin for a session.
fn call<'a>(
    name: &'static str,
    session: impl Into<Option<&'a Session>>,
    callback: impl FnOnce() -> c_int,
) -> PluginResult<()> {
    session::with(session.into(), || {
        let returns = Returns(name);
        let status = callback();
        mem::forget(returns);
        Status::from_wire(status)
    })
}

/// Dropped only if a callback does not return, but unwinds. Rust cannot catch what is on its way
/// then, and C++ must not see Rust's frames.
struct Returns(&'static str);

impl Drop for Returns {
    fn drop(&mut self) {
        report_error(format_args!(
            "the callback {} has thrown an exception, or ended its thread; catch exceptions in the \
             callback, and return a status. The process ends, and its mounts with it",
            self.0
        ));
        process::abort();
    }
}

fn log_failure(callback: &str, session: &Session, result: PluginResult<()>) {
    if let Err(status) = result {
        warn!(%session, callback, %status, "a callback that ends something has failed");
    }
}
