//! The header of an object in the store: what it is, and the digests of its blocks.
//!
//! It stands before the content, in every store alike, since not all keep attributes. Content is verified by it
//! block by block, so that a range of an object can be verified as well, and a lost marker can be made again.
//!
//! ```text
//! offset  bytes
//!      0      8  "CVMTIER\n"
//!      8      2  version: 1
//!     10      1  object type, as on the wire
//!     11      1  algorithm of the object id, as on the wire
//!     12      4  length of this header
//!     16      8  length of the content
//!     24      4  length of a block: 1 MiB
//!     28      2  length of the description
//!     30      2  length of the object id's digest
//!     32         digest of the object id, description, BLAKE3 of each block (32 bytes each),
//!                BLAKE3 of all this (32 bytes)
//! ```
//!
//! Numbers are little endian.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use cvmcache::plugin::{HashAlgorithm, ObjectId, ObjectType};
use thiserror::Error;

/// The length of a block; the last one of an object may be shorter.
pub(crate) const BLOCK: u64 = 1024 * 1024;

/// The length of what tells how long a header is.
pub(crate) const PREFIX: usize = 16;

/// Content of 256 GiB: a header is read into memory.
const MAX_BLOCKS: u64 = 256 * 1024;
/// The protocol's bound of a description.
const MAX_DESCRIPTION: usize = 4096;
const FIXED: usize = 32;
const DIGEST: usize = 32;
const MAGIC: &[u8; 8] = b"CVMTIER\n";
const VERSION: u16 = 1;

/// What an object in the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: ObjectId,
    pub(crate) object_type: ObjectType,
    pub(crate) description: Option<Bytes>,
    /// The length of the content in bytes.
    pub(crate) len: u64,
    pub(crate) blocks: Vec<blake3::Hash>,
}

/// The digest of a header, and so of the object and its content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct HeaderDigest([u8; DIGEST]);

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum HeaderError {
    #[error("it does not begin like an object of this program")]
    Magic,
    #[error("it is of version {0}: use a newer program")]
    Version(u16),
    #[error("its header is damaged")]
    Damaged,
}

impl Header {
    /// The header of content that does not need more blocks than a header can have.
    pub(crate) fn fits(len: u64) -> bool {
        len.div_ceil(BLOCK) <= MAX_BLOCKS
    }

    /// The header as bytes, and its digest.
    pub(crate) fn encode(&self) -> (Bytes, HeaderDigest) {
        let description = self.description.as_deref().unwrap_or_default();
        let description = &description[..description.len().min(MAX_DESCRIPTION)];
        let id = self.id.digest();
        let len = FIXED + id.len() + description.len() + DIGEST * (self.blocks.len() + 1);
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.push(self.object_type.to_wire() as u8);
        bytes.push(self.id.algorithm().to_wire() as u8);
        bytes.extend_from_slice(&(len as u32).to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&(BLOCK as u32).to_le_bytes());
        bytes.extend_from_slice(&(description.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(id.len() as u16).to_le_bytes());
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(description);
        self.blocks.iter().for_each(|block| bytes.extend_from_slice(block.as_bytes()));
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        let digest = HeaderDigest::of(&bytes);
        (bytes.into(), digest)
    }

    /// The length of the header that begins with these [`PREFIX`] bytes.
    pub(crate) fn len_from_prefix(prefix: &[u8]) -> Result<usize, HeaderError> {
        let mut reader = Reader(prefix);
        if reader.take(MAGIC.len()).ok_or(HeaderError::Magic)? != MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = reader.u16().ok_or(HeaderError::Magic)?;
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let _kinds = reader.u16().ok_or(HeaderError::Damaged)?;
        let len = reader.u32().ok_or(HeaderError::Damaged)? as usize;
        let longest =
            FIXED + ObjectId::DIGEST_LEN + MAX_DESCRIPTION + DIGEST * (MAX_BLOCKS as usize + 1);
        if (FIXED + DIGEST..=longest).contains(&len) { Ok(len) } else { Err(HeaderError::Damaged) }
    }

    /// The header that is these bytes, and its digest.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, HeaderDigest), HeaderError> {
        if Self::len_from_prefix(bytes)? != bytes.len() {
            return Err(HeaderError::Damaged);
        }
        let (body, checksum) = bytes.split_at(bytes.len() - DIGEST);
        if blake3::hash(body) != *array(checksum) {
            return Err(HeaderError::Damaged);
        }
        let header = Self::parse_body(body).ok_or(HeaderError::Damaged)?;
        Ok((header, HeaderDigest::of(bytes)))
    }

