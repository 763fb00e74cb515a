//! Counts and latencies, by thread and by round.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Why a histogram takes any value: [`Histogram::new`] makes one that is resized.
const GROWS: &str = "a histogram that grows takes all values";

/// Latencies in nanoseconds, to three digits.
pub(super) type Latencies = Histogram<u32>;

/// A finished operation of a task.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    /// Bytes read or stored.
    pub(super) bytes: u64,
    /// Of which stored.
    pub(super) stored: u64,
    /// The object was missing and had to be stored: the latency is not recorded.
    pub(super) missed: bool,
}

/// The samples of one thread in one round.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) latencies: Latencies,
    pub(super) ops: u64,
    pub(super) requests: u64,
    pub(super) bytes: u64,
    /// With those of the warm-up.
    pub(super) all_requests: u64,
    /// In bytes, with those of the warm-up.
    pub(super) all_stored: u64,
    elapsed: Duration,
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            latencies: latencies(),
            ops: 0,
            requests: 0,
            bytes: 0,
            all_requests: 0,
            all_stored: 0,
            elapsed: Duration::ZERO,
        }
    }
}

impl Samples {
    /// Records an operation, its latency, and the time since the window began.
    pub(super) fn add(&mut self, done: Done, latency: Duration, elapsed: Duration) {
        self.ops += 1;
        self.bytes += done.bytes;
        self.elapsed = elapsed;
        if !done.missed {
            let nanoseconds = latency.as_nanos().try_into().unwrap_or(u64::MAX);
            self.latencies.record(nanoseconds).expect(GROWS);
        }
    }

    /// The same, of a thread that worked for so long, though its last operation may have ended earlier.
    pub(super) fn lasting(self, elapsed: Duration) -> Self {
        Self { elapsed, ..self }
    }

    fn per_second(&self, count: u64) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }
}

/// The samples of all threads in one round.
#[derive(Debug)]
pub(super) struct Round {
    /// Without those that missed, see [`Done`].
    pub(super) latencies: Latencies,
    pub(super) ops: u64,
    /// With those of the warm-up.
    pub(super) all_requests: u64,
    /// In bytes, with those of the warm-up.
    pub(super) all_stored: u64,
    pub(super) ops_per_second: f64,
    pub(super) requests_per_second: f64,
    pub(super) bytes_per_second: f64,
}

impl Round {
    pub(super) fn of(threads: Vec<Samples>) -> Self {
        let mut round = Self {
            latencies: latencies(),
            ops: 0,
            all_requests: 0,
            all_stored: 0,
            ops_per_second: 0.0,
            requests_per_second: 0.0,
            bytes_per_second: 0.0,
        };
        for samples in threads {
            add(&mut round.latencies, &samples.latencies);
            round.ops += samples.ops;
            round.all_requests += samples.all_requests;
            round.all_stored += samples.all_stored;
            round.ops_per_second += samples.per_second(samples.ops);
            round.requests_per_second += samples.per_second(samples.requests);
            round.bytes_per_second += samples.per_second(samples.bytes);
        }
        round
    }
}

/// The latencies of all rounds.
pub(super) fn merged(rounds: &[Round]) -> Latencies {
    let mut all = latencies();
    rounds.iter().for_each(|round| add(&mut all, &round.latencies));
    all
}

/// The middle one, or the mean of the two in the middle; 0 of nothing.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => 0.0,
        (len, middle) if len % 2 == 1 => values[middle],
        (_, middle) => (values[middle - 1] + values[middle]) / 2.0,
    }
}

fn latencies() -> Latencies {
    Histogram::new(3).expect("three digits are possible")
}

fn add(all: &mut Latencies, some: &Latencies) {
    all.add(some).expect(GROWS);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(latency: u64, elapsed: u64) -> Samples {
        let mut samples = Samples::default();
        let done = Done { bytes: 10, ..Done::default() };
        samples.add(done, Duration::from_millis(latency), Duration::from_secs(elapsed));
        samples
    }

    #[test]
    fn a_round_is_the_sum_of_its_threads() {
        let round = Round::of(vec![samples(1, 1), samples(3, 2), Samples::default()]);
        assert_eq!((round.ops, round.ops_per_second, round.bytes_per_second), (2, 1.5, 15.0));
        assert_eq!(round.latencies.len(), 2);
        let all = merged(&[round, Round::of(vec![samples(2, 1)])]);
        let median = all.value_at_quantile(0.5) as f64 / 1e6;
        assert!((median - 2.0).abs() < 0.01, "{median}");
    }

    #[test]
    fn a_miss_is_counted_but_not_timed() {
        let mut samples = Samples::default();
        let missed = Done { missed: true, ..Done::default() };
        samples.add(missed, Duration::from_secs(1), Duration::from_secs(1));
        assert_eq!((samples.ops, samples.latencies.len()), (1, 0));
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median([]), 0.0);
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
