//! Object ids: a hash algorithm and a digest.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The hash algorithm of an object id.
///
/// The protocol fixes these three; each has a digest of 20 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HashAlgorithm {
    /// SHA-1, the default of CernVM-FS.
    Sha1,
    /// RIPEMD-160.
    Ripemd160,
    /// SHAKE-128, cut to 20 bytes.
    Shake128,
}

impl HashAlgorithm {
    /// Every algorithm, in the order of the wire's numbers.
    pub const ALL: [Self; 3] = [Self::Sha1, Self::Ripemd160, Self::Shake128];

    /// The number that stands for the algorithm on the wire.
    pub const fn to_wire(self) -> i32 {
        match self {
            HashAlgorithm::Sha1 => 1,
            HashAlgorithm::Ripemd160 => 2,
            HashAlgorithm::Shake128 => 3,
        }
    }

    /// The algorithm with this number, or `None` if it is undefined.
    pub const fn from_wire(number: i32) -> Option<Self> {
        Some(match number {
            1 => HashAlgorithm::Sha1,
            2 => HashAlgorithm::Ripemd160,
            3 => HashAlgorithm::Shake128,
            _ => return None,
        })
    }

    /// What the client appends to the printed digest.
    const fn suffix(self) -> &'static str {
        match self {
            HashAlgorithm::Sha1 => "",
            HashAlgorithm::Ripemd160 => "-rmd160",
            HashAlgorithm::Shake128 => "-shake128",
        }
    }
}

/// An object id: the name of an object.
///
/// The same digest under two algorithms names two objects, and the digest of twenty zeros is as
/// good a name as any other. It prints and parses as the client prints it: lower-case hexadecimal
/// digits followed by nothing, `-rmd160` or `-shake128`. Upper-case digits parse, too.
///
/// ```
/// use cvmcache_proto::{HashAlgorithm, ObjectId};
///
/// let id: ObjectId = "f67213b122a5d442d2b93bda8cc45c564a70ec5d-shake128".parse()?;
/// assert_eq!(id.algorithm(), HashAlgorithm::Shake128);
/// assert_eq!(id.to_string(), "f67213b122a5d442d2b93bda8cc45c564a70ec5d-shake128");
/// # Ok::<(), cvmcache_proto::ParseObjectIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    algorithm: HashAlgorithm,
    digest: [u8; Self::DIGEST_LEN],
}

impl ObjectId {
    /// The length of every digest, in bytes.
    pub const DIGEST_LEN: usize = 20;

    /// The length of the longest id in print, in bytes.
    pub const MAX_TEXT_LEN: usize = {
        let (mut longest, mut next) = (0, 0);
        while next < HashAlgorithm::ALL.len() {
            let suffix = HashAlgorithm::ALL[next].suffix().len();
            if suffix > longest {
                longest = suffix;
            }
            next += 1;
        }
        2 * Self::DIGEST_LEN + longest
    };

    /// Names the object with this digest, which is not computed here.
    ///
    /// ```
    /// use cvmcache_proto::{HashAlgorithm, ObjectId};
    ///
    /// let id = ObjectId::new(HashAlgorithm::Sha1, [0xab; ObjectId::DIGEST_LEN]);
    /// assert_eq!(id.to_string(), "ab".repeat(20));
    /// ```
    pub const fn new(algorithm: HashAlgorithm, digest: [u8; Self::DIGEST_LEN]) -> Self {
        Self { algorithm, digest }
    }

    /// The algorithm that made the digest.
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The bytes of the digest, in the order in which they are printed.
    pub const fn digest(&self) -> &[u8; Self::DIGEST_LEN] {
        &self.digest
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.digest {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(self.algorithm.suffix())
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

/// Why a text is not the name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseObjectIdError {
    /// The digest is not two hexadecimal digits for each byte.
    #[error(
        "{text:?} is not an object id: expected {} hexadecimal digits, then nothing, -rmd160 or -shake128",
        2 * ObjectId::DIGEST_LEN
    )]
    Digest {
        /// The text in question.
        text: String,
    },
    /// What follows the digest names no algorithm.
    #[error(
        "{text:?} is not an object id: {suffix:?} is no algorithm; use nothing, -rmd160 or -shake128"
    )]
    Algorithm {
        /// The text in question.
        text: String,
        /// What follows the digest.
        suffix: String,
    },
}

impl FromStr for ObjectId {
    type Err = ParseObjectIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad_digest = || ParseObjectIdError::Digest { text: text.to_owned() };
        let (hex, suffix) = text.split_at_checked(2 * Self::DIGEST_LEN).ok_or_else(bad_digest)?;
        let mut digest = [0; Self::DIGEST_LEN];
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digit = |d: u8| char::from(d).to_digit(16);
            let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or_else(bad_digest)?;
            *byte = (high * 16 + low) as u8;
        }
        let mut algorithms = HashAlgorithm::ALL.into_iter();
        let algorithm = algorithms.find(|a| a.suffix() == suffix).ok_or_else(|| {
            ParseObjectIdError::Algorithm { text: text.to_owned(), suffix: suffix.to_owned() }
        })?;
        Ok(Self { algorithm, digest })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_prints_as_the_client_prints_it() {
        let mut digest = [0; ObjectId::DIGEST_LEN];
        digest[19] = 0xab;
        let hex = "00000000000000000000000000000000000000ab";
        for (algorithm, suffix) in [
            (HashAlgorithm::Sha1, ""),
            (HashAlgorithm::Ripemd160, "-rmd160"),
            (HashAlgorithm::Shake128, "-shake128"),
        ] {
            let printed = ObjectId::new(algorithm, digest).to_string();
            assert_eq!(printed, format!("{hex}{suffix}"));
            assert!(printed.len() <= ObjectId::MAX_TEXT_LEN);
        }
    }

    #[test]
    fn a_text_that_is_no_id_says_why() {
        let error = |text: &str| text.parse::<ObjectId>().unwrap_err().to_string();
        assert!(error("abc").contains("40 hexadecimal digits"));
        assert!(error("zz00000000000000000000000000000000000000").contains("40 hexadecimal"));
        assert!(error("00000000000000000000000000000000000000ab-md5").contains("\"-md5\""));
        assert!(error("0000000000000000000000000000000000000é0").contains("40 hexadecimal"));
    }

    proptest! {
        #[test]
        fn every_id_parses_from_its_own_print(number in 1..=3, digest: [u8; ObjectId::DIGEST_LEN]) {
            let id = ObjectId::new(HashAlgorithm::from_wire(number).unwrap(), digest);
            prop_assert_eq!(id.to_string().parse::<ObjectId>(), Ok(id));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<ObjectId>();
        }
    }
}
