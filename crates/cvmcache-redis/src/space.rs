//! How much fits, and what has to go: the decisions about space. There is no I/O and no clock in
//! this file; `eviction.rs` carries them out.
//!
//! What all objects take is a sum over the shards, which other instances change as well. So an
//! instance works with the last sum it asked for and what it has stored since, and asks again when
//! that may be too far from the truth.

use std::time::{Duration, Instant};

use cvmcache::plugin::CacheInfo;

use crate::facts::{Facts, Shape};
use crate::keys::Shard;
use crate::seal::CHECK;

/// What the objects of all shards take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) used: u64,
    pub(crate) pinned: u64,
}

/// What may still be stored.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    sum: Sum,
    asked: Option<Instant>,
    /// What this instance has stored since it asked.
    stored: u64,
    /// What its uploads under way have taken.
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
    /// Ask for the sum first.
    Ask,
    /// So many bytes have to be evicted first.
    Full { lacking: u64 },
    /// Whatever is evicted, it does not fit.
    Never,
}

impl Budget {
    /// What a clean-up leaves, and what may be pinned without asking clients to detach.
    const CLEAN_UP_TO_PERCENT: u64 = 90;
    pub(crate) const PINNED_PERCENT: u64 = 70;
    /// Below this, passing the mark counts again: one object that is opened and closed at the mark
    /// must not have everybody asked each time.
    const PINNED_AGAIN_PERCENT: u64 = 60;
    /// When to ask again: what others store meanwhile is not known here.
    const MAX_AGE: Duration = Duration::from_secs(1);

    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            sum: Sum::default(),
            asked: None,
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
        let is_old = |asked: Instant| now.duration_since(asked) > Self::MAX_AGE;
        if self.asked.is_none_or(is_old) || self.stored > self.limit / 100 {
            return Admission::Ask;
        }
        let wanted = self.uploading.saturating_add(bytes);
        if self.sum.pinned.saturating_add(wanted) > self.limit {
            return Admission::Never;
        }
        let lacking = self.used().saturating_add(wanted).saturating_sub(self.limit);
        if lacking > 0 {
            return Admission::Full { lacking };
        }
        self.uploading = wanted;
        Admission::Granted
    }

    /// Whether an object of this size would fit if everything that is not pinned were evicted.
    pub(crate) fn could_hold(&self, size: u64) -> bool {
        self.sum.pinned.saturating_add(size) <= self.limit
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
        self.sum.used = self.sum.used.saturating_sub(bytes);
    }

    /// Takes note of the sum. True if clients should be asked to detach.
    pub(crate) fn update(&mut self, sum: Sum, now: Instant) -> bool {
        self.sum = sum;
        self.stored = 0;
        self.asked = Some(now);
        let above = |percent| sum.pinned > percent_of(self.limit, percent);
        let ask = above(Self::PINNED_PERCENT) && !self.detach_asked;
        self.detach_asked =
            above(Self::PINNED_PERCENT) || (self.detach_asked && above(Self::PINNED_AGAIN_PERCENT));
        ask
    }

    /// Begins to clean up, unless that is under way; then false.
    pub(crate) fn begin_clean_up(&mut self) -> bool {
        let begins = !self.cleaning_up;
        self.cleaning_up = true;
        self.clean_ups += u64::from(begins);
        begins
    }

    pub(crate) fn end_clean_up(&mut self) {
        self.cleaning_up = false;
    }

    /// Counts a clean-up that somebody asked for.
    pub(crate) fn count_clean_up(&mut self) {
        self.clean_ups += 1;
    }

    /// What a clean-up has still to evict.
    pub(crate) fn excess(&self) -> u64 {
        let target = percent_of(self.limit, Self::CLEAN_UP_TO_PERCENT);
        self.used().saturating_add(self.uploading).saturating_sub(target)
    }

    pub(crate) fn info(&self, sum: Sum) -> CacheInfo {
        CacheInfo::new(self.limit, sum.used, sum.pinned.min(sum.used))
            .with_shrink_count(self.clean_ups)
    }

    fn used(&self) -> u64 {
        self.sum.used.saturating_add(self.stored)
    }
}

