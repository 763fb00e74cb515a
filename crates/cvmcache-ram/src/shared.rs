//! The store behind its lock, shared by the plugin, its uploads and its listings.

use cvmcache::{ServerHandle, Watermarks};
use metrics::{Counter, counter};
use parking_lot::Mutex;

use crate::store::{Deferred, Store};

/// The lock is not poisoned by a panic, since the SDK answers a panic and the plugin goes on.
///
/// Invariant: nothing panics between two changes to the store that belong together. No other lock is
/// taken while this one is held.
#[derive(Debug)]
pub(crate) struct Shared {
    size: u64,
    store: Mutex<Store>,
    handle: ServerHandle,
    evicted_objects: Counter,
    evicted_bytes: Counter,
}

impl Shared {
    pub(crate) fn new(size: u64, handle: ServerHandle) -> Self {
        Self {
            size,
            store: Mutex::new(Store::new(size)),
            handle,
            evicted_objects: counter!("cvmcache_evicted_objects_total"),
            evicted_bytes: counter!("cvmcache_evicted_bytes_total"),
        }
    }

    /// Runs `work` under the lock. What takes long and does not need the lock, such as freeing the
    /// memory of evicted objects, is deferred until it is released.
    pub(crate) fn locked<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        let (result, deferred) = {
            let mut store = self.store.lock();
            (work(&mut store), store.take_deferred())
        };
        self.run_deferred(deferred);
        result
    }

    fn run_deferred(&self, deferred: Deferred) {
        let Deferred { evicted, clean_up, ask_detach } = deferred;
        if !evicted.is_empty() {
            self.evicted_objects.increment(evicted.len() as u64);
            self.evicted_bytes.increment(evicted.iter().map(|object| Store::cost(object)).sum());
        }
        drop(evicted);
        if clean_up {
            let target = Watermarks::new(self.size).low();
            tracing::info!("the cache is full, cleaning up until {target} bytes are used");
        }
        if ask_detach {
            tracing::warn!(
                "more than {} % of the cache is pinned, asking clients to close file catalogs",
                Watermarks::PINNED_HIGH_PERCENT
            );
            self.handle.ask_detach();
        }
    }
}
