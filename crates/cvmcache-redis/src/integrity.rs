//! Integrity: the tags of chunks, metadata and breadcrumbs, by which a read detects modified data.
//!
//! A tag is made over the data and the place where it belongs. With the secret of a key file,
//! it is a MAC, a keyed BLAKE3 hash cut to 16 bytes: an attacker with write access to the server but without
//! the secret cannot make one. Without, it is a checksum by XXH3, which costs a fraction of that and
//! finds accidents only. Metadata records which of the two an object has, see [`Authenticator::format`].

use cvmcache::plugin::ObjectId;
use twox_hash::xxhash3_128::Hasher as Xxh3;

/// The length of a tag in bytes.
pub(crate) const TAG_LEN: usize = 16;

pub(crate) type Tag = [u8; TAG_LEN];

/// Makes tags.
#[derive(Clone)]
pub(crate) enum Authenticator {
    /// Without a secret.
    Checksum,
    /// With a key that is derived from the secret.
    Mac([u8; 32]),
}

/// The first byte of metadata.
pub(crate) type Format = u8;

const CHECKSUM: Format = 0x11;
const MAC: Format = 0x12;

/// What a tag is of, so that one kind of data never passes for another.
#[derive(Clone, Copy)]
enum Kind {
    Chunk = 1,
    ObjectMetadata = 2,
    Breadcrumb = 3,
}

impl Authenticator {
    /// MACs with a secret, checksums without.
    pub(crate) fn new(secret: Option<&[u8]>) -> Self {
        secret.map_or(Self::Checksum, |secret| {
            Self::Mac(blake3::derive_key("cvmcache-redis 1 secret of a key file", secret))
        })
    }

    /// The format of what is stored. Other tags have other numbers, and so must any other way to store
    /// an object.
    pub(crate) const fn format(&self) -> Format {
        match self {
            Self::Checksum => CHECKSUM,
            Self::Mac(_) => MAC,
        }
    }

    /// Why stored metadata does not verify, for the log.
    pub(crate) fn mismatch_reason(&self, metadata: &[u8]) -> &'static str {
        match (self, metadata.first()) {
            (Self::Checksum, Some(&MAC)) => {
                "a plugin with a key file has stored it; give all plugins the same key file"
            }
            (Self::Mac(_), Some(&CHECKSUM)) => {
                "a plugin without a key file has stored it; give all plugins the same key file"
            }
            (Self::Checksum, _) => "its metadata does not match its checksum",
            (Self::Mac(_), _) => {
                "its metadata does not match its MAC; was it stored with another key file?"
            }
        }
    }

    /// The tag of a chunk of an object: `number` is its place, counted in chunks of `chunk_len` bytes.
    /// The size of the object is not known while it is uploaded; it is in the metadata, and gives the
    /// number of bytes of each chunk, which the tag covers.
    pub(crate) fn chunk(&self, id: &ObjectId, chunk_len: u32, number: u64, bytes: &[u8]) -> Tag {
        let mut place = [0; ID_LEN + 4 + 8];
        place[..ID_LEN].copy_from_slice(&id_bytes(id));
        place[ID_LEN..][..4].copy_from_slice(&chunk_len.to_le_bytes());
        place[ID_LEN + 4..].copy_from_slice(&number.to_le_bytes());
        self.tag(Kind::Chunk, &place, bytes)
    }

    /// The tag of the metadata of an object.
    pub(crate) fn metadata(&self, id: &ObjectId, bytes: &[u8]) -> Tag {
        self.tag(Kind::ObjectMetadata, &id_bytes(id), bytes)
    }

    /// The tag of the breadcrumb of a repository.
    pub(crate) fn breadcrumb(&self, repository: &[u8], bytes: &[u8]) -> Tag {
        self.tag(Kind::Breadcrumb, blake3::hash(repository).as_bytes(), bytes)
    }

    /// Each kind has places of one length, so that no two inputs are the same bytes.
    fn tag(&self, kind: Kind, place: &[u8], bytes: &[u8]) -> Tag {
        match self {
            Self::Checksum => {
                let place = Xxh3::oneshot_with_seed(kind as u64, place);
                // Half of it is as good a seed as all of it.
                Xxh3::oneshot_with_seed(place as u64, bytes).to_le_bytes()
            }
            Self::Mac(key) => {
                let mut hasher = blake3::Hasher::new_keyed(key);
                // The hash is fastest over data that begins with its first byte.
                hasher.update(bytes).update(place).update(&[kind as u8]);
                let mut tag = [0; TAG_LEN];
                hasher.finalize_xof().fill(&mut tag);
                tag
            }
        }
    }
}

