//! Whether what the server returns is what was stored: checks of chunks, metadata and breadcrumbs.
//!
//! A check is made over the data and all that says where it belongs. With the secret of a key file,
//! it is the beginning of a keyed BLAKE3 hash: whoever can write to the server but does not know the
//! secret cannot make one. Without, checks tell accidents only, and are XXH3, which costs a fraction
//! of that. What is stored says which of the two it has, see [`Authenticator::format`].

use cvmcache::plugin::ObjectId;
use twox_hash::xxhash3_128::Hasher as Xxh3;

/// How long a check is, in bytes.
pub(crate) const TAG_LEN: usize = 16;

pub(crate) type Tag = [u8; TAG_LEN];

/// Makes checks.
#[derive(Clone)]
pub(crate) enum Authenticator {
    /// Of what anybody may have stored.
    Open,
    /// With a key that only those have who may store.
    Keyed([u8; 32]),
}

/// What stands in front of metadata.
pub(crate) type Format = u8;

const OPEN: Format = 0x11;
const KEYED: Format = 0x12;

/// What is checked, so that one kind of data never passes for another.
#[derive(Clone, Copy)]
enum Kind {
    Chunk = 1,
    ObjectMetadata = 2,
    Breadcrumb = 3,
}

impl Authenticator {
    /// Checks with a secret, or for accidents.
    pub(crate) fn new(secret: Option<&[u8]>) -> Self {
        secret.map_or(Self::Open, |secret| {
            Self::Keyed(blake3::derive_key("cvmcache-redis 1 secret of a key file", secret))
        })
    }

    /// What says which checks are used. Other checks have other numbers, and so must any other way to
    /// store an object.
    pub(crate) const fn format(&self) -> Format {
        match self {
            Self::Open => OPEN,
            Self::Keyed(_) => KEYED,
        }
    }

    /// Why metadata are not taken for what was stored, in words.
    pub(crate) fn mismatch_reason(&self, metadata: &[u8]) -> &'static str {
        match (self, metadata.first()) {
            (Self::Open, Some(&KEYED)) => {
                "a plugin with a key file has stored it; give all plugins the same key file"
            }
            (Self::Keyed(_), Some(&OPEN)) => {
                "a plugin without a key file has stored it; give all plugins the same key file"
            }
            (Self::Open, _) => "its metadata are not those that were stored",
            (Self::Keyed(_), _) => {
                "its metadata are not those that were stored, or not with the same key file"
            }
        }
    }

    /// The check of a chunk of an object: `number` is its place, counted in chunks of `chunk_len`
    /// bytes. How large the object is, is not known while it is uploaded; its metadata say it, and the
    /// number of bytes that each chunk has by that is checked here.
    pub(crate) fn chunk(&self, id: &ObjectId, chunk_len: u32, number: u64, bytes: &[u8]) -> Tag {
        let mut place = [0; ID_LEN + 4 + 8];
        place[..ID_LEN].copy_from_slice(&id_bytes(id));
        place[ID_LEN..][..4].copy_from_slice(&chunk_len.to_le_bytes());
        place[ID_LEN + 4..].copy_from_slice(&number.to_le_bytes());
        self.check(Kind::Chunk, &place, bytes)
    }

    /// The check of the metadata of an object.
    pub(crate) fn metadata(&self, id: &ObjectId, bytes: &[u8]) -> Tag {
        self.check(Kind::ObjectMetadata, &id_bytes(id), bytes)
    }

    /// The check of the breadcrumb of a repository.
    pub(crate) fn breadcrumb(&self, repository: &[u8], bytes: &[u8]) -> Tag {
        self.check(Kind::Breadcrumb, blake3::hash(repository).as_bytes(), bytes)
    }

    /// Each kind has places of one length, so nothing can be taken for something else.
    fn check(&self, kind: Kind, place: &[u8], bytes: &[u8]) -> Tag {
        match self {
            Self::Open => {
                let place = Xxh3::oneshot_with_seed(kind as u64, place);
                // Half of it is as good a seed as all of it.
                Xxh3::oneshot_with_seed(place as u64, bytes).to_le_bytes()
            }
            Self::Keyed(key) => {
                let mut hasher = blake3::Hasher::new_keyed(key);
                // The hash is fastest over data that begins with its first byte.
                hasher.update(bytes).update(place).update(&[kind as u8]);
                let mut check = [0; TAG_LEN];
                hasher.finalize_xof().fill(&mut check);
                check
            }
        }
    }
}

/// Compares in a time that does not tell how much of it is right.
pub(crate) fn is_same(check: &Tag, other: &[u8]) -> bool {
    let differences = check.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    other.len() == TAG_LEN && differences == 0
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
    fn a_check_depends_on_everything_that_says_where_data_belongs() {
        let authenticator = Authenticator::new(Some(&[7; 32]));
        let id = ObjectId::new(HashAlgorithm::Sha1, [1; 20]);
        let other = ObjectId::new(HashAlgorithm::Shake128, [1; 20]);
        let mut checks = vec![
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
        let count = checks.len();
        checks.sort_unstable();
        checks.dedup();
        assert_eq!(checks.len(), count);
    }

    #[test]
    fn of_what_others_have_stored_it_is_said_what_differs() {
        let authenticators = [Authenticator::new(None), Authenticator::new(Some(&[7; 32]))];
        let [by_open, by_keyed] = [0, 1].map(|n: usize| [authenticators[n].format(), 0]);
        for (authenticator, metadata, says) in [
            (&authenticators[0], &by_keyed[..], "a plugin with a key file"),
            (&authenticators[1], &by_open, "a plugin without a key file"),
            (&authenticators[0], &by_open, "not those that were stored"),
            (&authenticators[1], &by_keyed, "or not with the same key file"),
            (&authenticators[1], b"", "or not with the same key file"),
        ] {
            assert!(authenticator.mismatch_reason(metadata).contains(says), "{says}");
        }
    }

    #[test]
    fn only_a_whole_check_is_the_same() {
        let check: Tag = std::array::from_fn(|i| i as u8);
        assert!(is_same(&check, &check));
        assert!(!is_same(&check, &check[..15]));
        assert!(!is_same(&check, b""));
        for bit in 0..8 * TAG_LEN {
            let mut flipped = check;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_same(&check, &flipped));
        }
    }
}
