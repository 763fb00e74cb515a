//! Digests of our own: BLAKE3 over blocks of 1 MiB, so that a part of an object can be verified as well.
//!
//! The name of an object is the digest of its compressed form, which need not be what this machine's zlib
//! makes of it: a mismatch would prove nothing.

use std::fs::File;
use std::io;
use std::mem;

use cvmcache::plugin::ReadBuffer;

use crate::files::FileSystem;

/// The length of a block; the last one may be shorter.
pub(crate) const BLOCK: usize = 1024 * 1024;

/// The digests of an object's blocks, one after another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BlockDigests(Vec<u8>);

impl BlockDigests {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn blocks(&self) -> Vec<[u8; 32]> {
        let (blocks, _) = self.0.as_chunks();
        blocks.to_vec()
    }
}

/// Hashes an object as it arrives.
#[derive(Debug, Default)]
pub(crate) struct BlockHasher {
    block: blake3::Hasher,
    filled: usize,
    digests: BlockDigests,
}

impl BlockHasher {
    pub(crate) fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let (now, rest) = data.split_at(data.len().min(BLOCK - self.filled));
            self.block.update(now);
            self.filled += now.len();
            if self.filled == BLOCK {
                self.end_block();
            }
            data = rest;
        }
    }

    pub(crate) fn finish(mut self) -> BlockDigests {
        if self.filled > 0 {
            self.end_block();
        }
        self.digests
    }

    fn end_block(&mut self) {
        let digest = mem::take(&mut self.block).finalize();
        self.digests.0.extend_from_slice(digest.as_bytes());
        self.filled = 0;
    }
}

/// Hashes a file; `pace` is called with the length of each block before it is read, and ends the hashing by
/// returning false. `None` then.
pub(crate) fn of_file(
    files: &dyn FileSystem,
    file: &File,
    len: u64,
    mut pace: impl FnMut(u64) -> bool,
) -> io::Result<Option<BlockDigests>> {
    let mut hasher = BlockHasher::default();
    let mut offset = 0;
    while offset < len {
        let wanted = (len - offset).min(PIECE as u64);
        if !pace(wanted) {
            return Ok(None);
        }
        let mut buffer =
            ReadBuffer::new(wanted as usize).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let read = files.read_at(file, &mut buffer, offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(buffer.as_ref());
        offset += read as u64;
    }
    Ok(Some(hasher.finish()))
}

/// True if a file begins as a catalog does. So do other databases.
pub(crate) fn is_catalog(files: &dyn FileSystem, file: &File) -> bool {
    let Ok(mut buffer) = ReadBuffer::new(CATALOG.len()) else { return false };
    files.read_at(file, &mut buffer, 0).is_ok() && buffer.as_ref() == CATALOG
}

const CATALOG: &[u8] = b"SQLite format 3\0";

/// Read at once: buffers of this length are reused.
const PIECE: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::files::System;

    #[test]
    fn each_block_has_the_digest_of_its_bytes_however_they_arrive() {
        let data: Vec<u8> = (0..2 * BLOCK + 17).map(|at| (at % 251) as u8).collect();
        let expected: Vec<u8> =
            data.chunks(BLOCK).flat_map(|block| *blake3::hash(block).as_bytes()).collect();
        for step in [1000, BLOCK, 3 * BLOCK] {
            let mut hasher = BlockHasher::default();
            data.chunks(step).for_each(|part| hasher.update(part));
            assert_eq!(hasher.finish().as_bytes(), expected);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&data).unwrap();
        let of_file = of_file(&System, &file, data.len() as u64, |_| true).unwrap();
        assert_eq!(of_file, Some(BlockDigests(expected)));
    }

    #[test]
    fn an_empty_object_has_no_blocks() {
        assert!(BlockHasher::default().finish().as_bytes().is_empty());
    }
}
