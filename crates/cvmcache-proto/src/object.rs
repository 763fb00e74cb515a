//! The values in requests and replies, besides the object's id.

use bytes::Bytes;

use crate::client_message::parse_hash;
use crate::{ObjectId, wire};

/// The kind of an object, which decides when a cache evicts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum ObjectType {
    /// A file of a repository, or a part of one.
    #[default]
    Regular,
    /// A file catalog. The client keeps those it uses open.
    Catalog,
    /// An object that is unlikely to be used again: evicted before all others.
    Volatile,
}

impl ObjectType {
    /// Every type.
    pub const ALL: [ObjectType; 3] =
        [ObjectType::Regular, ObjectType::Catalog, ObjectType::Volatile];

    /// The number that stands for the type on the wire.
    pub const fn to_wire(self) -> i32 {
        match self {
            ObjectType::Regular => 0,
            ObjectType::Catalog => 1,
            ObjectType::Volatile => 2,
        }
    }

    /// The type with this number, or `None` if it is undefined. A request with such a number
    /// is [bad](crate::BadMessage).
    pub const fn from_wire(number: i32) -> Option<Self> {
        Some(match number {
            0 => ObjectType::Regular,
            1 => ObjectType::Catalog,
            2 => ObjectType::Volatile,
            _ => return None,
        })
    }
}

/// What a plugin knows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Its size in bytes.
    pub size: u64,
    /// Its type.
    pub object_type: ObjectType,
}

impl ObjectInfo {
    /// What is known of an object of this size in bytes and of this type.
    pub const fn new(size: u64, object_type: ObjectType) -> Self {
        Self { size, object_type }
    }
}

/// How full a cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct CacheInfo {
    /// What the cache can hold, in bytes; `u64::MAX` if it has no limit.
    pub size_bytes: u64,
    /// What its objects take, in bytes. Uploads do not count until they are committed.
    pub used_bytes: u64,
    /// The part of `used_bytes` in pinned objects, which a client holds open, in bytes.
    pub pinned_bytes: u64,
    /// How often the cache was cleaned up, if it counts that. On the wire, more than `i64::MAX` is
    /// `i64::MAX`, and `None` is -1.
    pub shrink_count: Option<u64>,
}

impl CacheInfo {
    /// A cache that can hold `size_bytes`, of which `used_bytes` are in use, of which `pinned_bytes`
    /// are pinned. It does not count how often it was cleaned up.
    pub const fn new(size_bytes: u64, used_bytes: u64, pinned_bytes: u64) -> Self {
        Self { size_bytes, used_bytes, pinned_bytes, shrink_count: None }
    }

    /// The same, which has been cleaned up `count` times, or with `None` does not count that.
    #[must_use]
    pub fn with_shrink_count(mut self, count: impl Into<Option<u64>>) -> Self {
        self.shrink_count = count.into();
        self
    }
}

/// One object in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ListEntry {
    /// Its name.
    pub id: ObjectId,
    /// True if a client holds it open.
    pub pinned: bool,
    /// The description it was stored with: usually a path. It need not be UTF-8.
    pub description: Option<Bytes>,
}

impl ListEntry {
    /// An object of this name, whether it is pinned, and the description it was stored with.
    pub const fn new(id: ObjectId, pinned: bool, description: Option<Bytes>) -> Self {
        Self { id, pinned, description }
    }
}

/// The last known root catalog of a repository, by which a client can mount while it is offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Breadcrumb {
    /// The root catalog.
    pub catalog: ObjectId,
    /// When the catalog was published, in seconds since 1970.
    pub timestamp: u64,
    /// The revision of the repository, if the client sent one.
    pub revision: Option<u64>,
}

impl Breadcrumb {
    pub(crate) fn into_wire(self, repository: Bytes) -> wire::MsgBreadcrumb {
        wire::MsgBreadcrumb {
            fqrn: Some(repository.into()),
            hash: Some(self.catalog.into()),
            timestamp: Some(self.timestamp),
            revision: self.revision,
        }
    }

    pub(crate) fn from_wire(msg: wire::MsgBreadcrumb) -> Option<(Bytes, Self)> {
        let catalog = parse_hash(msg.hash?)?;
        let breadcrumb = Self { catalog, timestamp: msg.timestamp?, revision: msg.revision };
        Some((msg.fqrn?.into(), breadcrumb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_the_wire() {
        for object_type in ObjectType::ALL {
            assert_eq!(ObjectType::from_wire(object_type.to_wire()), Some(object_type));
        }
        assert_eq!(ObjectType::from_wire(3), None);
        assert_eq!(ObjectType::from_wire(-1), None);
    }
}