    fn parse_body(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        reader.take(MAGIC.len() + 2)?;
        let object_type = ObjectType::from_wire(i32::from(reader.u8()?))?;
        let algorithm = HashAlgorithm::from_wire(i32::from(reader.u8()?))?;
        reader.u32()?;
        let len = reader.u64()?;
        if u64::from(reader.u32()?) != BLOCK {
            return None;
        }
        let description_len = usize::from(reader.u16()?);
        let id_len = usize::from(reader.u16()?);
        if id_len != ObjectId::DIGEST_LEN {
            return None;
        }
        let id = ObjectId::new(algorithm, *array(reader.take(id_len)?));
        let description = reader.take(description_len)?;
        let description = (description_len > 0).then(|| Bytes::copy_from_slice(description));
        let digests = reader.0;
        let blocks = len.div_ceil(BLOCK);
        if digests.len() % DIGEST != 0 || (digests.len() / DIGEST) as u64 != blocks {
            return None;
        }
        let blocks = digests
            .chunks_exact(DIGEST)
            .map(|digest| blake3::Hash::from_bytes(*array(digest)))
            .collect();
        Some(Self { id, object_type, description, len, blocks })
    }
}

impl HeaderDigest {
    pub(crate) fn of(header: &[u8]) -> Self {
        Self(*blake3::hash(header).as_bytes())
    }

    pub(crate) fn from_bytes(bytes: [u8; DIGEST]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; DIGEST] {
        &self.0
    }
}

impl fmt::Display for HeaderDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for HeaderDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeaderDigest({self})")
    }
}

impl FromStr for HeaderDigest {
    type Err = blake3::HexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(*blake3::Hash::from_hex(text)?.as_bytes()))
    }
}

/// Verifies content against a header as it arrives in blocks.
#[derive(Debug)]
pub(crate) struct Verifier<'a> {
    header: &'a Header,
    next: usize,
}

impl<'a> Verifier<'a> {
    pub(crate) fn new(header: &'a Header) -> Self {
        Self { header, next: 0 }
    }

    /// The length of the block that comes next; 0 after the last one.
    pub(crate) fn block_len(&self) -> usize {
        let done = self.next as u64 * BLOCK;
        self.header.len.saturating_sub(done).min(BLOCK) as usize
    }

    /// True if this is the block that comes next.
    pub(crate) fn is_next(&mut self, block: &[u8]) -> bool {
        let expected = self.header.blocks.get(self.next);
        self.next += 1;
        expected == Some(&blake3::hash(block))
    }
}

/// A cursor over bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_le_bytes(*array(bytes)))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes(*array(bytes)))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64::from_le_bytes(*array(bytes)))
    }
}

/// The bytes as an array: callers have taken as many as it has.
fn array<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    bytes.try_into().expect("as many bytes were taken")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(len: u64, description: &[u8]) -> Header {
        Header {
            id: "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78-shake128".parse().unwrap(),
            object_type: ObjectType::Volatile,
            description: (!description.is_empty()).then(|| Bytes::copy_from_slice(description)),
            len,
            blocks: (0..len.div_ceil(BLOCK))
                .map(|block| blake3::hash(&block.to_le_bytes()))
                .collect(),
        }
    }

    #[test]
    fn a_header_is_parsed_as_what_it_was_made_of() {
        for len in [0, 1, BLOCK, BLOCK + 1, 7 * BLOCK] {
            for description in [&b""[..], b"/a file\n", &[0xff; MAX_DESCRIPTION]] {
                let header = header(len, description);
                let (bytes, digest) = header.encode();
                assert_eq!(Header::len_from_prefix(&bytes[..PREFIX]), Ok(bytes.len()));
                assert_eq!(Header::parse(&bytes), Ok((header, digest)));
                assert_eq!(digest.to_string().parse::<HeaderDigest>().unwrap(), digest);
            }
        }
    }

    #[test]
    fn a_header_with_any_bit_changed_or_cut_anywhere_is_refused() {
        let (bytes, _) = header(BLOCK + 1, b"name").encode();
        for at in 0..bytes.len() {
            assert!(Header::parse(&bytes[..at]).is_err());
            for bit in 0..8 {
                let mut bad = bytes.to_vec();
                bad[at] ^= 1 << bit;
                assert!(Header::parse(&bad).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn blocks_are_verified_in_their_order() {
        let content: Vec<u8> = (0..BLOCK + 17).map(|at| (at % 251) as u8).collect();
        let blocks: Vec<_> = content.chunks(BLOCK as usize).collect();
        let mut header = header(content.len() as u64, b"");
        header.blocks = blocks.iter().map(|block| blake3::hash(block)).collect();
        let mut verifier = Verifier::new(&header);
        for block in &blocks {
            assert_eq!(verifier.block_len(), block.len());
            assert!(verifier.is_next(block));
        }
        assert_eq!(verifier.block_len(), 0);
        assert!(!verifier.is_next(b""));
        assert!(!Verifier::new(&header).is_next(blocks[1]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes: Vec<u8>, has_magic: bool) {
            if has_magic {
                bytes.splice(0..0, *b"CVMTIER\n\x01\0");
            }
            let _ = Header::len_from_prefix(&bytes);
            let _ = Header::parse(&bytes);
        }
    }
}
