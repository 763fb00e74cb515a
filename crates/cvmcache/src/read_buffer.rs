//! Buffers for reads of objects, reused after their reply has been sent.
//!
//! Fresh memory is zeroed, and large pieces of it are mapped page by page and unmapped again: for a
//! read, that takes longer than to copy the bytes. Memory that cannot be had, as under `ulimit -v`, is an error of
//! the read.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;

use bytes::Bytes;
use cvmcache_proto::{Data, MAX_MAX_OBJECT_SIZE, ObjectId, Status};
use parking_lot::Mutex;
use rustix::io::{Errno, ReadWriteFlags};

/// The allocator is faster with smaller buffers.
const SMALLEST: usize = 16 * 1024;

/// No client reads more at once.
const LARGEST: usize = MAX_MAX_OBJECT_SIZE as usize;

/// How many unused buffers are kept at most: as many as requests of a busy client.
const KEPT: usize = 32;

static BUFFERS: Pool = Pool::new();

/// A buffer that bytes of an object are read into, to become [`Data`].
///
/// It counts what has been read and shows nothing else, so it may have been used for another object:
/// up to 32 buffers of 16 to 512 KiB are reused once their replies have been sent.
///
/// ```
/// use cvmcache::plugin::{Data, ReadBuffer};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = std::env::current_exe()?;
/// let file = std::fs::File::open(path)?;
/// let mut buffer = ReadBuffer::new(4)?;
/// buffer.read_at(&file, 0)?;
/// assert_eq!(Data::from(buffer).into_bytes(), "\x7fELF");
/// # Ok(())
/// # }
/// ```
pub struct ReadBuffer {
    memory: Memory,
    /// How many bytes it takes. Invariant: `filled <= len <= memory.bytes.len()`.
    len: usize,
    filled: usize,
    pool: &'static Pool,
}

/// Invariant: if `object` is set, all of `bytes` is zero or of that object.
#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    object: Option<ObjectId>,
}

/// Unused buffers.
///
/// Invariant: the lock is held to take a buffer out or to put one in, and no other lock is taken under it.
/// No buffer is allocated, zeroed, read into or freed meanwhile: replies are dropped on the I/O thread,
/// which must not wait for a worker that does so.
struct Pool(Mutex<Vec<Memory>>);

/// Frees the buffers that are not in use. The next reads make new ones.
pub(crate) fn release_unused() {
    BUFFERS.release();
}

impl ReadBuffer {
    /// A buffer for up to `len` bytes.
    ///
    /// # Errors
    ///
    /// [`Status::NoSpace`] if there is no memory for it.
    pub fn new(len: usize) -> Result<Self, Status> {
        BUFFERS.buffer(len)
    }

    /// Reads from a file, from `offset` on, as much as there is and still fits, by one `pread`.
    /// Returns how many bytes that were; 0 at the end of the file.
    ///
    /// # Errors
    ///
    /// Those of `pread`.
    pub fn read_at(&mut self, file: impl AsFd, offset: u64) -> io::Result<usize> {
        let free = &mut self.memory.bytes[self.filled..self.len];
        let read = rustix::io::pread(file, free, offset)?;
        self.filled += read;
        Ok(read)
    }

