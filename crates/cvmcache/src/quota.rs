//! A quota of memory, references or uploads that sessions or connections share by a dynamic threshold.
//!
//! Up to half of it goes to the holder that asks first. From there on, only holders below their fair share
//! get more, and never more than half of what is left (the dynamic threshold of shared-memory
//! switches): so a holder that comes late finds something, though no holder is asked to give anything back.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Something that is shared, such as bytes of memory. Pure: what is used is kept elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    limit: usize,
}

impl Quota {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit }
    }

    /// The half that goes to the holder that asks first.
    pub(crate) const fn half(self) -> usize {
        self.limit / 2
    }

    /// True if so little is used that each holder may have more.
    pub(crate) const fn is_ample(self, used: usize) -> bool {
        used < self.half()
    }

    /// How much one of so many holders may have that has `own` of all that is `used`; at least 1. As long
    /// as holders keep to it, no more than the limit and 1 for each of them is used.
    pub(crate) fn allowance(self, used: usize, own: usize, holders: usize) -> usize {
        let half = self.half();
        let others = used.saturating_sub(own);
        let fair_share = half / holders.max(1);
        let late_share = fair_share.min(self.limit.saturating_sub(others) / 2);
        late_share.max(half.saturating_sub(others)).max(1)
    }
}

/// A quota of all sessions together, with what is used of it. Read and changed without a lock: as many more
/// than it allows may be taken as threads take some at once.
#[derive(Debug)]
pub(crate) struct SharedQuota {
    quota: Quota,
    used: AtomicUsize,
}

impl SharedQuota {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { quota: Quota::new(limit), used: AtomicUsize::new(0) }
    }

    pub(crate) const fn half(&self) -> usize {
        self.quota.half()
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: usize) {
        self.used.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, count: usize) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }

    /// True if so little is used that each holder may have more.
    pub(crate) fn is_ample(&self) -> bool {
        self.quota.is_ample(self.used())
    }

    /// True if one of so many holders may have one more that has `own`.
    pub(crate) fn admits(&self, own: usize, holders: usize) -> bool {
        let used = self.used();
        self.quota.is_ample(used) || own < self.quota.allowance(used, own, holders)
    }

    /// True if one of so many holders may have so much `more` that has `own`.
    pub(crate) fn has_room(&self, own: usize, more: usize, holders: usize) -> bool {
        let used = self.used();
        self.quota.is_ample(used.saturating_add(more))
            || own.saturating_add(more) <= self.quota.allowance(used, own, holders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holders that take as much as they may, one by one and again until none may take more. Returns what
    /// they have.
    fn greedy(limit: usize, holders: usize, have: &mut Vec<usize>) {
        let quota = Quota::new(limit);
        have.resize(holders, 0);
        for _ in 0..2 {
            for holder in 0..holders {
                let used = have.iter().sum();
                let allowance = quota.allowance(used, have[holder], holders);
                have[holder] = have[holder].max(allowance);
            }
        }
    }

    #[test]
    fn a_single_holder_gets_half() {
        let quota = Quota::new(1000);
        assert_eq!(quota.allowance(0, 0, 1), 500);
        assert_eq!(quota.allowance(300, 300, 1), 500);
        assert!(quota.is_ample(499) && !quota.is_ample(500));
    }

    #[test]
    fn the_holder_of_most_waits_first() {
        let quota = Quota::new(1000);
        // One has 500, and the other three nothing.
        assert_eq!(quota.allowance(500, 500, 4), 500);
        assert_eq!(quota.allowance(500, 0, 4), 125);
    }

    #[test]
    fn holders_that_are_there_all_get_their_fair_share() {
        for holders in [2, 10, 100] {
            let mut have = vec![0; holders];
            greedy(1_000_000, holders, &mut have);
            let share = 500_000 / holders;
            assert!(have.iter().all(|own| *own >= share), "{have:?}");
            assert!(have.iter().sum::<usize>() <= 1_000_000);
        }
    }

    #[test]
    fn however_holders_come_the_limit_holds_and_the_last_one_finds_something() {
        let mut have = Vec::new();
        for holders in 1..=500 {
            greedy(1_000_000, holders, &mut have);
            assert!(have.iter().sum::<usize>() <= 1_000_000 + holders, "{holders}");
            assert!(have[holders - 1] > 0);
        }
    }

    #[test]
    fn over_the_limit_each_holder_may_have_one() {
        assert_eq!(Quota::new(10).allowance(20, 0, 3), 1);
        assert_eq!(Quota::new(0).allowance(usize::MAX, 5, usize::MAX), 1);
    }

    #[test]
    fn a_shared_quota_admits_a_holder_that_has_nothing() {
        let quota = SharedQuota::new(4);
        assert!(quota.is_ample());
        quota.add(3);
        assert!(!quota.is_ample());
        assert!(quota.admits(0, 10) && !quota.admits(3, 10));
        quota.remove(2);
        assert!(quota.admits(1, 10));
    }

    #[test]
    fn a_shared_quota_has_room_for_what_keeps_a_holder_to_its_share() {
        let quota = SharedQuota::new(1000);
        assert!(quota.has_room(0, 499, 10));
        quota.add(600);
        assert!(quota.has_room(0, 50, 10) && !quota.has_room(0, 51, 10));
        assert!(quota.has_room(40, 10, 10) && !quota.has_room(600, 1, 10));
        assert!(!quota.has_room(1, usize::MAX, 1));
    }
}
