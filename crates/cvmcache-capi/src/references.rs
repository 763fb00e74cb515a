//! Objects that the plugin has confirmed to hold: a read of one needs no check for existence.

use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;

use cvmcache::plugin::ObjectId;

/// The references that the plugin counts, as far as it has confirmed them.
///
/// Invariant: no count is zero. The lock is held for one access to the table, never while the plugin is
/// called, and no other lock is taken under it. With several workers, a change of the plugin's count and
/// the note of it are two steps, in between which a read may see the older one: after an open, it asks
/// whether the object is there, in vain; after a close, it does not ask, as if it had come before. The
/// service keeps the changes that a session makes to one object in order.
#[derive(Debug, Default)]
pub(crate) struct References(Mutex<HashMap<ObjectId, u64>>);

impl References {
    /// True if the plugin must not evict the object.
    pub(crate) fn hold(&self, id: &ObjectId) -> bool {
        self.lock().contains_key(id)
    }

    /// Takes note of a change that the plugin has made.
    pub(crate) fn add(&self, id: ObjectId, by: i32) {
        let mut references = self.lock();
        let change = u64::from(by.unsigned_abs());
        let count = references.get(&id).copied().unwrap_or(0);
        let count =
            if by < 0 { count.saturating_sub(change) } else { count.saturating_add(change) };
        if count == 0 {
            references.remove(&id);
        } else {
            references.insert(id, count);
        }
    }

    /// Takes note that the plugin counts otherwise: then nothing is promised.
    pub(crate) fn forget(&self, id: &ObjectId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectId, u64>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use cvmcache::plugin::HashAlgorithm;

    use super::*;

    #[test]
    fn an_object_is_held_until_its_last_reference_is_gone() {
        let id = ObjectId::new(HashAlgorithm::Sha1, [1; 20]);
        let references = References::default();
        references.add(id, 0);
        references.add(id, -1);
        assert!(!references.hold(&id));
        references.add(id, 2);
        references.add(id, -1);
        assert!(references.hold(&id));
        references.add(id, -1);
        assert!(!references.hold(&id));
        references.add(id, 5);
        references.forget(&id);
        assert!(!references.hold(&id));
    }
}
