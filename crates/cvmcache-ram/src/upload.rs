//! Uploads: objects whose parts are arriving, and the memory that they have reserved.

use std::sync::Arc;

use bytes::Bytes;
use cvmcache::Transaction;
use cvmcache::plugin::{NewObject, PluginResult};

use crate::arena::Extents;
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
        Self::reserve(shared, new).inspect_err(|&status| shared.count_refusal(status))
    }

    fn reserve(shared: &Arc<Shared>, new: NewObject) -> PluginResult<Self> {
        let object = Object::new(new.id, new.object_type, None);
        let text = new.description.as_deref();
        let bytes = Store::cost(&object) + text.map_or(0, |text| Object::part_cost(text.len()));
        shared.locked(|store| store.begin(bytes, new.expected_size))?;
        let mut reservation = Reservation { shared: Arc::clone(shared), bytes };
        let Some(text) = text else { return Ok(Self { object, reservation }) };
        let extents = reservation.allocate(text.len())?;
        let object = Object::new(new.id, new.object_type, Some((text, extents)));
        Ok(Self { object, reservation })
    }

    fn append(&mut self, data: &Bytes) -> PluginResult<()> {
        self.reservation.reserve(Object::part_cost(data.len()))?;
        let extents = self.reservation.allocate(data.len())?;
        self.object.push(extents, data)
    }
}

impl Transaction for Upload {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        // The upload ends with the first part that is refused.
        self.append(&data).inspect_err(|&status| self.reservation.shared.count_refusal(status))
    }

    fn commit(self: Box<Self>) -> PluginResult<()> {
        let Upload { object, mut reservation } = *self;
        let object = Arc::new(object.complete());
        let is_new = reservation.shared.locked(|store| store.commit(&object));
        let is_new = is_new.inspect_err(|&status| reservation.shared.count_refusal(status))?;
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

impl Reservation {
    /// Takes memory, in the accounts.
    fn reserve(&mut self, cost: u64) -> PluginResult<()> {
        self.shared.locked(|store| store.reserve(cost))?;
        self.bytes += cost;
        Ok(())
    }

    /// Memory that has been reserved for one piece. If it comes in more of them, they are reserved, too.
    fn allocate(&mut self, len: usize) -> PluginResult<Extents> {
        let extents = self.shared.allocate(len)?;
        match Object::pieces_cost(&extents) {
            0 => {}
            more => self.reserve(more)?,
        }
        Ok(extents)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.locked(|store| store.release(self.bytes));
    }
}
