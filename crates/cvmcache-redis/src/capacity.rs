//! The capacity: admission of uploads, and when to clean up or to ask clients to detach. There is no
//! I/O and no clock in this file; `eviction.rs` carries out what it decides.
//!
//! The usage is a sum over the counters of all shards, which other instances change as well. So an
//! instance works with the last sum that it fetched and what it has stored since, and fetches it again
//! when it may be too far off.

use std::time::{Duration, Instant};

use cvmcache::plugin::CacheInfo;
use cvmcache::{Watermarks, percent_of};

/// The bytes that the objects of all shards are charged for, and those of them that are pinned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) used: u64,
    pub(crate) pinned: u64,
}

/// What may be stored. Invariant: bytes are reserved, stored or released once each, so that `uploading`
/// is what the uploads of this instance have reserved.
#[derive(Debug)]
pub(crate) struct Capacity {
    /// `SIZE`.
    size: u64,
    /// `SIZE`, or what the server can hold if that is less.
    limit: u64,
    /// When to clean up, and when clients are to detach.
    marks: Watermarks,
    usage: Usage,
    /// When the usage was fetched.
    fetched: Option<Instant>,
    /// What this instance has stored since.
    stored: u64,
    /// What its uploads have reserved.
    uploading: u64,
}

/// Whether an upload may go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Its bytes are reserved.
    Granted,
    /// Fetch the usage first.
    Refresh,
    /// So many bytes have to be evicted first.
    Evict { lacking: u64 },
    /// It does not fit, even if everything that is not pinned is evicted.
    TooLarge,
}

impl Capacity {
    /// What a clean-up leaves.
    const CLEAN_UP_TO_PERCENT: u64 = 90;
    /// When to fetch the usage again: what other instances store meanwhile is not known here.
    const MAX_AGE: Duration = Duration::from_secs(1);

