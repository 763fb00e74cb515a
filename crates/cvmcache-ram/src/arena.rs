//! The memory of all objects: one mapping as large as the cache, in which objects have extents.
//!
//! The mapping is the bound: whatever sizes come in whatever order, objects take no more pages than it
//! has, and after the start no memory has to be asked for that the system could refuse. It is
//! allocated best fit, resident pages first, and neighbouring free extents coalesce. Where no free extent
//! is long enough, an object gets several: so fragmentation costs pieces, not space.

mod free_extents;
mod space;

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use space::{CHUNK, Space, UNIT};

/// How many bytes are purged under one lock: zapping their pages takes the kernel some hundred
/// microseconds.
const PURGED_AT_ONCE: usize = 2 * 1024 * 1024;

/// A mapping, and what of it is free.
///
/// No other lock is taken while that of `space` is held.
pub(crate) struct Arena {
    mapping: MmapRaw,
    space: Mutex<Space>,
}

/// A part of the arena. It is free again once it is dropped.
pub(crate) struct Extent {
    arena: Arc<Arena>,
    offset: usize,
    len: usize,
}

/// What the pages of an arena are used for, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pages {
    /// In pages that have been allocated, and were not purged since.
    pub(crate) resident: u64,
    /// Free, and resident.
    pub(crate) free_dirty: u64,
    /// Free, and not resident.
    pub(crate) free_clean: u64,
}

/// What an object, or a part of one, is kept in: nearly always one extent.
pub(crate) type Extents = SmallVec<[Extent; 1]>;

impl Arena {
    /// Maps an arena of `len` bytes. It takes memory as it is written to.
    pub(crate) fn new(len: usize) -> io::Result<Arc<Self>> {
        let page = rustix::param::page_size();
        let len = len.next_multiple_of(page);
        let mapping = MmapOptions::new().len(len).no_reserve_swap().map_anon()?;
        // Until they are populated. A kernel without huge pages refuses.
        let _ = mapping.advise(Advice::HugePage);
        let first_chunk = mapping.as_ptr().align_offset(CHUNK);
        let space = Mutex::new(Space::new(len, page, first_chunk));
        Ok(Arc::new(Self { mapping: mapping.into(), space }))
    }

    /// How many bytes the extents of `len` bytes take together, at least.
    pub(crate) fn cost(len: usize) -> u64 {
        len.next_multiple_of(UNIT) as u64
    }

    /// Extents of `len` bytes in all. `None` if so much is not free in pieces that are not too short, or
    /// if more than `max_resident` bytes of the arena would be resident.
    ///
    /// If more are resident already, some are purged.
    pub(crate) fn allocate(self: &Arc<Self>, len: usize, max_resident: u64) -> Option<Extents> {
        let max_resident = usize::try_from(max_resident).unwrap_or(usize::MAX);
        let ranges = {
            let mut space = self.space.lock();
            self.purge(&mut space, max_resident);
            space
                .allocate(len.next_multiple_of(UNIT), max_resident, |fresh| self.populate(fresh))?
        };
        let mut left = len;
        let extents = ranges.into_iter().map(|range| {
            let len = range.len().min(left);
            left -= len;
            Extent { arena: Arc::clone(self), offset: range.start, len }
        });
        Some(extents.collect())
    }

    /// How many bytes are in extents.
    pub(crate) fn allocated(&self) -> u64 {
        self.space.lock().allocated() as u64
    }

    pub(crate) fn pages(&self) -> Pages {
        let space = self.space.lock();
        let (resident, (free_dirty, free_clean)) = (space.resident(), space.free_bytes());
        Pages {
            resident: resident as u64,
            free_dirty: free_dirty as u64,
            free_clean: free_clean as u64,
        }
    }

    #[cfg(test)]
    pub(crate) fn resident(&self) -> u64 {
        self.pages().resident
    }

    /// Gives all pages without extents back to the system, some at a time.
    ///
    /// What other threads free meanwhile could keep this going for ever, so it ends after as many bytes as were
    /// free when it began.
    pub(crate) fn trim(&self) {
        let mut left = self.space.lock().free_bytes().0;
        while left > 0 {
            let mut space = self.space.lock();
            let before = space.resident();
            let is_purged = self.purge(&mut space, 0);
            let purged = before - space.resident();
            // A thread that waits has its turn before the next pages.
            MutexGuard::unlock_fair(space);
            if !is_purged {
                break;
            }
            left = left.saturating_sub(purged);
        }
    }