    /// The same of what the page cache has, by one `preadv2` with `RWF_NOWAIT`: it does not wait for a disk.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if the page cache does not have the first byte,
    /// [`Unsupported`](io::ErrorKind::Unsupported) if the file system cannot tell, and those of `preadv2`.
    pub fn read_cached_at(&mut self, file: impl AsFd, offset: u64) -> io::Result<usize> {
        let free = &mut self.memory.bytes[self.filled..self.len];
        let free = &mut [IoSliceMut::new(free)];
        match rustix::io::preadv2(file, free, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => {
                self.filled += read;
                Ok(read)
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends bytes.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.memory.bytes[self.filled..self.len][..bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Reads up to `len` bytes of an object with a function that fills a slice and returns how many
    /// bytes it has read: for libraries that cannot do otherwise.
    ///
    /// Whatever it returns, and however little of the slice it has filled, bytes of other objects are
    /// not shown: the slice has been zeroed, unless it was used for the same object before.
    /// [`read_at`](Self::read_at) spares that.
    ///
    /// # Errors
    ///
    /// Those of `read`, and [`Status::NoSpace`] if there is no memory for the slice.
    ///
    /// # Panics
    ///
    /// If `read` claims to have read more than `len` bytes.
    pub fn fill<E: From<Status>>(
        object: &ObjectId,
        len: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Data, E> {
        BUFFERS.fill(object, len, read).map(Data::from)
    }
}

impl Pool {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn buffer(&'static self, len: usize) -> Result<ReadBuffer, Status> {
        let mut memory = self.take(len, None);
        memory.object = None;
        self.with_room(memory, len)
    }

    fn fill<E: From<Status>>(
        &'static self,
        object: &ObjectId,
        len: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<ReadBuffer, E> {
        let mut memory = self.take(len, Some(object));
        if memory.object != Some(*object) {
            // All of it, because the next read of the object may be longer than this one.
            memory.bytes.clear();
            memory.object = Some(*object);
        }
        let mut buffer = self.with_room(memory, len)?;
        let filled = read(&mut buffer.memory.bytes[..len])?;
        assert!(filled <= len, "read {filled} bytes into a buffer of {len}");
        buffer.filled = filled;
        Ok(buffer)
    }

    /// A buffer of this memory, grown to `len` bytes.
    fn with_room(&'static self, memory: Memory, len: usize) -> Result<ReadBuffer, Status> {
        let mut buffer = ReadBuffer { memory, len: 0, filled: 0, pool: self };
        let bytes = &mut buffer.memory.bytes;
        let more = len.saturating_sub(bytes.len());
        if bytes.try_reserve_exact(more).is_err() {
            // What others do not use may be enough.
            self.release();
            bytes.try_reserve_exact(more).map_err(|_| Status::NoSpace)?;
        }
        if more > 0 {
            bytes.resize(len, 0);
        }
        buffer.len = len;
        Ok(buffer)
    }

    /// Memory to use for `len` bytes, if there is some: best that of the same object.
    fn take(&self, len: usize, object: Option<&ObjectId>) -> Memory {
        if !is_kept(len) {
            return Memory::default();
        }
        let mut unused = self.0.lock();
        let same = object.and_then(|id| unused.iter().rposition(|m| m.object == Some(*id)));
        match same {
            Some(same) => unused.swap_remove(same),
            None => unused.pop().unwrap_or_default(),
        }
    }

    fn release(&self) {
        let unused = std::mem::take(&mut *self.0.lock());
        drop(unused);
    }

    fn put(&self, memory: Memory) {
        let mut unused = self.0.lock();
        if unused.len() < KEPT {
            unused.push(memory);
        } else {
            // Freed without the lock.
            drop(unused);
            drop(memory);
        }
    }
}

fn is_kept(len: usize) -> bool {
    (SMALLEST..=LARGEST).contains(&len)
}

impl From<ReadBuffer> for Data {
    fn from(buffer: ReadBuffer) -> Self {
        Bytes::from_owner(buffer).into()
    }
}

/// What has been read.
impl AsRef<[u8]> for ReadBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory.bytes[..self.filled]
    }
}

impl fmt::Debug for ReadBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadBuffer")
            .field("len", &self.len)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        if is_kept(self.memory.bytes.len()) {
            self.pool.put(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use cvmcache_proto::HashAlgorithm;

    use super::*;

    fn pool() -> &'static Pool {
        Box::leak(Box::new(Pool::new()))
    }

    fn id(byte: u8) -> ObjectId {
        ObjectId::new(HashAlgorithm::Sha1, [byte; ObjectId::DIGEST_LEN])
    }

    fn unused(pool: &Pool) -> usize {
        pool.0.lock().len()
    }

    /// Fills a buffer for object `byte` with that byte.
    fn filled(pool: &'static Pool, byte: u8, len: usize) -> ReadBuffer {
        let read = |slice: &mut [u8]| {
            slice.fill(byte);
            Ok::<_, Status>(slice.len())
        };
        pool.fill(&id(byte), len, read).unwrap()
    }

    /// What a read shows that claims to have filled its buffer and has not touched it.
    fn untouched(pool: &'static Pool, byte: u8, len: usize) -> Vec<u8> {
        let buffer = pool.fill(&id(byte), len, |_| Ok::<_, Status>(len)).unwrap();
        buffer.as_ref().to_vec()
    }

    #[test]
    fn a_buffer_is_reused_once_no_part_of_its_data_is_in_use() {
        let pool = pool();
        let mut buffer = pool.buffer(3 * SMALLEST).unwrap();
        buffer.extend_from_slice(&[1; 3 * SMALLEST]);
        let first = Data::from(buffer).into_bytes();
        let memory = first.as_ptr();
        let slice = first.slice(5..10);
        drop(first);
        assert_eq!(unused(pool), 0, "a part of it is in use");
        drop(slice);
        assert_eq!(unused(pool), 1);
        let mut buffer = pool.buffer(2 * SMALLEST).unwrap();
        assert!(buffer.as_ref().is_empty());
        buffer.extend_from_slice(b"ab");
        assert_eq!((buffer.as_ref().as_ptr(), unused(pool)), (memory, 0));
        assert_eq!(Data::from(buffer).into_bytes(), "ab");
    }

    #[test]
    fn a_read_that_claims_too_much_shows_no_bytes_of_another_object() {
        let pool = pool();
        let (long, short) = (4 * SMALLEST, 2 * SMALLEST);
        drop(filled(pool, 1, long));
        assert_eq!(untouched(pool, 2, short), vec![0; short]);
        // The second read of an object may show more of the buffer than the first one did.
        assert_eq!(untouched(pool, 2, long), vec![0; long]);
        assert_eq!(unused(pool), 1, "it was one buffer all the time");
        let mut buffer = pool.buffer(long).unwrap();
        buffer.extend_from_slice(&[3; SMALLEST]);
        drop(buffer);
        assert_eq!(untouched(pool, 2, long), vec![0; long]);
    }

    #[test]
    fn a_buffer_of_the_same_object_is_preferred_and_not_zeroed() {
        let pool = pool();
        let both = [filled(pool, 1, SMALLEST), filled(pool, 2, SMALLEST)];
        drop(both);
        assert_eq!(untouched(pool, 1, SMALLEST), vec![1; SMALLEST]);
        assert_eq!(untouched(pool, 2, SMALLEST), vec![2; SMALLEST]);
    }

    #[test]
    fn a_read_that_fails_gives_its_buffer_back() {
        let pool = pool();
        let failed = pool.fill(&id(1), SMALLEST, |_| Err(Status::IoErr));
        assert_eq!(failed.err(), Some(Status::IoErr));
        assert_eq!(unused(pool), 1);
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error_and_the_buffers_serve_further() {
        let pool = pool();
        let huge = usize::MAX / 4;
        for _ in 0..2 {
            drop(filled(pool, 1, SMALLEST));
            assert_eq!(pool.buffer(huge).err(), Some(Status::NoSpace));
            let read =
                |_: &mut [u8]| -> Result<usize, Status> { panic!("there is nothing to fill") };
            assert_eq!(pool.fill(&id(1), huge, read).err(), Some(Status::NoSpace));
            assert_eq!(unused(pool), 0, "what was not in use has been freed for it");
            assert_eq!(untouched(pool, 2, SMALLEST), vec![0; SMALLEST]);
            pool.release();
        }
    }

    #[test]
    fn unused_buffers_are_freed_when_they_are_released() {
        let pool = pool();
        let in_use = pool.buffer(SMALLEST).unwrap();
        drop(pool.buffer(SMALLEST).unwrap());
        pool.release();
        assert_eq!(unused(pool), 0);
        drop(in_use);
        assert_eq!(unused(pool), 1);
    }

    #[test]
    fn small_and_huge_buffers_and_too_many_are_not_kept() {
        let pool = pool();
        drop(filled(pool, 1, SMALLEST - 1));
        drop(pool.buffer(LARGEST + 1).unwrap());
        assert_eq!(unused(pool), 0);
        let many: Vec<_> = (0..2 * KEPT).map(|_| pool.buffer(SMALLEST).unwrap()).collect();
        drop(many);
        assert_eq!(unused(pool), KEPT);
    }

    #[test]
    fn a_file_is_read_up_to_its_end_or_the_length() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.rewind().unwrap();
        let mut buffer = ReadBuffer::new(6).unwrap();
        assert_eq!(buffer.read_at(&file, 8).unwrap(), 2);
        assert_eq!(buffer.read_at(&file, 10).unwrap(), 0);
        assert_eq!(buffer.read_at(&file, 0).unwrap(), 4);
        assert_eq!(buffer.as_ref(), b"890123");
    }

    #[test]
    fn what_the_page_cache_has_is_read_without_waiting() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let mut buffer = ReadBuffer::new(6).unwrap();
        match buffer.read_cached_at(&file, 8) {
            Ok(read) => assert_eq!((read, buffer.as_ref()), (2, &b"89"[..])),
            // Of a file system like NFS, below the directory of temporary files.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
        }
    }
}
