//! Uploads: objects whose parts are arriving, and the memory that they have reserved.

use std::sync::Arc;

use bytes::Bytes;
use cvmcache::Transaction;
use cvmcache::plugin::{NewObject, PluginResult};

use crate::object::Object;
use crate::shared::Shared;
use crate::store::Store;

/// An object that is arriving.
///
/// The order of the fields is that in which they are dropped: the memory is given back in the
/// accounts after it has been freed.
#[derive(Debug)]
pub(crate) struct Upload {
    object: Object,
    reservation: Reservation,
}

impl Upload {
    /// Begins an upload. It takes memory for what has arrived, never for what is announced.
    pub(crate) fn begin(shared: &Arc<Shared>, new: NewObject) -> PluginResult<Self> {
        let object = Object::new(new.id, new.object_type, new.description);
        let bytes = Store::cost(&object);
        shared.locked(|store| store.begin(bytes, new.expected_size))?;
        Ok(Self { object, reservation: Reservation { shared: Arc::clone(shared), bytes } })
    }
}

impl Transaction for Upload {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        let cost = Object::part_cost(&data);
        self.reservation.shared.locked(|store| store.reserve(cost))?;
        self.reservation.bytes += cost;
        self.object.push(data);
        Ok(())
    }

    fn commit(self: Box<Self>) -> PluginResult<()> {
        let Upload { object, mut reservation } = *self;
        let object = Arc::new(object.complete());
        let is_new = reservation.shared.locked(|store| store.commit(&object))?;
        if is_new {
            // The object has taken it over.
            reservation.bytes = 0;
        }
        Ok(())
    }
}

/// Memory that an upload has taken. It is given back on drop.
#[derive(Debug)]
struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.locked(|store| store.release(self.bytes));
    }
}