/// Whether a stored tag is the right one, in constant time.
pub(crate) fn matches(tag: &Tag, stored: &[u8]) -> bool {
    constant_time_eq::constant_time_eq(tag, stored)
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

const ID_LEN: usize = 1 + ObjectId::DIGEST_LEN;

fn id_bytes(id: &ObjectId) -> [u8; ID_LEN] {
    let mut bytes = [0; ID_LEN];
    // The numbers of the wire are 1 to 3.
    bytes[0] = id.algorithm().to_wire() as u8;
    bytes[1..].copy_from_slice(id.digest());
    bytes
}

#[cfg(test)]
mod tests {
    use cvmcache::plugin::HashAlgorithm;

    use super::*;

    #[test]
    fn a_tag_depends_on_the_data_and_its_place() {
        let authenticator = Authenticator::new(Some(&[7; 32]));
        let id = ObjectId::new(HashAlgorithm::Sha1, [1; 20]);
        let other = ObjectId::new(HashAlgorithm::Shake128, [1; 20]);
        let mut tags = vec![
            authenticator.chunk(&id, 16, 0, b"abc"),
            authenticator.chunk(&id, 16, 1, b"abc"),
            authenticator.chunk(&id, 32, 0, b"abc"),
            authenticator.chunk(&id, 16, 0, b"abd"),
            authenticator.chunk(&id, 16, 0, b""),
            authenticator.chunk(&other, 16, 0, b"abc"),
            authenticator.metadata(&id, b"abc"),
            authenticator.metadata(&other, b"abc"),
            authenticator.breadcrumb(b"a.cern.ch", b"abc"),
            authenticator.breadcrumb(b"b.cern.ch", b"abc"),
            Authenticator::new(Some(&[8; 32])).chunk(&id, 16, 0, b"abc"),
            Authenticator::new(None).chunk(&id, 16, 0, b"abc"),
        ];
        let count = tags.len();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), count);
    }

    #[test]
    fn the_reason_of_a_mismatch_names_the_key_files() {
        let authenticators = [Authenticator::new(None), Authenticator::new(Some(&[7; 32]))];
        let [of_checksum, of_mac] = [0, 1].map(|n: usize| [authenticators[n].format(), 0]);
        for (authenticator, metadata, says) in [
            (&authenticators[0], &of_mac[..], "a plugin with a key file"),
            (&authenticators[1], &of_checksum, "a plugin without a key file"),
            (&authenticators[0], &of_checksum, "its checksum"),
            (&authenticators[1], &of_mac, "its MAC"),
            (&authenticators[1], b"", "its MAC"),
        ] {
            assert!(authenticator.mismatch_reason(metadata).contains(says), "{says}");
        }
    }

    #[test]
    fn a_tag_that_is_cut_or_changed_does_not_match() {
        let tag: Tag = std::array::from_fn(|i| i as u8);
        assert!(matches(&tag, &tag));
        assert!(!matches(&tag, &tag[..15]));
        assert!(!matches(&tag, b""));
        for bit in 0..8 * TAG_LEN {
            let mut flipped = tag;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches(&tag, &flipped));
        }
    }
}
