//! What a tier counts, for metrics, the administration socket and the log.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::Mutex;

use crate::cold::{ColdError, Uploaded};
use crate::tier::RecallError;

/// Counters since the start.
#[derive(Debug)]
pub(crate) struct Statistics {
    pub(crate) recalls: Operation,
    pub(crate) uploads: Operation,
    warned: Mutex<Warned>,
}

/// One kind of operation on the store.
#[derive(Debug)]
pub(crate) struct Operation {
    succeeded: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
    metric_succeeded: Counter,
    metric_failed: Counter,
    metric_bytes: Counter,
    metric_seconds: Histogram,
}

#[derive(Debug)]
struct Warned {
    last: Option<Instant>,
    suppressed: u64,
}

/// A store that is away would fill the log.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

impl Statistics {
    pub(crate) fn new() -> Self {
        Self {
            recalls: Operation::new("recall"),
            uploads: Operation::new("upload"),
            warned: Mutex::new(Warned { last: None, suppressed: 0 }),
        }
    }

    pub(crate) fn count_recall(&self, result: &Result<(), RecallError>, len: u64, took: Duration) {
        self.recalls.count(result.is_ok(), len, took);
    }

    pub(crate) fn count_upload(
        &self,
        result: &Result<Uploaded, ColdError>,
        len: u64,
        took: Duration,
    ) {
        self.uploads.count(result.is_ok(), len, took);
    }

    /// Logs a failure, unless one was logged within the last ten seconds; then it is counted.
    pub(crate) fn warn(&self, reason: &dyn Display) {
        let mut warned = self.warned.lock();
        let now = Instant::now();
        if warned.last.is_some_and(|last| now < last + WARN_INTERVAL) {
            warned.suppressed += 1;
            return;
        }
        let suppressed = std::mem::take(&mut warned.suppressed);
        warned.last = Some(now);
        drop(warned);
        match suppressed {
            0 => tracing::warn!("{reason}"),
            _ => tracing::warn!(
                "{reason}; {suppressed} more failures of the store since the last line"
            ),
        }
    }
}

impl Operation {
    fn new(name: &'static str) -> Self {
        let count = |outcome| counter!("cvmcache_store_operations_total", "operation" => name, "outcome" => outcome);
        Self {
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            metric_succeeded: count("ok"),
            metric_failed: count("failed"),
            metric_bytes: counter!("cvmcache_store_bytes_total", "operation" => name),
            metric_seconds: histogram!("cvmcache_store_operation_seconds", "operation" => name),
        }
    }

    fn count(&self, succeeded: bool, bytes: u64, took: Duration) {
        self.metric_seconds.record(took);
        if succeeded {
            self.succeeded.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.metric_succeeded.increment(1);
            self.metric_bytes.increment(bytes);
        } else {
            self.failed.fetch_add(1, Ordering::Relaxed);
            self.metric_failed.increment(1);
        }
    }

    pub(crate) fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
