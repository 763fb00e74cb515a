//! Buffers that bytes of an object are read into, and that are used again when the answer is sent.
//!
//! Fresh memory is zeroed, and large pieces of it come page by page from the system and go back
//! there: for a read, that takes longer than to copy the bytes.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Smaller buffers are quicker to have from the allocator.
const SMALLEST: usize = 16 * 1024;

/// Larger ones are given back to the system; no client reads so much at once.
const LARGEST: usize = 512 * 1024;

/// How many buffers are kept at most for later: as many as requests of a busy client.
const KEPT: usize = 32;

static BUFFERS: Pool = Pool::new();

/// Reads up to `len` bytes with `read`, which returns how many bytes of the buffer are its.
pub(crate) fn fill<E>(
    len: usize,
    read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> Result<Bytes, E> {
    BUFFERS.fill(len, read)
}

/// Buffers that nobody uses at the moment.
struct Pool(Mutex<Vec<Vec<u8>>>);

/// A buffer in use. Dropping it gives it back.
struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
    pool: &'static Pool,
}

impl Pool {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn fill<E>(
        &'static self,
        len: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Bytes, E> {
        let bytes = if is_kept(len) { self.take(len) } else { vec![0; len] };
        let mut buffer = Buffer { bytes, filled: 0, pool: self };
        let filled = read(&mut buffer.bytes[..len])?;
        assert!(filled <= len, "read {filled} bytes into a buffer of {len}");
        buffer.filled = filled;
        Ok(Bytes::from_owner(buffer))
    }

    fn take(&self, len: usize) -> Vec<u8> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bytes = free.unwrap_or_default();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        bytes
    }

    fn put(&self, bytes: Vec<u8>) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(bytes);
        }
    }
}

fn is_kept(len: usize) -> bool {
    (SMALLEST..=LARGEST).contains(&len)
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if is_kept(self.bytes.len()) {
            self.pool.put(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn pool() -> &'static Pool {
        Box::leak(Box::new(Pool::new()))
    }

    fn filled(pool: &'static Pool, len: usize, byte: u8) -> Bytes {
        let read = |buffer: &mut [u8]| {
            buffer.fill(byte);
            Ok::<_, Infallible>(buffer.len())
        };
        pool.fill(len, read).unwrap()
    }

    fn free(pool: &Pool) -> usize {
        pool.0.lock().unwrap().len()
    }

    #[test]
    fn a_buffer_is_used_again_and_shows_nothing_of_earlier_reads() {
        let pool = pool();
        let first = filled(pool, 3 * SMALLEST, 1);
        let memory = first.as_ptr();
        assert_eq!(free(pool), 0);
        let slice = first.slice(5..10);
        drop(first);
        assert_eq!(free(pool), 0, "a part of it is in use");
        drop(slice);
        assert_eq!(free(pool), 1);
        let second = filled(pool, 2 * SMALLEST, 2);
        assert_eq!((second.as_ptr(), free(pool)), (memory, 0));
        assert_eq!(second, vec![2; 2 * SMALLEST]);
    }

    #[test]
    fn a_read_that_fails_gives_its_buffer_back() {
        let pool = pool();
        assert_eq!(pool.fill(SMALLEST, |_| Err("gone")), Err("gone"));
        assert_eq!(free(pool), 1);
    }

    #[test]
    fn small_and_huge_buffers_and_too_many_are_not_kept() {
        let pool = pool();
        drop(filled(pool, SMALLEST - 1, 1));
        drop(filled(pool, LARGEST + 1, 1));
        assert_eq!(free(pool), 0);
        let many: Vec<_> = (0..2 * KEPT).map(|_| filled(pool, SMALLEST, 1)).collect();
        drop(many);
        assert_eq!(free(pool), KEPT);
    }
}