    pub(crate) fn new(limit: u64) -> Self {
        Self {
            size: limit,
            limit,
            marks: Watermarks::new(limit).with_low_percent(Self::CLEAN_UP_TO_PERCENT),
            usage: Usage::default(),
            fetched: None,
            stored: 0,
            uploading: 0,
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Sets what the server can hold, if that is known. True if more is in use.
    pub(crate) fn set_ceiling(&mut self, ceiling: Option<u64>) -> bool {
        self.limit = ceiling.map_or(self.size, |ceiling| ceiling.min(self.size));
        self.is_over()
    }

    /// Whether more is in use than fits, as far as that is known.
    pub(crate) fn is_over(&self) -> bool {
        self.fetched.is_some() && self.used() > self.limit
    }

    /// Reserves bytes for an upload, if they fit.
    pub(crate) fn admit(&mut self, bytes: u64, now: Instant) -> Admission {
        let is_old = |fetched: Instant| now.duration_since(fetched) > Self::MAX_AGE;
        if self.fetched.is_none_or(is_old) || self.stored > self.limit / 100 {
            return Admission::Refresh;
        }
        let wanted = self.uploading.saturating_add(bytes);
        if self.usage.pinned.saturating_add(wanted) > self.limit {
            return Admission::TooLarge;
        }
        let lacking = self.used().saturating_add(wanted).saturating_sub(self.limit);
        if lacking > 0 {
            return Admission::Evict { lacking };
        }
        self.uploading = wanted;
        Admission::Granted
    }

    /// Whether an object of this size would fit if everything that is not pinned were evicted.
    pub(crate) fn could_hold(&self, size: u64) -> bool {
        self.usage.pinned.saturating_add(size) <= self.limit
    }

    /// Gives back what was reserved.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.uploading = self.uploading.saturating_sub(bytes);
    }

    /// What was reserved has become an object.
    pub(crate) fn stored(&mut self, bytes: u64) {
        self.release(bytes);
        self.stored = self.stored.saturating_add(bytes);
    }

    pub(crate) fn evicted(&mut self, bytes: u64) {
        self.usage.used = self.usage.used.saturating_sub(bytes);
    }

    /// Sets the usage that was just fetched. True if clients should be asked to detach.
    pub(crate) fn update(&mut self, usage: Usage, now: Instant) -> bool {
        self.usage = usage;
        self.stored = 0;
        self.fetched = Some(now);
        self.marks.update_pinned(usage.pinned)
    }

    /// Starts a clean-up. False if one is running.
    pub(crate) fn begin_clean_up(&mut self) -> bool {
        self.marks.begin_clean_up()
    }

    pub(crate) fn end_clean_up(&mut self) {
        self.marks.end_clean_up();
    }

    /// Counts a clean-up that a client has requested.
    pub(crate) fn count_clean_up(&mut self) {
        self.marks.count_clean_up();
    }

    /// What a clean-up has still to evict.
    pub(crate) fn excess(&self) -> u64 {
        let low = self.marks.low().min(percent_of(self.limit, Self::CLEAN_UP_TO_PERCENT));
        self.used().saturating_add(self.uploading).saturating_sub(low)
    }

    pub(crate) fn info(&self, usage: Usage) -> CacheInfo {
        CacheInfo::new(self.limit, usage.used, usage.pinned.min(usage.used))
            .with_shrink_count(self.marks.clean_ups())
    }

    /// What the uploads of this instance have reserved.
    pub(crate) fn uploading(&self) -> u64 {
        self.uploading
    }

    /// How many clean-ups there have been.
    pub(crate) fn clean_ups(&self) -> u64 {
        self.marks.clean_ups()
    }

    fn used(&self) -> u64 {
        self.usage.used.saturating_add(self.stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1024 * 1024;

    #[test]
    fn an_upload_is_admitted_as_long_as_everything_fits() {
        let now = Instant::now();
        let mut capacity = Capacity::new(100 * MB);
        assert_eq!(capacity.admit(1, now), Admission::Refresh);
        capacity.update(Usage { used: 90 * MB, pinned: 50 * MB }, now);
        assert_eq!(capacity.admit(10 * MB, now), Admission::Granted);
        assert_eq!(capacity.admit(1, now), Admission::Evict { lacking: 1 });
        assert_eq!(capacity.admit(41 * MB, now), Admission::TooLarge);
        capacity.evicted(2 * MB);
        assert_eq!(capacity.admit(2 * MB, now), Admission::Granted);
        capacity.release(12 * MB);
        assert_eq!(capacity.admit(12 * MB, now), Admission::Granted);
        capacity.stored(12 * MB);
        assert_eq!(capacity.admit(0, now), Admission::Refresh, "more than 1 % was stored since");
    }

    #[test]
    fn a_maxmemory_below_size_lowers_the_limit_until_it_is_raised() {
        let now = Instant::now();
        let mut capacity = Capacity::new(100 * MB);
        assert!(!capacity.set_ceiling(Some(0)), "nothing is known of the usage");
        capacity.update(Usage { used: 50 * MB, pinned: 0 }, now);
        assert!(capacity.set_ceiling(Some(40 * MB)));
        assert_eq!(capacity.excess(), 14 * MB, "down to nine tenths");
        assert_eq!(capacity.admit(MB, now), Admission::Evict { lacking: 11 * MB });
        assert!(!capacity.set_ceiling(Some(200 * MB)));
        assert_eq!(capacity.limit(), 100 * MB);
        assert_eq!(capacity.admit(MB, now), Admission::Granted);
        assert!(!capacity.set_ceiling(None));
        assert_eq!(capacity.limit(), 100 * MB);
    }

    #[test]
    fn the_usage_is_fetched_again_after_one_second() {
        let now = Instant::now();
        let mut capacity = Capacity::new(100 * MB);
        capacity.update(Usage::default(), now);
        assert_eq!(capacity.admit(1, now + Duration::from_millis(900)), Admission::Granted);
        assert_eq!(capacity.admit(1, now + Duration::from_millis(1100)), Admission::Refresh);
    }

    #[test]
    fn clients_are_asked_to_detach_once_until_less_is_pinned() {
        let now = Instant::now();
        let mut capacity = Capacity::new(100);
        let mut update = |pinned| capacity.update(Usage { used: 100, pinned }, now);
        assert_eq!(
            [70, 71, 65, 80, 60, 71].map(&mut update),
            [false, true, false, false, false, true]
        );
    }

    #[test]
    fn a_clean_up_leaves_nine_tenths_and_counts_once() {
        let mut capacity = Capacity::new(1000);
        capacity.update(Usage { used: 950, pinned: 0 }, Instant::now());
        assert_eq!(capacity.excess(), 50);
        assert!(capacity.begin_clean_up());
        assert!(!capacity.begin_clean_up());
        capacity.end_clean_up();
        assert!(capacity.begin_clean_up());
        assert_eq!(capacity.info(Usage::default()).shrink_count, Some(2));
    }
}
