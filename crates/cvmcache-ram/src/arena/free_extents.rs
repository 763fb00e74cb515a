//! Free extents, by place, by length and by whole pages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Extents that are free.
///
/// Invariant: `by_start` and `by_len` have the same extents, no two of which touch, and `whole_pages`, if it is
/// kept, the pages in each of them; `bytes` is the sum of their lengths.
#[derive(Debug, Default)]
pub(super) struct FreeExtents {
    /// The end of each by its start.
    by_start: BTreeMap<usize, usize>,
    /// Length and start.
    by_len: BTreeSet<(usize, usize)>,
    whole_pages: Option<WholePages>,
    bytes: usize,
}

/// The whole pages of extents, by their number: what can be purged of each.
#[derive(Debug)]
struct WholePages {
    page: usize,
    /// The pages of an extent, as bytes, and the start of the first one.
    by_len: BTreeSet<(usize, usize)>,
}

impl FreeExtents {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Extents whose whole pages are found by [`most_pages`](Self::most_pages).
    pub(super) fn with_whole_pages(page: usize) -> Self {
        Self { whole_pages: Some(WholePages { page, by_len: BTreeSet::new() }), ..Self::default() }
    }

    /// How many bytes are free.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a range, which coalesces with the extents that it touches.
    pub(super) fn insert(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        if let Some((&before, &its_end)) = self.by_start.range(..start).next_back()
            && its_end == start
        {
            self.delete(before..start);
            start = before;
        }
        if let Some(&its_end) = self.by_start.get(&end) {
            self.delete(end..its_end);
            end = its_end;
        }
        self.add(start..end);
    }

    /// Takes a range out of the extent that it is in. What is left of that one stays.
    ///
    /// # Panics
    ///
    /// If the range is not in one extent.
    pub(super) fn remove(&mut self, range: Range<usize>) {
        let found = self.by_start.range(..=range.start).next_back();
        let (&start, &end) = found.expect("an extent that has the range");
        assert!(range.end <= end, "{range:?} is not in {start}..{end}");
        self.delete(start..end);
        self.add(start..range.start);
        self.add(range.end..end);
    }

    /// The shortest extent that has `len` bytes, and of several the first.
    pub(super) fn best_fit(&self, len: usize) -> Option<Range<usize>> {
        self.by_len.range((len, 0)..).next().map(|&(len, start)| start..start + len)
    }

    pub(super) fn longest(&self) -> Option<Range<usize>> {
        self.by_len.last().map(|&(len, start)| start..start + len)
    }

    /// The most whole pages in a row, if they are indexed.
    pub(super) fn most_pages(&self) -> Option<Range<usize>> {
        let pages = self.whole_pages.as_ref()?;
        pages.by_len.last().map(|&(len, start)| start..start + len)
    }

    fn add(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.by_start.insert(range.start, range.end);
            self.by_len.insert((range.len(), range.start));
            if let Some(pages) = &mut self.whole_pages {
                pages.by_len.extend(pages.of(&range));
            }
            self.bytes += range.len();
        }
    }

    fn delete(&mut self, range: Range<usize>) {
        self.by_start.remove(&range.start);
        self.by_len.remove(&(range.len(), range.start));
        if let Some(pages) = &mut self.whole_pages
            && let Some(key) = pages.of(&range)
        {
            pages.by_len.remove(&key);
        }
        self.bytes -= range.len();
    }
}

impl WholePages {
    /// The key of an extent, if it contains a page.
    fn of(&self, extent: &Range<usize>) -> Option<(usize, usize)> {
        let start = extent.start.next_multiple_of(self.page);
        let len = (extent.end - extent.end % self.page).saturating_sub(start);
        (len > 0).then_some((len, start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(extents: &FreeExtents) -> Vec<(usize, usize)> {
        assert_eq!(extents.by_start.len(), extents.by_len.len());
        if let Some(pages) = &extents.whole_pages {
            let keys = extents.by_start.iter().filter_map(|(&start, &end)| pages.of(&(start..end)));
            assert_eq!(pages.by_len, keys.collect());
        }
        assert_eq!(extents.bytes, extents.by_len.iter().map(|(len, _)| len).sum::<usize>());
        extents.by_start.iter().map(|(&start, &end)| (start, end)).collect()
    }

    #[test]
    fn ranges_that_touch_coalesce() {
        let mut extents = FreeExtents::with_whole_pages(10);
        for range in [0..10, 20..30, 40..50, 5..5] {
            extents.insert(range);
        }
        assert_eq!(all(&extents), [(0, 10), (20, 30), (40, 50)]);
        extents.insert(10..20);
        assert_eq!(all(&extents), [(0, 30), (40, 50)]);
        extents.insert(30..40);
        assert_eq!(all(&extents), [(0, 50)]);
    }

    #[test]
    fn what_is_left_of_an_extent_stays() {
        let mut extents = FreeExtents::with_whole_pages(10);
        extents.insert(0..100);
        extents.remove(20..30);
        assert_eq!(all(&extents), [(0, 20), (30, 100)]);
        extents.remove(0..20);
        extents.remove(90..100);
        assert_eq!(all(&extents), [(30, 90)]);
    }

    #[test]
    fn the_best_fit_is_the_shortest_that_is_long_enough() {
        let mut extents = FreeExtents::new();
        for range in [0..30, 40..60, 70..90, 100..110] {
            extents.insert(range);
        }
        assert_eq!(extents.best_fit(15), Some(40..60));
        assert_eq!(extents.best_fit(20), Some(40..60));
        assert_eq!(extents.best_fit(21), Some(0..30));
        assert_eq!(extents.best_fit(31), None);
        assert_eq!(extents.longest(), Some(0..30));
    }

    #[test]
    fn whole_pages_are_those_that_an_extent_has_from_end_to_end() {
        let mut extents = FreeExtents::with_whole_pages(10);
        for range in [1..19, 25..44, 51..62, 68..90] {
            extents.insert(range);
        }
        assert_eq!(extents.most_pages(), Some(70..90));
        extents.remove(85..86);
        assert_eq!(extents.most_pages(), Some(70..80));
        extents.remove(70..80);
        assert_eq!(extents.most_pages(), Some(30..40));
        extents.remove(39..40);
        assert_eq!(extents.most_pages(), None);
        assert_eq!(
            all(&extents),
            [(1, 19), (25, 39), (40, 44), (51, 62), (68, 70), (80, 85), (86, 90)]
        );
    }
}
