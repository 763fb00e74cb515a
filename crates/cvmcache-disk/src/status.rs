//! The status of a cache, for administrators.

use std::sync::atomic::Ordering;

use crate::store::Store;

/// What a disk cache holds, and what was found of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskStatus {
    /// The quota in bytes; `u64::MAX` if there is none.
    pub quota_bytes: u64,
    /// What objects take on disk.
    pub used_bytes: u64,
    /// The part of that in objects that sessions have open.
    pub pinned_bytes: u64,
    /// How many objects are known.
    pub objects: usize,
    /// How many of them have not been synchronised, and would be lost in a power cut.
    pub unsynced_objects: usize,
    /// The tree has been compared with the index since the start.
    pub is_checked: bool,
    /// How many objects were found to be damaged since the start, and moved aside.
    pub damaged_objects: u64,
    /// How many bytes were read to verify objects since the start.
    pub scrubbed_bytes: u64,
}

impl Store {
    pub(crate) fn status(&self) -> DiskStatus {
        let (info, objects, unsynced_objects) =
            self.locked(|state| (state.index.info(), state.index.len(), state.unsynced.len()));
        DiskStatus {
            quota_bytes: info.size_bytes,
            used_bytes: info.used_bytes,
            pinned_bytes: info.pinned_bytes,
            objects,
            unsynced_objects,
            is_checked: self.checked.load(Ordering::Relaxed),
            damaged_objects: self.damaged.load(Ordering::Relaxed),
            scrubbed_bytes: self.scrubbed.load(Ordering::Relaxed),
        }
    }
}