/// An object that could be evicted, as its shard has it. Neither its name nor its time is anything
/// but what the server said, and goes back to it as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) shard: Shard,
    pub(crate) volatile: bool,
    pub(crate) id: Vec<u8>,
    pub(crate) used: Vec<u8>,
    pub(crate) cost: u64,
}

/// The objects to be evicted for `bytes` bytes, in order: volatile ones first, and those used longest
/// ago first among equals. Each shard has told up to `limit` of each kind. What is younger than the
/// youngest of a shard that may have more to tell is left for the next time.
pub(crate) fn choose(candidates: Vec<Candidate>, limit: usize, bytes: u64) -> Vec<Candidate> {
    let (volatile, lasting): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|candidate| candidate.volatile);
    let (mut chosen, all) = oldest(volatile, limit);
    if all {
        chosen.extend(oldest(lasting, limit).0);
    }
    let mut sum = 0u64;
    let enough = chosen.iter().position(|candidate| {
        sum = sum.saturating_add(candidate.cost);
        sum >= bytes
    });
    chosen.truncate(enough.map_or(usize::MAX, |last| last + 1));
    chosen
}

/// Those of one kind that are certainly the oldest, in order, and whether there are no others.
fn oldest(candidates: Vec<Candidate>, limit: usize) -> (Vec<Candidate>, bool) {
    let mut timed: Vec<_> = candidates.into_iter().map(|c| (time(&c.used), c)).collect();
    timed.sort_by(|(a, x), (b, y)| a.total_cmp(b).then_with(|| x.id.cmp(&y.id)));
    let mut told = std::collections::HashMap::new();
    // In order of time, the first shard that has told `limit` is the one whose youngest is oldest.
    let known = timed.iter().position(|(_, candidate)| {
        let told = told.entry(candidate.shard).or_insert(0);
        *told += 1;
        *told >= limit
    });
    let keep = known.map_or(timed.len(), |last| last + 1);
    timed.truncate(keep);
    (timed.into_iter().map(|(_, candidate)| candidate).collect(), known.is_none())
}

fn time(text: &[u8]) -> f64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// What an object takes of the server's memory, with its index entries. Measured by the memory that a
/// million objects take; see docs/redis.md.
pub(crate) fn cost(facts: &Facts) -> u64 {
    let segments = facts.shape.segments(facts.size);
    let full = facts.shape.segment_len();
    let data = match segments.checked_sub(1) {
        None => 0,
        Some(before) => {
            let last = facts.size - before * full;
            before * segment_cost(facts.shape, full) + segment_cost(facts.shape, last)
        }
    };
    OBJECT_COST + allocation(facts.encoded_len() as u64) + data
}

fn segment_cost(shape: Shape, len: u64) -> u64 {
    SEGMENT_COST + allocation(len + shape.chunks(len) * CHECK as u64)
}

/// A hash with its key, an entry of a sorted set, and one of the set of what is held.
const OBJECT_COST: u64 = 640;

/// A key.
const SEGMENT_COST: u64 = 160;

/// What jemalloc takes for a string of this length: sizes are in steps of a quarter of a power of two.
fn allocation(len: u64) -> u64 {
    // The header of a string, and a zero behind it.
    let len = len + 10;
    if len <= 64 {
        return len.next_multiple_of(8);
    }
    let step = len.next_power_of_two() / 8;
    len.next_multiple_of(step)
}

