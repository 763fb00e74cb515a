//! Statistics of requests: counters that the I/O thread writes and any thread reads, whether metrics are
//! served or not.
//!
//! Invariant: the I/O thread alone writes, so an increment is a load and a store without a locked
//! instruction. A reader takes no lock either, and the I/O thread never waits for one; counters that
//! belong together may be a request apart.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cvmcache_proto::Status;

use super::latency::{Latencies, LatencyCounters};
use super::request_record::{Answered, Kind, Transfer};
#[cfg(feature = "admin")]
use crate::evictions::Evicted;

/// Success, and every status.
pub(crate) const RESULTS: usize = Status::ALL.len() + 1;

/// A counter or gauge that one thread writes.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a server has counted since it started.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    kinds: [KindCounters; Kind::COUNT],
    read_bytes: Count,
    stored_bytes: Count,
    stored_objects: Count,
    connections: Count,
}

#[derive(Debug, Default)]
struct KindCounters {
    /// By the number of the status on the wire.
    by_result: [Count; RESULTS],
    latency: LatencyCounters,
}

/// The statistics at one moment, or of a time between two.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    pub(crate) kinds: [KindCounts; Kind::COUNT],
    pub(crate) read_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) stored_objects: u64,
    pub(crate) connections: u64,
    /// `None` if the plugin does not count them.
    #[cfg(feature = "admin")]
    pub(crate) evicted: Option<Evicted>,
}

/// The requests of one kind.
#[derive(Debug, Clone)]
pub(crate) struct KindCounts {
    by_result: [u64; RESULTS],
    pub(crate) latency: Latencies,
}

impl Statistics {
    /// Counts a request, and how long it took from when it was received until its reply was queued.
    #[inline]
    pub(crate) fn record(&self, answered: Answered, latency: Duration) {
        let of_kind = &self.kinds[answered.kind.index()];
        of_kind.by_result[Status::to_wire(answered.result) as usize].add(1);
        of_kind.latency.record(latency);
        match answered.transfer() {
            None => {}
            Some(Transfer::Read { bytes }) => self.read_bytes.add(bytes),
            Some(Transfer::Stored { bytes, is_last_part }) => {
                self.stored_bytes.add(bytes);
                self.stored_objects.add(is_last_part.into());
            }
        }
    }

    /// Counts a connection that was accepted.
    pub(crate) fn connected(&self) {
        self.connections.add(1);
    }

    /// What has been counted so far.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            kinds: array::from_fn(|kind| self.kinds[kind].counts()),
            read_bytes: self.read_bytes.get(),
            stored_bytes: self.stored_bytes.get(),
            stored_objects: self.stored_objects.get(),
            connections: self.connections.get(),
            #[cfg(feature = "admin")]
            evicted: None,
        }
    }
}

impl KindCounters {
    fn counts(&self) -> KindCounts {
        let by_result = array::from_fn(|result| self.by_result[result].get());
        KindCounts { by_result, latency: self.latency.counts() }
    }
}

impl Counts {
    /// Nothing.
    pub(crate) fn zero() -> Self {
        Statistics::default().counts()
    }

    /// What was counted since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            kinds: array::from_fn(|kind| self.kinds[kind].since(&earlier.kinds[kind])),
            read_bytes: self.read_bytes.saturating_sub(earlier.read_bytes),
            stored_bytes: self.stored_bytes.saturating_sub(earlier.stored_bytes),
            stored_objects: self.stored_objects.saturating_sub(earlier.stored_objects),
            connections: self.connections.saturating_sub(earlier.connections),
            #[cfg(feature = "admin")]
            evicted: self.evicted.map(|it| it.since(earlier.evicted.unwrap_or_default())),
        }
    }

    /// Objects that were opened and there.
    pub(crate) fn hits(&self) -> u64 {
        self.opened(Ok(()))
    }

    /// Objects that were to be opened and missing.
    pub(crate) fn misses(&self) -> u64 {
        self.opened(Err(Status::NoEntry))
    }

    fn opened(&self, result: Result<(), Status>) -> u64 {
        self.kinds[Kind::OPEN.index()].of(result)
    }

    /// The kinds that have requests, with their names.
    pub(crate) fn by_kind(&self) -> impl Iterator<Item = (&'static str, &KindCounts)> {
        let names = Kind::all().map(Kind::name);
        names.into_iter().zip(&self.kinds).filter(|(_, counts)| counts.requests() > 0)
    }
}

impl KindCounts {
    fn since(&self, earlier: &Self) -> Self {
        let by_result = array::from_fn(|result| {
            self.by_result[result].saturating_sub(earlier.by_result[result])
        });
        Self { by_result, latency: self.latency.since(&earlier.latency) }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.by_result.iter().sum()
    }

    /// How many requests had this result.
    pub(crate) fn of(&self, result: Result<(), Status>) -> u64 {
        self.by_result[Status::to_wire(result) as usize]
    }

    /// The results that were there, by their names in metrics, with how often.
    pub(crate) fn by_status(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let results = [Ok(())].into_iter().chain(Status::ALL.map(Err));
        results.map(|result| (Status::label(result), self.of(result))).filter(|(_, n)| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use cvmcache_proto::OperationKind;

    use super::*;

    fn answered(kind: OperationKind, result: Result<(), Status>) -> Answered {
        let kind = Kind::of(kind);
        Answered { kind, result, bytes: 7, is_last_part: true }
    }

    #[test]
    fn an_upload_whose_last_part_is_empty_is_an_object() {
        let statistics = Statistics::default();
        let part = Answered { bytes: 0, ..answered(OperationKind::Store, Ok(())) };
        statistics.record(part, Duration::ZERO);
        assert_eq!(statistics.counts().stored_objects, 1);
    }

    #[test]
    fn hits_misses_and_bytes_follow_from_requests() {
        let statistics = Statistics::default();
        for (kind, result) in [
            (OperationKind::Open, Ok(())),
            (OperationKind::Open, Ok(())),
            (OperationKind::Open, Err(Status::NoEntry)),
            (OperationKind::Open, Err(Status::IoErr)),
            (OperationKind::Read, Ok(())),
            (OperationKind::Read, Err(Status::NoEntry)),
            (OperationKind::Store, Ok(())),
            (OperationKind::Store, Err(Status::NoSpace)),
        ] {
            statistics.record(answered(kind, result), Duration::from_micros(3));
        }
        let counts = statistics.counts();
        assert_eq!((counts.hits(), counts.misses()), (2, 1));
        assert_eq!((counts.read_bytes, counts.stored_bytes, counts.stored_objects), (7, 7, 1));
        let (name, open) = counts.by_kind().next().unwrap();
        assert_eq!((name, open.requests()), ("open", 4));
        let statuses: Vec<_> = open.by_status().collect();
        assert_eq!(statuses.len(), 3);
        assert_eq!(statuses[0], ("OK", 2));
    }

    #[test]
    fn counts_of_a_time_are_the_difference_of_two() {
        let statistics = Statistics::default();
        let hit = answered(OperationKind::Open, Ok(()));
        statistics.record(hit, Duration::ZERO);
        let earlier = statistics.counts();
        statistics.record(hit, Duration::ZERO);
        assert_eq!(statistics.counts().since(&earlier).hits(), 1);
        assert_eq!(earlier.since(&Counts::zero()).hits(), 1);
    }
}