    /// Makes pages resident: one call for many of them, and huge pages if the system has them.
    fn populate(&self, pages: Range<usize>) {
        let (start, len) = (pages.start, pages.len());
        // Kernels before 5.14 know no `MADV_POPULATE_WRITE`: there, the first write to a page does it.
        let _ = self.mapping.advise_range(Advice::PopulateWrite, start, len);
        // Or khugepaged would make huge pages again, and resident, what is purged later.
        let _ = self.mapping.advise_range(Advice::NoHugePage, start, len);
    }

    /// Gives some pages without extents back to the system, if more than `max_resident` bytes are
    /// resident. True if it has.
    fn purge(&self, space: &mut Space, max_resident: usize) -> bool {
        space.purge(PURGED_AT_ONCE, max_resident, |space, pages| {
            let (start, len) = (pages.start, pages.len());
            // SAFETY: no extent lies in these pages, so there is no reference to their bytes; and none can
            // be made while the space is borrowed.
            #[allow(unsafe_code)]
            let purged = unsafe {
                self.mapping.unchecked_advise_range(UncheckedAdvice::DontNeed, start, len)
            };
            let chunks = space.chunks(&pages);
            if chunks != pages {
                self.split_huge_pages(chunks);
            }
            purged.is_ok()
        })
    }

    /// Splits huge pages that were purged in part: as a whole, the kernel would keep them until memory is short.
    fn split_huge_pages(&self, chunks: Range<usize>) {
        // SAFETY: the range lies in the mapping, and the advice changes no bytes: it marks pages as cold.
        #[allow(unsafe_code)]
        let _ = unsafe {
            let start = self.mapping.as_mut_ptr().add(chunks.start).cast();
            // Kernels before 5.4 do not know it.
            rustix::mm::madvise(start, chunks.len(), rustix::mm::Advice::LinuxCold)
        };
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("len", &self.mapping.len()).finish_non_exhaustive()
    }
}

impl Extent {
    /// Copies bytes to the beginning of the extent.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len);
        // SAFETY: the extent lies in the mapping, which lives as long as `arena`. Extents do not overlap,
        // and this one is borrowed mutably, so there is no other reference to these bytes.
        #[allow(unsafe_code)]
        let own = unsafe {
            let start = self.arena.mapping.as_mut_ptr().add(self.offset);
            std::slice::from_raw_parts_mut(start, bytes.len())
        };
        own.copy_from_slice(bytes);
    }
}