/// A share of a number of bytes, for `percent` up to 100. It does not overflow.
const fn percent_of(bytes: u64, percent: u64) -> u64 {
    bytes / 100 * percent + bytes % 100 * percent / 100
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MB: u64 = 1024 * 1024;

    #[test]
    fn an_upload_is_admitted_as_long_as_everything_fits() {
        let now = Instant::now();
        let mut budget = Budget::new(100 * MB);
        assert_eq!(budget.admit(1, now), Admission::Ask);
        budget.update(Sum { used: 90 * MB, pinned: 50 * MB }, now);
        assert_eq!(budget.admit(10 * MB, now), Admission::Granted);
        assert_eq!(budget.admit(1, now), Admission::Full { lacking: 1 });
        assert_eq!(budget.admit(41 * MB, now), Admission::Never);
        budget.evicted(2 * MB);
        assert_eq!(budget.admit(2 * MB, now), Admission::Granted);
        budget.release(12 * MB);
        assert_eq!(budget.admit(12 * MB, now), Admission::Granted);
        budget.stored(12 * MB);
        assert_eq!(budget.admit(0, now), Admission::Ask, "more than 1 % was stored since");
    }

    #[test]
    fn the_sum_is_asked_for_again_after_a_while() {
        let now = Instant::now();
        let mut budget = Budget::new(100 * MB);
        budget.update(Sum::default(), now);
        assert_eq!(budget.admit(1, now + Duration::from_millis(900)), Admission::Granted);
        assert_eq!(budget.admit(1, now + Duration::from_millis(1100)), Admission::Ask);
    }

    #[test]
    fn clients_are_asked_to_detach_once_until_less_is_pinned() {
        let now = Instant::now();
        let mut budget = Budget::new(100);
        let mut update = |pinned| budget.update(Sum { used: 100, pinned }, now);
        assert_eq!(
            [70, 71, 65, 80, 60, 71].map(&mut update),
            [false, true, false, false, false, true]
        );
    }

    #[test]
    fn a_clean_up_leaves_nine_tenths_and_counts_once() {
        let mut budget = Budget::new(1000);
        budget.update(Sum { used: 950, pinned: 0 }, Instant::now());
        assert_eq!(budget.excess(), 50);
        assert!(budget.begin_clean_up());
        assert!(!budget.begin_clean_up());
        budget.end_clean_up();
        assert!(budget.begin_clean_up());
        assert_eq!(budget.info(Sum::default()).shrink_count, Some(2));
    }

    fn shard(number: u8) -> Shard {
        Shard::all().nth(number.into()).unwrap()
    }

    fn candidate(in_shard: u8, volatile: bool, used: u64, cost: u64) -> Candidate {
        let id = format!("{in_shard}-{used}").into_bytes();
        Candidate { shard: shard(in_shard), volatile, id, used: used.to_string().into(), cost }
    }

    proptest! {
        /// Whatever the shards have, those are chosen that one index of all would have named.
        #[test]
        fn the_oldest_of_all_shards_are_chosen(
            objects in proptest::collection::btree_map(any::<u16>(), (0..4u8, any::<bool>()), 0..60),
            limit in 1..6usize,
            bytes in 1..30u64,
        ) {
            let all: Vec<_> = objects.into_iter()
                .map(|(used, (shard, volatile))| candidate(shard, volatile, used.into(), 1))
                .collect();
            let told = |number| [true, false].map(|volatile| {
                let of_kind = all.iter().filter(move |c| c.shard == shard(number) && c.volatile == volatile);
                of_kind.take(limit).cloned().collect::<Vec<_>>()
            });
            let candidates: Vec<_> = (0..4).flat_map(told).flatten().collect();
            let chosen = choose(candidates, limit, bytes);
            let mut expected = all.clone();
            expected.sort_by_key(|c| !c.volatile);
            expected.truncate(bytes as usize);
            prop_assert!(expected.starts_with(&chosen), "{chosen:?} of {expected:?}");
            prop_assert!(chosen.len() >= limit.min(expected.len()).min(bytes as usize));
        }
    }

    #[test]
    fn a_time_that_is_none_is_the_oldest() {
        let nonsense = Candidate { used: b"\xff".to_vec(), ..candidate(0, false, 0, 5) };
        let chosen = choose(vec![candidate(1, false, 7, 5), nonsense.clone()], 8, 5);
        assert_eq!(chosen, [nonsense]);
    }

    #[test]
    fn allocations_are_those_of_the_server() {
        for (len, allocated) in [
            (1, 16),
            (54, 64),
            (55, 80),
            (16 * 1024, 20 * 1024),
            (31 * (16 * 1024 + 16), 512 * 1024),
        ] {
            assert_eq!(allocation(len), allocated, "{len}");
        }
    }
}
