//! The space of an arena: which extents are free, and which pages are resident. It knows offsets, and
//! nothing of the memory there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use smallvec::SmallVec;

/// Extents begin and end at multiples of a cache line.
pub(super) const UNIT: usize = 64;

/// An object that does not fit into one free extent gets none of less than a page.
const SHORTEST_PIECE: usize = 4096;

/// What is free, by place and by length.
///
/// Invariant: both maps have the same extents, no two of which touch.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) by_offset: BTreeMap<usize, usize>,
    pub(super) by_len: BTreeSet<(usize, usize)>,
    pub(super) allocated: usize,
    pub(super) pages: Pages,
}

impl Space {
    pub(super) fn new(len: usize, page: usize) -> io::Result<Self> {
        let mut space = Self {
            by_offset: BTreeMap::new(),
            by_len: BTreeSet::new(),
            allocated: 0,
            pages: Pages::new(len / page, page)?,
        };
        space.insert(0, len);
        Ok(space)
    }

    /// How many bytes are in pages that have been allocated, and were not given back since.
    pub(super) fn resident(&self) -> u64 {
        (self.pages.resident * self.pages.size) as u64
    }

    fn insert(&mut self, offset: usize, len: usize) {
        self.by_offset.insert(offset, len);
        self.by_len.insert((len, offset));
    }

    fn remove(&mut self, offset: usize, len: usize) {
        self.by_offset.remove(&offset);
        self.by_len.remove(&(len, offset));
    }

    pub(super) fn allocate(
        &mut self,
        len: usize,
        max_resident: u64,
    ) -> Option<SmallVec<[Range<usize>; 1]>> {
        let mut ranges = SmallVec::<[Range<usize>; 1]>::new();
        let mut left = len;
        while left > 0 {
            let Some(range) = self.take(left) else { break };
            left -= range.len();
            ranges.push(range);
        }
        let before = self.resident();
        ranges.iter().for_each(|range| self.pages.occupy(range.clone()));
        self.allocated += len - left;
        // An allocation that needs no further page is never too much.
        let after = self.resident();
        if left == 0 && (after <= max_resident || after == before) {
            return Some(ranges);
        }
        // Pages that were not resident count as such until they are purged, although none was written.
        ranges.into_iter().for_each(|range| self.free(range));
        None
    }

    /// The shortest free extent that has `len` bytes, cut to it, or else the longest.
    fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let best = self.by_len.range((len, 0)..).next();
        let longest = || self.by_len.last().filter(|(found, _)| *found >= SHORTEST_PIECE);
        let (found, offset) = *best.or_else(longest)?;
        self.remove(offset, found);
        if found > len {
            self.insert(offset + len, found - len);
        }
        Some(offset..offset + found.min(len))
    }

    pub(super) fn free(&mut self, range: Range<usize>) {
        self.allocated -= range.len();
        self.pages.vacate(range.clone());
        let Range { mut start, mut end } = range;
        if start == end {
            return;
        }
        if let Some((&before, &len)) = self.by_offset.range(..start).next_back()
            && before + len == start
        {
            self.remove(before, len);
            start = before;
        }
        if let Some(&len) = self.by_offset.get(&end) {
            self.remove(end, len);
            end += len;
        }
        self.insert(start, end - start);
    }
}

/// Which pages are resident, and which of them no extent lies in.
#[derive(Debug)]
pub(super) struct Pages {
    size: usize,
    /// For each page how many units of it are in extents, or [`PURGED`].
    pub(super) units: Vec<u16>,
    resident: usize,
    /// How many are resident without an extent.
    pub(super) unused: usize,
    /// Where the search for unused pages goes on.
    cursor: usize,
}

/// A page that was never written to, or given back.
const PURGED: u16 = u16::MAX;

impl Pages {
    fn new(count: usize, size: usize) -> io::Result<Self> {
        let mut units = Vec::new();
        units.try_reserve_exact(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
        units.resize(count, PURGED);
        Ok(Self { size, units, resident: 0, unused: 0, cursor: 0 })
    }

    /// The pages that a range lies in, with how many units of it are in each.
    fn parts(&self, range: Range<usize>) -> impl Iterator<Item = (usize, u16)> + use<> {
        let size = self.size;
        let Range { start: first, end: last } = range;
        let pages = first / size..if first < last { last.div_ceil(size) } else { 0 };
        pages.map(move |page| {
            let start = first.max(page * size);
            let end = last.min((page + 1) * size);
            // A page has at most 64 KiB, which are 1024 units.
            (page, ((end - start) / UNIT) as u16)
        })
    }

    fn occupy(&mut self, range: Range<usize>) {
        for (page, units) in self.parts(range) {
            match self.units[page] {
                PURGED => {
                    self.resident += 1;
                    self.units[page] = 0;
                }
                0 => self.unused -= 1,
                _ => {}
            }
            self.units[page] += units;
        }
    }

    fn vacate(&mut self, range: Range<usize>) {
        for (page, units) in self.parts(range) {
            self.units[page] -= units;
            self.unused += usize::from(self.units[page] == 0);
        }
    }

    /// Up to `most` pages in a row that are resident without an extent.
    pub(super) fn next_unused(&mut self, most: usize) -> Option<Range<usize>> {
        if self.unused == 0 {
            return None;
        }
        let find = |pages: &[u16]| pages.iter().position(|&units| units == 0);
        let start = match find(&self.units[self.cursor..]) {
            Some(ahead) => self.cursor + ahead,
            None => find(&self.units)?,
        };
        let run = self.units[start..].iter().take(most).take_while(|&&units| units == 0).count();
        self.cursor = start + run;
        Some(start..start + run)
    }

    pub(super) fn set_purged(&mut self, run: Range<usize>) {
        self.resident -= run.len();
        self.unused -= run.len();
        self.units[run].fill(PURGED);
    }
}
