//! The space of an arena: which extents are free, and which of these are resident. It knows offsets, and
//! nothing of the memory there.

use std::ops::Range;

use smallvec::SmallVec;

use super::free_extents::FreeExtents;

/// Extents begin and end at multiples of a cache line.
pub(super) const UNIT: usize = 64;

/// So much becomes resident at once: what a huge page has.
pub(super) const CHUNK: usize = 2 * 1024 * 1024;

/// An object that does not fit into one free extent gets none of less than a page.
const SHORTEST_PIECE: usize = 4096;

/// What is free: dirty extents, which were written to and are resident, and clean ones, which are not.
///
/// Dirty extents are allocated first. So a cache that is full uses the same pages again and again, and the
/// kernel has none to clear.
///
/// Invariant: clean extents consist of whole pages, so all pages but theirs count as resident.
#[derive(Debug)]
pub(super) struct Space {
    len: usize,
    page: usize,
    /// Where the first chunk begins.
    first_chunk: usize,
    dirty: FreeExtents,
    clean: FreeExtents,
}

impl Space {
    /// A space of `len` bytes in pages of `page`, all of it clean. Chunks begin at `first_chunk`, below
    /// [`CHUNK`].
    pub(super) fn new(len: usize, page: usize, first_chunk: usize) -> Self {
        let mut clean = FreeExtents::new();
        clean.insert(0..len);
        Self { len, page, first_chunk, dirty: FreeExtents::with_whole_pages(page), clean }
    }

    /// How many bytes are in pages that have been allocated, and were not purged since.
    pub(super) fn resident(&self) -> usize {
        self.len - self.clean.bytes()
    }

    /// How many bytes are not free.
    pub(super) fn allocated(&self) -> usize {
        self.resident() - self.dirty.bytes()
    }

    /// Ranges of `len` bytes together, one if possible. No clean page becomes resident if more than
    /// `max_resident` bytes were then; `populate` gets those that do.
    pub(super) fn allocate(
        &mut self,
        len: usize,
        max_resident: usize,
        mut populate: impl FnMut(Range<usize>),
    ) -> Option<SmallVec<[Range<usize>; 1]>> {
        let mut ranges = SmallVec::<[Range<usize>; 1]>::new();
        let mut left = len;
        while left > 0 {
            let Some(range) = self.take(left, max_resident, &mut populate) else {
                ranges.into_iter().for_each(|range| self.free(range));
                return None;
            };
            left -= range.len();
            ranges.push(range);
        }
        Some(ranges)
    }

    pub(super) fn free(&mut self, range: Range<usize>) {
        self.dirty.insert(range);
    }

    /// Makes up to `most` bytes clean that are dirty, if more than `max_resident` are resident. `purge` gets
    /// the pages, and says whether they are gone.
    pub(super) fn purge(
        &mut self,
        most: usize,
        max_resident: usize,
        purge: impl FnOnce(&Self, Range<usize>) -> bool,
    ) -> bool {
        if self.resident() <= max_resident {
            return false;
        }
        let Some(Range { start, end }) = self.dirty.most_pages() else { return false };
        // The end: what is allocated next is the beginning of an extent.
        let pages = start.max(end.saturating_sub(most))..end;
        let is_purged = purge(self, pages.clone());
        if is_purged {
            self.dirty.remove(pages.clone());
            self.clean.insert(pages);
        }
        is_purged
    }

    /// The chunks that a range lies in.
    pub(super) fn chunks(&self, range: &Range<usize>) -> Range<usize> {
        let start = match range.start.checked_sub(self.first_chunk) {
            Some(behind) => range.start - behind % CHUNK,
            None => 0,
        };
        start..self.end_of_chunk(range.end).min(self.len)
    }

    /// Where the chunk ends that has the byte before `end`.
    fn end_of_chunk(&self, end: usize) -> usize {
        match end.checked_sub(self.first_chunk) {
            Some(behind) => self.first_chunk + behind.next_multiple_of(CHUNK),
            None => self.first_chunk,
        }
    }

    /// The best fit for `len` bytes, or else the longest piece that there is for a part of them.
    fn take(
        &mut self,
        len: usize,
        max_resident: usize,
        populate: &mut impl FnMut(Range<usize>),
    ) -> Option<Range<usize>> {
        if let Some(dirty) = self.dirty.best_fit(len) {
            return Some(self.take_dirty(dirty, len));
        }
        let budget = max_resident.saturating_sub(self.resident());
        let pages = len.next_multiple_of(self.page);
        if pages <= budget
            && let Some(clean) = self.clean.best_fit(pages)
        {
            return Some(self.take_clean(clean, len, budget, populate));
        }
        let dirty = self.dirty.longest().unwrap_or_default();
        let clean = self.clean.longest().unwrap_or_default();
        let clean_len = clean.len().min(budget - budget % self.page).min(len);
        if clean_len > dirty.len() {
            return Some(self.take_clean(clean, clean_len, budget, populate));
        }
        (dirty.len() >= SHORTEST_PIECE).then(|| self.take_dirty(dirty.clone(), dirty.len()))
    }

    fn take_dirty(&mut self, free: Range<usize>, len: usize) -> Range<usize> {
        let range = free.start..free.start + len;
        self.dirty.remove(range.clone());
        range
    }

    /// The rest of its last chunk, or of its last page, is dirty from now on.
    fn take_clean(
        &mut self,
        free: Range<usize>,
        len: usize,
        budget: usize,
        populate: &mut impl FnMut(Range<usize>),
    ) -> Range<usize> {
        let range = free.start..free.start + len;
        let mut end = self.end_of_chunk(range.end).min(free.end);
        if end - free.start > budget {
            end = range.end.next_multiple_of(self.page);
        }
        self.clean.remove(free.start..end);
        self.dirty.insert(range.end..end);
        populate(free.start..end);
        range
    }
}
