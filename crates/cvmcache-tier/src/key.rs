//! The keys of objects in the store: made of the object's id and of the digest of what is stored, so that
//! writing one twice is harmless.

use std::fmt;

use cvmcache::plugin::ObjectId;

use crate::header::HeaderDigest;

/// A key in the store, below the prefix of its URL: components of letters, digits, `-` and `.`, with slashes
/// between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey(String);

/// Below this are objects.
pub(crate) const OBJECTS: &str = "objects";
/// Below this are the lists of markers, one for each cache.
pub(crate) const CACHES: &str = "caches";

impl StoreKey {
    /// The key of an object with this content.
    pub(crate) fn of_object(id: &ObjectId, digest: &HeaderDigest) -> Self {
        let id = id.to_string();
        Self(format!("{OBJECTS}/{}/{id}.{digest}", &id[..2]))
    }

    /// The key of the list of markers of one cache.
    pub(crate) fn of_markers(cache: &str) -> Self {
        Self(format!("{CACHES}/{cache}"))
    }

    /// A key that a store has listed.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The key as text, without a slash at its beginning.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The object and the content that this is the key of; `None` for other keys.
    pub(crate) fn to_object(&self) -> Option<(ObjectId, HeaderDigest)> {
        let name = self.0.strip_prefix(OBJECTS)?.strip_prefix('/')?;
        let (shard, name) = name.split_once('/')?;
        let (id, digest) = name.split_once('.')?;
        let key = (id.parse().ok()?, digest.parse().ok()?);
        (id.starts_with(shard) && shard.len() == 2).then_some(key)
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_object_and_no_other_text_does() {
        let id: ObjectId = "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78-rmd160".parse().unwrap();
        let digest = HeaderDigest::of(b"header");
        let key = StoreKey::of_object(&id, &digest);
        assert_eq!(key.to_object(), Some((id, digest)));
        for other in
            ["", "objects/", "objects/e8/x", "caches/a", &key.as_str()[1..], &format!("{key}0")]
        {
            assert_eq!(StoreKey::new(other).to_object(), None, "{other}");
        }
    }
}
