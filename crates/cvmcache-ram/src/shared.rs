//! The store behind its lock and the arena, shared by the plugin, its uploads and its listings.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cvmcache::plugin::{PluginResult, Status};
use cvmcache::{EvictionCounter, ServerHandle, Watermarks};
use parking_lot::Mutex;

use crate::arena::{Arena, Extents, Pages};
use crate::store::{Deferred, Store};

/// The lock is not poisoned by a panic, since the SDK answers a panic and the plugin goes on.
///
/// Invariant: nothing panics between two changes to the store that belong together. No other lock is
/// taken while this one is held.
#[derive(Debug)]
pub(crate) struct Shared {
    size: u64,
    store: Mutex<Store>,
    arena: Arc<Arena>,
    /// The most that was ever in use outside of the arena, for what finds objects. The allocator keeps
    /// what was freed, so that is what it still takes.
    heap_peak: AtomicU64,
    handle: ServerHandle,
    /// How many uploads were refused because nothing could make room for them.
    refused: AtomicU64,
    evictions: EvictionCounter,
}

impl Shared {
    /// How often room is made for one allocation, by a batch of objects: a few milliseconds.
    const ROUNDS: usize = 64;

    pub(crate) fn new(size: u64, handle: ServerHandle) -> io::Result<Self> {
        let len = usize::try_from(with_slack(size)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            size,
            store: Mutex::new(Store::new(size)),
            arena: Arena::new(len)?,
            heap_peak: AtomicU64::new(0),
            evictions: handle.eviction_counter(),
            handle,
            refused: AtomicU64::new(0),
        })
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

    /// Memory for `len` bytes that have been reserved in the store. If what is free is in pieces that are
    /// too short, room is made.
    pub(crate) fn allocate(&self, len: usize) -> PluginResult<Extents> {
        for _ in 0..Self::ROUNDS {
            if let Some(extents) = self.arena.allocate(len, self.max_resident()) {
                return Ok(extents);
            }
            if self.locked(Store::evict_for_room) == 0 {
                break;
            }
        }
        Err(Status::NoSpace)
    }

    /// What the pages of the arena are used for.
    pub(crate) fn pages(&self) -> Pages {
        self.arena.pages()
    }

    /// Counts an upload that ends with this status, if it was refused for lack of space.
    pub(crate) fn count_refusal(&self, status: Status) {
        if status == Status::NoSpace {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many uploads were refused for lack of space.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Gives memory back to the system that is not in use.
    pub(crate) fn trim(&self) {
        self.arena.trim();
        #[cfg(target_env = "gnu")]
        {
            // SAFETY: it has no preconditions.
            #[allow(unsafe_code)]
            unsafe {
                libc::malloc_trim(0);
            }
            self.heap_peak.store(self.heap(), Ordering::Relaxed);
        }
    }

    /// How many bytes of the arena may be resident, so that with all else a little more than the size is.
    fn max_resident(&self) -> u64 {
        let heap = self.heap();
        let peak = self.heap_peak.fetch_max(heap, Ordering::Relaxed).max(heap);
        with_slack(self.size).saturating_sub(peak)
    }

    /// What is in use outside of the arena.
    fn heap(&self) -> u64 {
        let occupied = self.store.lock().occupied();
        occupied.saturating_sub(self.arena.allocated())
    }

    fn run_deferred(&self, deferred: Deferred) {
        let Deferred { evicted, evicted_bytes, clean_up, ask_detach } = deferred;
        if !evicted.is_empty() {
            self.evictions.count(evicted.len() as u64, evicted_bytes);
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

/// What a cache of `size` bytes may take with what is free in pages that are in use, and with replies that
/// clients have not taken of objects that have been evicted.
fn with_slack(size: u64) -> u64 {
    size.saturating_add(size / 16).saturating_add(4 * 1024 * 1024)
}
