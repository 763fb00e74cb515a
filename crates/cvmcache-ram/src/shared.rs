//! The store behind its lock, shared by the plugin, its uploads and its listings.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cvmcache::ServerHandle;
use metrics::{Counter, counter};

use crate::size::percent_of;
use crate::store::{Chores, Store};

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

    /// Does something with the store. What takes long and does not need the lock, such as freeing
    /// the memory of evicted objects, is done after it has been released.
    pub(crate) fn locked<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        let (result, chores) = {
            let mut store = lock(&self.store);
            (work(&mut store), store.take_chores())
        };
        self.do_chores(chores);
        result
    }

    fn do_chores(&self, chores: Chores) {
        let Chores { evicted, clean_up, ask_detach } = chores;
        if !evicted.is_empty() {
            self.evicted_objects.increment(evicted.len() as u64);
            self.evicted_bytes.increment(evicted.iter().map(|object| Store::cost(object)).sum());
        }
        drop(evicted);
        if clean_up {
            let target = percent_of(self.size, Store::CLEAN_UP_TO_PERCENT);
            tracing::info!("the cache is full, cleaning up until {target} bytes are used");
        }
        if ask_detach {
            tracing::warn!(
                "more than {} % of the cache is pinned, asking clients to close file catalogs",
                Store::PINNED_PERCENT
            );
            self.handle.ask_detach();
        }
    }
}

/// Locks, even if somebody panicked while holding the lock: the SDK answers a panic and goes on,
/// and so must the plugin. Nothing here panics between two changes that belong together.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
