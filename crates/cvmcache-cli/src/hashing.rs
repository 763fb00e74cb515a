//! The hash algorithms of CernVM-FS, which make object ids of content.

use clap::ValueEnum;
use cvmcache::plugin::{HashAlgorithm, ObjectId};
use ripemd::Ripemd160;
use sha1::{Digest, Sha1};
use shake::Shake128;
use shake::digest::{ExtendableOutput, Update, XofReader};

/// The algorithms, by the suffixes of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algorithm {
    Sha1,
    Rmd160,
    Shake128,
}

/// Content on its way to a name.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha1(Sha1),
    Ripemd160(Ripemd160),
    Shake128(Shake128),
}

impl Hasher {
    pub(crate) fn new(algorithm: HashAlgorithm) -> Self {
        match algorithm {
            HashAlgorithm::Sha1 => Self::Sha1(Sha1::new()),
            HashAlgorithm::Ripemd160 => Self::Ripemd160(Ripemd160::new()),
            HashAlgorithm::Shake128 => Self::Shake128(Shake128::default()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hasher) => Update::update(hasher, bytes),
            Self::Ripemd160(hasher) => Update::update(hasher, bytes),
            Self::Shake128(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> ObjectId {
        match self {
            Self::Sha1(hasher) => ObjectId::new(HashAlgorithm::Sha1, hasher.finalize().into()),
            Self::Ripemd160(hasher) => {
                ObjectId::new(HashAlgorithm::Ripemd160, hasher.finalize().into())
            }
            Self::Shake128(hasher) => {
                let mut digest = [0; ObjectId::DIGEST_LEN];
                hasher.finalize_xof().read(&mut digest);
                ObjectId::new(HashAlgorithm::Shake128, digest)
            }
        }
    }
}

impl From<Algorithm> for HashAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha1 => Self::Sha1,
            Algorithm::Rmd160 => Self::Ripemd160,
            Algorithm::Shake128 => Self::Shake128,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_has_its_known_digests_of_the_empty_input_and_of_abc() {
        // From the algorithms' own publications: FIPS 180, the RIPEMD-160 page, FIPS 202.
        for (algorithm, content, id) in [
            (HashAlgorithm::Sha1, "", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            (HashAlgorithm::Sha1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (HashAlgorithm::Ripemd160, "", "9c1185a5c5e9fc54612808977ee8f548b2258d31-rmd160"),
            (HashAlgorithm::Ripemd160, "abc", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc-rmd160"),
            (HashAlgorithm::Shake128, "", "7f9c2ba4e88f827d616045507605853ed73b8093-shake128"),
            (HashAlgorithm::Shake128, "abc", "5881092dd818bf5cf8a3ddb793fbcba74097d5c5-shake128"),
        ] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(content.as_bytes());
            assert_eq!(hasher.finish().to_string(), id);
        }
    }
}
