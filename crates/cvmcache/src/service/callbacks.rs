//! Requests that are one callback of the plugin, and what comes before each: capabilities and limits.

use tracing::{debug, warn};

use super::{OpenSession, Service, guard};
use crate::Session;
use crate::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, ObjectId, ObjectInfo, PluginResult, Status,
};

impl Service {
    pub(super) fn object_info(
        &self,
        open: &OpenSession,
        id: &ObjectId,
    ) -> PluginResult<ObjectInfo> {
        guard("object_info", || self.plugin.object_info(&open.session, id))
    }

    pub(super) fn read(
        &self,
        open: &OpenSession,
        id: &ObjectId,
        offset: u64,
        len: u32,
    ) -> PluginResult<Data> {
        if len > self.limits.max_object_size {
            return Err(Status::Malformed);
        }
        let data = guard("read", || self.plugin.read(&open.session, id, offset, len))?;
        checked(data, id, offset, len)
    }

    /// The same without waiting; `None` if that cannot be.
    pub(super) fn try_read(
        &self,
        open: &OpenSession,
        id: &ObjectId,
        offset: u64,
        len: u32,
    ) -> Option<PluginResult<Data>> {
        if len > self.limits.max_object_size {
            return Some(Err(Status::Malformed));
        }
        let read = || self.plugin.try_read(&open.session, id, offset, len);
        let data = attempt("try_read", read)?;
        Some(data.and_then(|data| checked(data, id, offset, len)))
    }

    /// [`object_info`](Self::object_info) without waiting; `None` if that cannot be.
    pub(super) fn try_object_info(
        &self,
        open: &OpenSession,
        id: &ObjectId,
    ) -> Option<PluginResult<ObjectInfo>> {
        attempt("try_object_info", || self.plugin.try_object_info(&open.session, id))
    }

    pub(super) fn info(&self, session: Option<&Session>) -> PluginResult<CacheInfo> {
        self.require(Capabilities::INFO)?;
        let mut info = self.call(Capabilities::INFO, "info", || self.plugin.info(session))?;
        if !self.capabilities.contains(Capabilities::SHRINK_RATE) {
            info.shrink_count = None;
        }
        Ok(info)
    }

    pub(super) fn shrink(&self, session: &Session, target: u64) -> PluginResult<u64> {
        self.require(Capabilities::SHRINK)?;
        self.call(Capabilities::SHRINK, "shrink", || self.plugin.shrink(session, target))
    }

    pub(super) fn store_breadcrumb(
        &self,
        open: &OpenSession,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        self.require(Capabilities::BREADCRUMB)?;
        self.check_repository(repository)?;
        self.call(Capabilities::BREADCRUMB, "store_breadcrumb", || {
            self.plugin.store_breadcrumb(&open.session, repository, breadcrumb)
        })
    }

    pub(super) fn load_breadcrumb(
        &self,
        open: &OpenSession,
        repository: &[u8],
    ) -> PluginResult<Breadcrumb> {
        self.require(Capabilities::BREADCRUMB)?;
        self.check_repository(repository)?;
        self.call(Capabilities::BREADCRUMB, "load_breadcrumb", || {
            self.plugin.load_breadcrumb(&open.session, repository)
        })
    }

    /// Calls a method that a capability needs. What a plugin declares and has no method for shows in the
    /// trait's own answer, [`Status::NoSupport`], and nowhere else: so this is logged once per method, at
    /// the first request for it. To find out at the start would take a call of each, and they change
    /// what is in the cache.
    pub(super) fn call<T>(
        &self,
        capability: Capabilities,
        method: &'static str,
        call: impl FnOnce() -> PluginResult<T>,
    ) -> PluginResult<T> {
        let result = guard(method, call);
        // What is called without being declared may have nothing to say.
        if let Err(Status::NoSupport) = result
            && self.capabilities.contains(capability)
        {
            let mut unsupported = self.unsupported.lock();
            if !unsupported.contains(&method) {
                unsupported.push(method);
                warn!(
                    %capability, method,
                    "the plugin declares a capability, but its method answers NOSUPPORT: implement \
                     it, or do not declare that"
                );
            }
        }
        result
    }

    pub(super) fn require(&self, capability: Capabilities) -> PluginResult<()> {
        if self.capabilities.contains(capability) { Ok(()) } else { Err(Status::NoSupport) }
    }

    /// Checks that the name of a repository is within its limit. It is not cut: cut names of two
    /// repositories could be one, and its breadcrumb would lead to the catalog of the other.
    fn check_repository(&self, name: &[u8]) -> PluginResult<()> {
        if name.len() <= self.limits.max_text {
            return Ok(());
        }
        let limit = self.limits.max_text;
        debug!(len = name.len(), limit, "the name of a repository is too long");
        Err(Status::Malformed)
    }
}

/// Calls a callback that may return `None`, behind the guard.
pub(super) fn attempt<T>(
    callback: &'static str,
    call: impl FnOnce() -> Option<PluginResult<T>>,
) -> Option<PluginResult<T>> {
    guard(callback, || call().transpose()).transpose()
}

/// What the plugin has read, if it is not more than it was asked for.
fn checked(data: Data, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
    if data.len() > len as usize {
        // The client has a buffer of `len` bytes and aborts on more.
        warn!(%id, offset, len, got = data.len(), "the plugin read more than it was asked for");
        // The memory may be the plugin's, and its code run when it is dropped.
        let _logged = guard("drop of data", || {
            drop(data);
            Ok(())
        });
        return Err(Status::IoErr);
    }
    Ok(data)
}

pub(super) fn checksum(data: &Data) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    data.pieces().for_each(|piece| crc.update(piece));
    crc.finalize()
}
