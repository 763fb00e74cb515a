//! Evictions: a plugin counts them once, and the server has them in its statistics and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, counter};

/// What a plugin counts its evictions by, see [`ServerHandle::eviction_counter`].
///
/// The metrics are `cvmcache_evicted_objects_total` and `cvmcache_evicted_bytes_total`, for the recorder
/// that was current on the thread that made the counter.
///
/// [`ServerHandle::eviction_counter`]: crate::ServerHandle::eviction_counter
#[derive(Debug, Clone)]
pub struct EvictionCounter {
    total: Arc<Evictions>,
    objects: Counter,
    bytes: Counter,
}

/// The evictions of a plugin since its start.
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    objects: AtomicU64,
    bytes: AtomicU64,
}

/// Evictions at one moment, or of a time between two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg(feature = "admin")]
pub(crate) struct Evicted {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

impl EvictionCounter {
    pub(crate) fn new(total: Arc<Evictions>) -> Self {
        Self {
            total,
            objects: counter!("cvmcache_evicted_objects_total"),
            bytes: counter!("cvmcache_evicted_bytes_total"),
        }
    }

    /// Counts objects that were evicted, which took so many bytes together.
    pub fn count(&self, objects: u64, bytes: u64) {
        self.total.objects.fetch_add(objects, Ordering::Relaxed);
        self.total.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.objects.increment(objects);
        self.bytes.increment(bytes);
    }
}

#[cfg(feature = "admin")]
impl Evictions {
    pub(crate) fn get(&self) -> Evicted {
        let [objects, bytes] =
            [&self.objects, &self.bytes].map(|count| count.load(Ordering::Relaxed));
        Evicted { objects, bytes }
    }
}

#[cfg(feature = "admin")]
impl Evicted {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            objects: self.objects.saturating_sub(earlier.objects),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}
