//! Histograms of latencies: log-linear, eight buckets for each power of two, as those of HdrHistogram.
//!
//! The crate `hdrhistogram` has no histogram that one thread writes and others read without a lock.

use std::array;
use std::time::Duration;

use super::statistics::Count;

/// Buckets for each power of two: a latency is known to an eighth.
const PER_POWER: usize = 8;
const SHIFT: u32 = PER_POWER.trailing_zeros();

/// The first bucket has 8 ns and less, and the last one begins at 2^36 ns, which is 69 s.
const BUCKETS: usize = (36 - SHIFT as usize) * PER_POWER + 1;

/// The buckets, as the I/O thread counts them.
#[derive(Debug)]
pub(super) struct LatencyCounters {
    buckets: [Count; BUCKETS],
    /// The sum of all, in nanoseconds.
    sum: Count,
}

/// The buckets at one moment, or of a time between two.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Default for LatencyCounters {
    fn default() -> Self {
        Self { buckets: array::from_fn(|_| Count::default()), sum: Count::default() }
    }
}

impl LatencyCounters {
    #[inline]
    pub(super) fn record(&self, latency: Duration) {
        // In 64 bits: they are enough for five centuries.
        let nanoseconds =
            latency.as_secs().wrapping_mul(1_000_000_000) + u64::from(latency.subsec_nanos());
        self.buckets[bucket_of(nanoseconds)].add(1);
        self.sum.add(nanoseconds);
    }

    pub(super) fn counts(&self) -> Latencies {
        let buckets = array::from_fn(|bucket| self.buckets[bucket].get());
        Latencies { buckets, sum: self.sum.get() }
    }
}

impl Latencies {
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let buckets =
            array::from_fn(|bucket| self.buckets[bucket].saturating_sub(earlier.buckets[bucket]));
        Self { buckets, sum: self.sum.wrapping_sub(earlier.sum) }
    }

    /// The mean; `None` if there is no latency.
    pub(crate) fn mean(&self) -> Option<Duration> {
        let count: u64 = self.buckets.iter().sum();
        self.sum.checked_div(count).map(Duration::from_nanos)
    }

    /// The latency that this share of all does not exceed, rounded up to the end of its bucket; `None` if
    /// there is none.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let count: u64 = self.buckets.iter().sum();
        // The rank of the quantile, from 1 on.
        let rank = ((count as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        self.buckets.iter().enumerate().find_map(|(bucket, &here)| {
            below += here;
            (here > 0 && below >= rank).then(|| Duration::from_nanos(last_of(bucket)))
        })
    }
}

/// The exponent of a number as a float, and the first three bits of its mantissa, are its bucket: the processor
/// finds both in one instruction.
#[inline]
fn bucket_of(nanoseconds: u64) -> usize {
    const ABOVE: u32 = f64::MANTISSA_DIGITS - 1 - SHIFT;
    const FIRST: u64 = (PER_POWER as f64).to_bits() >> ABOVE;
    // One instruction for an i64, several for a u64.
    let nanoseconds = nanoseconds.max(PER_POWER as u64).cast_signed();
    let bucket = ((nanoseconds as f64).to_bits() >> ABOVE) - FIRST;
    (bucket as usize).min(BUCKETS - 1)
}

/// The largest latency of a bucket.
fn last_of(bucket: usize) -> u64 {
    let power = (bucket / PER_POWER) as u32 + SHIFT;
    let width = 1 << (power - SHIFT);
    (1 << power) + (bucket % PER_POWER) as u64 * width + width - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_in_the_bucket_that_ends_less_than_an_eighth_above_it() {
        for nanoseconds in (8..5000).chain((12..36).map(|power| (1 << power) + 12_345)) {
            let last = last_of(bucket_of(nanoseconds));
            assert!(last >= nanoseconds, "{nanoseconds}: {last}");
            assert!(last - nanoseconds <= nanoseconds / 8, "{nanoseconds}: {last}");
        }
        assert_eq!([0, 8, 9].map(bucket_of), [0, 0, 1]);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_and_the_mean_are_those_of_what_was_recorded() {
        let counters = LatencyCounters::default();
        assert_eq!(counters.counts().quantile(0.5), None);
        assert_eq!(counters.counts().mean(), None);
        (1..=100).for_each(|it| counters.record(Duration::from_micros(it)));
        let latencies = counters.counts();
        let near = |share, expected: f64| {
            let found = latencies.quantile(share).unwrap().as_secs_f64() * 1e6;
            assert!((expected..=expected * 1.126).contains(&found), "{share}: {found}");
        };
        near(0.5, 50.0);
        near(0.99, 99.0);
        near(1.0, 100.0);
        assert_eq!(latencies.mean(), Some(Duration::from_nanos(50_500)));
    }
}