impl Deref for Extent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the extent lies in the mapping, which lives as long as `arena`, and anonymous memory is
        // initialised. Extents do not overlap, so only `fill` writes to it, which borrows the extent
        // mutably; pages are given back only where no extent is.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.arena.mapping.as_ptr().add(self.offset), self.len)
        }
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.offset, self.len)
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        let end = self.offset + self.len.next_multiple_of(UNIT);
        self.arena.space.lock().free(self.offset..end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: usize = 4096;

    fn arena(pages: usize) -> Arc<Arena> {
        Arena::new(pages * page()).unwrap()
    }

    fn page() -> usize {
        rustix::param::page_size()
    }

    fn bytes(extents: &Extents) -> Vec<u8> {
        extents.iter().flat_map(|extent| extent.to_vec()).collect()
    }

    fn filled(arena: &Arc<Arena>, byte: u8, len: usize) -> Option<Extents> {
        let mut extents = arena.allocate(len, u64::MAX)?;
        extents.iter_mut().for_each(|extent| extent.fill(&vec![byte; extent.len()]));
        Some(extents)
    }

    #[test]
    fn all_of_an_arena_can_be_allocated_and_is_one_extent_again() {
        let arena = arena(16);
        let len = arena.mapping.len();
        let all: Vec<_> = std::iter::from_fn(|| arena.allocate(100, u64::MAX)).collect();
        assert_eq!(all.len(), len / 128);
        assert_eq!(arena.allocated(), arena.resident());
        drop(all);
        assert_eq!(arena.allocated(), 0);
        assert!(arena.allocate(len, u64::MAX).is_some_and(|extents| extents.len() == 1));
        assert!(arena.allocate(len + 1, u64::MAX).is_none());
    }

    #[test]
    fn where_nothing_is_long_enough_an_object_gets_pieces_and_none_is_short() {
        let arena = arena(64);
        let len = arena.mapping.len();
        let mut held: Vec<_> = (0..len / PAGE).map(|_| filled(&arena, 1, PAGE)).collect();
        held.iter_mut().step_by(2).for_each(|extents| *extents = None);
        let pieces = filled(&arena, 2, 3 * PAGE + 1).unwrap();
        assert_eq!(pieces.len(), 4);
        assert_eq!(bytes(&pieces), vec![2; 3 * PAGE + 1]);
        assert!(held.iter().flatten().all(|extents| bytes(extents) == vec![1; PAGE]));
        drop((held, pieces));
        let mut held: Vec<_> = (0..len / 1024).map(|_| filled(&arena, 1, 1024)).collect();
        held.iter_mut().step_by(2).for_each(|extents| *extents = None);
        assert!(
            arena.allocate(PAGE + 1, u64::MAX).is_none(),
            "half of it is free, in short pieces"
        );
        assert!(arena.allocate(1024, u64::MAX).is_some());
    }

    #[test]
    fn pages_without_extents_are_given_back_and_no_others() {
        let arena = arena(2048);
        let page_len = page() as u64;
        let mut held: Vec<_> = (0..2048).map(|_| filled(&arena, 7, page())).collect();
        assert_eq!(arena.resident(), 2048 * page_len);
        held.iter_mut().step_by(2).for_each(|extents| *extents = None);
        assert_eq!(arena.resident(), 2048 * page_len);
        arena.trim();
        assert_eq!(arena.resident(), 1024 * page_len);
        assert!(held.iter().flatten().all(|extents| bytes(extents).iter().all(|&byte| byte == 7)));
        drop(held);
        arena.trim();
        assert_eq!(arena.resident(), 0);
    }

    #[test]
    fn no_more_is_allocated_than_may_be_resident() {
        let arena = arena(8);
        let max = page() as u64;
        let first = arena.allocate(page(), max).unwrap();
        assert!(arena.allocate(page(), max).is_none());
        assert_eq!(arena.resident(), max);
        drop(first);
        assert!(arena.allocate(page(), max).is_some(), "the page is resident already");
    }

    #[test]
    fn what_is_resident_beyond_the_bound_is_purged_with_the_next_allocation() {
        let arena = arena(8);
        let max = 2 * page() as u64;
        let held: Vec<_> = (0..8).map(|_| filled(&arena, 7, page()).unwrap()).collect();
        drop(held);
        let _one = arena.allocate(100, max).unwrap();
        assert!(arena.resident() <= max);
    }

    #[test]
    fn resident_pages_are_allocated_before_others_that_fit_better() {
        let arena = arena(8);
        let pages = |count: usize| (count * page()) as u64;
        let first = arena.allocate(page(), pages(1)).unwrap();
        drop(arena.allocate(4 * page(), pages(5)).unwrap());
        let _three = arena.allocate(3 * page(), u64::MAX).unwrap();
        assert_eq!(arena.resident(), pages(5));
        drop(first);
    }

    #[test]
    fn a_chunk_becomes_resident_at_once() {
        let arena = Arena::new(4 * CHUNK).unwrap();
        let chunk = CHUNK as u64;
        let first = arena.allocate(1, u64::MAX).unwrap();
        let before_first_chunk = arena.resident();
        assert!((1..=chunk).contains(&before_first_chunk));
        let _second = arena.allocate(CHUNK, u64::MAX).unwrap();
        assert_eq!(arena.resident(), before_first_chunk + chunk);
        drop(first);
    }

    #[test]
    fn less_than_a_chunk_becomes_resident_where_no_more_may() {
        let arena = Arena::new(4 * CHUNK).unwrap();
        let max = 3 * page() as u64;
        let _two = arena.allocate(2 * page(), max).unwrap();
        assert!(arena.allocate(2 * page(), max).is_none());
        assert!(arena.allocate(page(), max).is_some());
        assert!(arena.resident() <= max);
    }

    #[test]
    fn nothing_takes_no_extent() {
        let arena = arena(1);
        assert!(arena.allocate(0, 0).is_some_and(|extents| extents.is_empty()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn extents_do_not_overlap_and_the_accounts_agree(
            steps in prop::collection::vec((any::<bool>(), 1..30_000usize, any::<u8>()), 1..60),
        ) {
            let arena = arena(64);
            let mut held: Vec<(u8, usize, Extents)> = Vec::new();
            for (allocate, number, byte) in steps {
                if allocate {
                    held.extend(filled(&arena, byte, number).map(|it| (byte, number, it)));
                } else if !held.is_empty() {
                    held.swap_remove(number % held.len());
                }
                if number % 16 == 0 {
                    arena.trim();
                }
                for (byte, len, extents) in &held {
                    prop_assert_eq!(extents.iter().map(|extent| extent.len()).sum::<usize>(), *len);
                    let whole = |extent: &Extent| extent[..] == vec![*byte; extent.len()];
                    prop_assert!(extents.iter().all(whole));
                }
                let allocated: usize =
                    held.iter().map(|(_, len, _)| len.next_multiple_of(UNIT)).sum();
                prop_assert_eq!(arena.allocated(), allocated as u64);
                prop_assert!(arena.resident() <= arena.mapping.len() as u64);
            }
        }
    }
}
