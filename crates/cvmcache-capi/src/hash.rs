//! Object ids, in the form that C has for them.

use std::cmp::Ordering;

use cvmcache::plugin::{HashAlgorithm, ObjectId};

use crate::layout::Hash;

impl From<ObjectId> for Hash {
    fn from(id: ObjectId) -> Self {
        // The numbers of algorithms fit: `HashAlgorithm::ALL` are 1 to 3.
        Self { digest: *id.digest(), algorithm: id.algorithm().to_wire() as _ }
    }
}

impl Hash {
    /// What a plugin finds before it fills a name in: no name at all.
    pub(crate) const NONE: Self = Self { digest: [0; ObjectId::DIGEST_LEN], algorithm: 0 };

    /// The id, unless its algorithm is undefined.
    pub(crate) fn id(&self) -> Option<ObjectId> {
        let algorithm = HashAlgorithm::from_wire(self.algorithm.into())?;
        Some(ObjectId::new(algorithm, self.digest))
    }

    /// By algorithm, then by digest.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        (self.algorithm, self.digest).cmp(&(other.algorithm, other.digest))
    }

    /// As the client prints it; an unknown algorithm adds nothing.
    pub(crate) fn print(&self) -> String {
        let id = self.id().unwrap_or(ObjectId::new(HashAlgorithm::Sha1, self.digest));
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_algorithm_and_then_by_digest() {
        let hash = |algorithm, byte| Hash { digest: [byte; ObjectId::DIGEST_LEN], algorithm };
        let sorted = [hash(0, 9), hash(1, 1), hash(1, 200), hash(2, 0), hash(3, 0)];
        for (a, left) in sorted.iter().enumerate() {
            for (b, right) in sorted.iter().enumerate() {
                assert_eq!(left.compare(right), a.cmp(&b));
            }
        }
    }

    #[test]
    fn an_id_survives_the_conversion_to_c_and_an_unknown_algorithm_is_none() {
        let id: ObjectId = "f67213b122a5d442d2b93bda8cc45c564a70ec5d-shake128".parse().unwrap();
        let hash = Hash::from(id);
        assert_eq!(hash.id(), Some(id));
        assert_eq!(hash.print(), id.to_string());
        for algorithm in [0, 4, 127] {
            assert_eq!(Hash { algorithm, ..hash }.id(), None);
            assert_eq!(Hash { algorithm, ..hash }.print().len(), 40);
        }
    }
}
