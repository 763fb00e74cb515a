//! The names of all keys on the server, and which of them share a slot of a Cluster.
//!
//! Objects are spread over shards by their digest. The shard is the hash tag of everything that
//! belongs to its objects, so that one script changes an object and its index at once.

use std::fmt::Write as _;

use cvmcache::plugin::ObjectId;

/// A part of the objects, with an index of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Shard(u8);

impl Shard {
    /// The shard of an object. Digests are random, so shards are of about the same size.
    pub(crate) fn of(id: &ObjectId) -> Self {
        Self::of_digest(id.digest())
    }

    /// The shard of what has this digest.
    pub(crate) fn of_digest<const N: usize>(digest: &[u8; N]) -> Self {
        Self(digest[0])
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }
}

/// The names of keys.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// What all names begin with, with the version of the layout.
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}:1:") }
    }

    /// How many bytes the objects of a shard take. Scripts are called by this key, and derive all
    /// others of the shard from it.
    pub(crate) fn used(&self, shard: Shard) -> String {
        self.shard(shard, "used")
    }

    /// How many of them are pinned.
    pub(crate) fn pinned(&self, shard: Shard) -> String {
        self.shard(shard, "pinned")
    }

    /// When the leases of instances end.
    pub(crate) fn alive(&self, shard: Shard) -> String {
        self.shard(shard, "alive")
    }

    /// The objects that an instance has pinned.
    pub(crate) fn held(&self, shard: Shard, instance: &str) -> String {
        self.shard(shard, &format!("held:{instance}"))
    }

    /// When breadcrumbs were stored.
    pub(crate) fn breadcrumbs(&self, shard: Shard) -> String {
        self.shard(shard, "crumbed")
    }

    /// A segment of an object's data.
    pub(crate) fn segment(&self, id: &ObjectId, number: u64) -> String {
        self.shard(Shard::of(id), &format!("d:{id}:{number}"))
    }

    /// A segment of an upload.
    pub(crate) fn upload(&self, id: &ObjectId, token: &str, number: u64) -> String {
        self.shard(Shard::of(id), &format!("u:{token}:{number}"))
    }

    /// The objects that a repository may see.
    pub(crate) fn repository(&self, repository: &[u8]) -> String {
        format!("{}{}}}", self.repository_prefix(), repository_name(repository))
    }

    /// What the keys of all repositories begin with.
    pub(crate) fn repository_prefix(&self) -> String {
        format!("{}{{repo:", self.prefix)
    }

    /// The keys of all repositories, by when something was stored for them.
    pub(crate) fn repositories(&self) -> String {
        format!("{}repos", self.prefix)
    }

    /// The `SIZE` of the plugin that has started last.
    pub(crate) fn size(&self) -> String {
        format!("{}size", self.prefix)
    }

    fn shard(&self, shard: Shard, what: &str) -> String {
        format!("{}{{{:02x}}}:{what}", self.prefix, shard.0)
    }
}

/// The longest name of a repository that is a part of a key; of a longer one, the digest is.
const MAX_NAME: usize = 255;

fn repository_name(repository: &[u8]) -> String {
    if repository.len() <= MAX_NAME {
        escape(repository)
    } else {
        // No name is escaped to this.
        format!("%%{}", blake3::hash(repository).to_hex())
    }
}

/// The name of a repository as a part of a key. A brace in it would change the hash tag.
fn escape(repository: &[u8]) -> String {
    let mut escaped = String::with_capacity(repository.len());
    for &byte in repository {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            escaped.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02x}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_an_object_have_the_hash_tag_of_its_shard() {
        let keys = Keys::new("site");
        let id: ObjectId = "07beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a3-shake128".parse().unwrap();
        assert_eq!(keys.used(Shard::of(&id)), "site:1:{07}:used");
        assert_eq!(keys.segment(&id, 3), format!("site:1:{{07}}:d:{id}:3"));
        assert_eq!(keys.upload(&id, "t", 0), "site:1:{07}:u:t:0");
        assert_eq!(Shard::all().count(), 256);
    }

    #[test]
    fn names_of_repositories_are_escaped_in_keys() {
        let keys = Keys::new("site");
        assert_eq!(keys.repository(b"atlas.cern.ch"), "site:1:{repo:atlas.cern.ch}");
        assert_eq!(keys.repository(b"a}b{\xff%"), "site:1:{repo:a%7db%7b%ff%25}");
        assert_ne!(keys.repository(b"%7d"), keys.repository(b"}"));
    }

    #[test]
    fn keys_of_repositories_have_a_bounded_length_and_are_all_different() {
        let keys = Keys::new("site");
        let name = |len| keys.repository(&vec![b'}'; len]);
        assert!(name(255).len() < 800 && name(256).len() < 100 && name(1 << 20).len() < 100);
        assert_ne!(name(256), name(257));
        assert!(name(256).starts_with(&keys.repository_prefix()));
    }
}
