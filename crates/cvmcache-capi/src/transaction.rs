//! An upload to a plugin in C, by its number.

use bytes::{Bytes, BytesMut};
use cvmcache::plugin::{Capabilities, ObjectId, PluginResult};
use cvmcache::{Session, Transaction};

use crate::state::Shared;

/// An upload that the plugin has begun.
pub(crate) struct Upload {
    shared: Shared,
    session: Session,
    object: ObjectId,
    id: u64,
    /// True until the plugin's commit or abort was called.
    open: bool,
}

impl Upload {
    pub(crate) fn new(shared: Shared, session: Session, object: ObjectId, id: u64) -> Self {
        Self { shared, session, object, id, open: true }
    }
}

impl Transaction for Upload {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        // A callback may write to its buffer. These bytes have no other owner, so they are not copied.
        let mut data = data.try_into_mut().unwrap_or_else(|data| BytesMut::from(&data[..]));
        self.shared.callbacks.write_txn(&self.session, self.id, &mut data)
    }

    /// Whatever comes of it, plugins take the upload for ended: there is no `abort_txn` after this.
    fn commit(mut self: Box<Self>) -> PluginResult<()> {
        self.open = false;
        self.shared.callbacks.commit_txn(&self.session, self.id)?;
        // Without counts, it is not given back.
        if self.shared.callbacks.capabilities().contains(Capabilities::REFCOUNT) {
            self.shared.references.add(self.object, 1);
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.open {
            self.shared.callbacks.abort_txn(&self.session, self.id);
        }
    }
}
