//! How much space is left: admission of uploads, and when to clean up or to detach. There is no I/O and
//! no clock in this file; `eviction.rs` carries out what it decides.
//!
//! The usage is a sum over the counters of all shards, which other instances change as well. So an
//! instance works with the last sum that it fetched and what it has stored since, and fetches it again
//! when it may be too far off.

use std::time::{Duration, Instant};

use cvmcache::plugin::CacheInfo;

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
    limit: u64,
    usage: Usage,
    /// When the usage was fetched.
    fetched: Option<Instant>,
    /// What this instance has stored since.
    stored: u64,
    /// What its uploads have reserved.
    uploading: u64,
    clean_ups: u64,
    cleaning_up: bool,
    detach_asked: bool,
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
    /// What a clean-up leaves, and what may be pinned without asking clients to detach.
    const CLEAN_UP_TO_PERCENT: u64 = 90;
    pub(crate) const PINNED_PERCENT: u64 = 70;
    /// Below this, passing the mark counts again (hysteresis): one object that is opened and closed at
    /// the mark must not have all clients asked each time.
    const PINNED_AGAIN_PERCENT: u64 = 60;
    /// When to fetch the usage again: what other instances store meanwhile is not known here.
    const MAX_AGE: Duration = Duration::from_secs(1);

    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            usage: Usage::default(),
            fetched: None,
            stored: 0,
            uploading: 0,
            clean_ups: 0,
            cleaning_up: false,
            detach_asked: false,
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
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
        let above = |percent| usage.pinned > percent_of(self.limit, percent);
        let ask = above(Self::PINNED_PERCENT) && !self.detach_asked;
        self.detach_asked =
            above(Self::PINNED_PERCENT) || (self.detach_asked && above(Self::PINNED_AGAIN_PERCENT));
        ask
    }

    /// Starts a clean-up. False if one is running.
    pub(crate) fn begin_clean_up(&mut self) -> bool {
        let begins = !self.cleaning_up;
        self.cleaning_up = true;
        self.clean_ups += u64::from(begins);
        begins
    }

    pub(crate) fn end_clean_up(&mut self) {
        self.cleaning_up = false;
    }

    /// Counts a clean-up that a client has requested.
    pub(crate) fn count_clean_up(&mut self) {
        self.clean_ups += 1;
    }

    /// What a clean-up has still to evict.
    pub(crate) fn excess(&self) -> u64 {
        let target = percent_of(self.limit, Self::CLEAN_UP_TO_PERCENT);
        self.used().saturating_add(self.uploading).saturating_sub(target)
    }

    pub(crate) fn info(&self, usage: Usage) -> CacheInfo {
        CacheInfo::new(self.limit, usage.used, usage.pinned.min(usage.used))
            .with_shrink_count(self.clean_ups)
    }

    fn used(&self) -> u64 {
        self.usage.used.saturating_add(self.stored)
    }
}

/// A share of a number of bytes, for `percent` up to 100. It does not overflow.
const fn percent_of(bytes: u64, percent: u64) -> u64 {
    bytes / 100 * percent + bytes % 100 * percent / 100
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
    fn the_usage_is_fetched_again_after_a_second() {
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
