//! What the index knows of one object.

use bytes::Bytes;
use cvmcache::plugin::{ObjectId, ObjectInfo, ObjectType};

use crate::layout::UploadNumber;

/// Where the file of an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At its name.
    Named,
    /// Where it was uploaded: it has not been synchronised.
    Upload(UploadNumber),
}

/// An object to be taken into the index.
#[derive(Debug, Clone)]
pub(crate) struct NewEntry {
    pub(crate) id: ObjectId,
    pub(crate) size: u64,
    pub(crate) object_type: ObjectType,
    pub(crate) description: Option<Bytes>,
    pub(crate) place: Place,
    /// The file has been seen by this run of the plugin.
    pub(crate) verified: bool,
}

/// An object in the index.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: ObjectId,
    pub(crate) size: u64,
    pub(crate) object_type: ObjectType,
    /// Without spare memory: there may be millions.
    pub(crate) description: Option<Box<[u8]>>,
    pub(crate) place: Place,
    pub(crate) verified: bool,
    pub(crate) references: i32,
    /// The file has gone or is damaged, while sessions have it open.
    pub(crate) lost: bool,
    pub(crate) last_use: u64,
}

/// An object that has been evicted, whose file is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evicted {
    pub(crate) id: ObjectId,
    pub(crate) place: Place,
    pub(crate) cost: u64,
}

impl Entry {
    pub(crate) fn info(&self) -> ObjectInfo {
        ObjectInfo::new(self.size, self.object_type)
    }

    pub(crate) fn cost(&self) -> u64 {
        cost(self.size)
    }

    pub(crate) fn description(&self) -> Option<Bytes> {
        self.description.as_deref().map(Bytes::copy_from_slice)
    }
}

/// What a file of so many bytes takes on disk: whole blocks, and one at least for what finds it.
pub(crate) fn cost(size: u64) -> u64 {
    size.max(1).div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// The block of most file systems.
pub(crate) const BLOCK: u64 = 4096;
