//! Eviction: admission of uploads, shrinking, and clean-ups in the background. What fits is decided in
//! `capacity.rs`, which object goes first in `order.rs`; neither does any I/O.
//!
//! Workers and the clean-up task evict. `evicting` makes that one at a time, so that they do not choose the
//! same objects; other instances may do so, and `evict.lua` skips what was used or removed since it was
//! chosen. Locks: `evicting` is taken before those of the leases; `capacity` is never held across an
//! `await`, nor together with another.

mod order;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cvmcache::plugin::{CacheInfo, PluginResult, Status};
use cvmcache::{EvictionCounter, ServerHandle, Watermarks};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::backend::{Backend, Freed};
use crate::capacity::{Admission, Capacity, Usage};
use crate::client::Failure;
use crate::leases::Leases;

/// Makes room.
pub(crate) struct Evictor {
    backend: Arc<Backend>,
    leases: Arc<Leases>,
    capacity: Mutex<Capacity>,
    /// Held by the task that evicts.
    evicting: tokio::sync::Mutex<()>,
    /// A clean-up is due.
    full: Notify,
    evicted: EvictionCounters,
    /// By which clients are asked to detach.
    server: ServerHandle,
}

/// How many objects of each kind are requested from each shard, in the first round and in the last ones.
const FIRST_ROUND: usize = 4;
const LAST_ROUND: usize = 64;

/// How many rounds that free nothing end an eviction: others evict what was chosen.
const FUTILE_ROUNDS: usize = 3;

/// How many bytes are evicted before another task gets its turn.
const STEP: u64 = 64 * 1024 * 1024;

/// The pause between two requests for the usage of a server that is away.
const RETRY: Duration = Duration::from_secs(1);

impl Evictor {
    pub(crate) fn new(
        backend: Arc<Backend>,
        leases: Arc<Leases>,
        limit: u64,
        server: ServerHandle,
    ) -> Self {
        Self {
            backend,
            leases,
            capacity: Mutex::new(Capacity::new(limit)),
            evicting: tokio::sync::Mutex::new(()),
            full: Notify::new(),
            evicted: EvictionCounters::new(&server),
            server,
        }
    }

    /// Reserves bytes for an upload, and evicts what must go for it.
    pub(crate) async fn reserve(&self, bytes: u64) -> PluginResult<()> {
        let (mut futile, mut is_settled) = (0, false);
        loop {
            let admission = self.capacity.lock().admit(bytes, Instant::now());
            match admission {
                Admission::Granted => return Ok(()),
                Admission::Refresh => {
                    self.refresh().await?;
                }
                Admission::Evict { lacking } if futile < 2 => {
                    self.begin_clean_up();
                    if self.evict(lacking).await? == 0 {
                        futile += 1;
                        self.refresh().await?;
                    }
                }
                // What was pinned at the last refresh may have been closed since.
                Admission::TooLarge if !is_settled => {
                    is_settled = true;
                    self.leases.settle().await?;
                    self.refresh().await?;
                }
                Admission::Evict { .. } | Admission::TooLarge => return Err(Status::NoSpace),
            }
        }
    }

    /// Gives back what was reserved.
    pub(crate) fn unreserve(&self, bytes: u64) {
        self.capacity.lock().release(bytes);
    }

    /// An object has taken over what was reserved.
    pub(crate) fn stored(&self, bytes: u64) {
        self.capacity.lock().stored(bytes);
    }

    /// Refuses what would not fit even if everything that is not pinned were evicted.
    pub(crate) async fn check_fits(&self, size: u64) -> PluginResult<()> {
        if self.capacity.lock().could_hold(size) {
            return Ok(());
        }
        self.leases.settle().await?;
        self.refresh().await?;
        if self.capacity.lock().could_hold(size) { Ok(()) } else { Err(Status::NoSpace) }
    }

    pub(crate) async fn info(&self) -> Result<CacheInfo, Failure> {
        self.leases.settle().await?;
        let usage = self.refresh().await?;
        Ok(self.capacity.lock().info(usage))
    }

    /// Fetches the usage of all shards. Asks clients to detach when much of it is pinned.
    async fn refresh(&self) -> Result<Usage, Failure> {
        let usage = self.backend.usage().await?;
        let ask_detach = self.capacity.lock().update(usage, Instant::now());
        if ask_detach {
            tracing::warn!(
                "more than {} % of the cache is pinned, asking clients to detach",
                Watermarks::PINNED_HIGH_PERCENT
            );
            self.server.ask_detach();
        }
        Ok(usage)
    }

    /// Evicts the least recently used objects until `bytes` bytes are free, or nothing is left that can
    /// be evicted. Returns how many have become free.
    pub(crate) async fn evict(&self, bytes: u64) -> Result<u64, Failure> {
        let _evicting = self.evicting.lock().await;
        self.leases.flush().await?;
        let (mut freed, mut futile, mut limit) = (0u64, 0, FIRST_ROUND);
        while freed < bytes && futile < FUTILE_ROUNDS {
            let candidates = self.backend.eviction_candidates(limit).await?;
            let chosen = order::choose(candidates, limit, bytes - freed);
            if chosen.is_empty() {
                break;
            }
            let round = self.backend.evict(chosen).await?;
            self.evicted.count(round);
            self.capacity.lock().evicted(round.bytes);
            freed = freed.saturating_add(round.bytes);
            futile = if round.bytes == 0 { futile + 1 } else { 0 };
            limit = (2 * limit).min(LAST_ROUND);
        }
        Ok(freed)
    }

    /// Evicts until at most `target` bytes are in use, or nothing is left that can be evicted. Returns
    /// how many are. Blocks, for the deadline of a request in each step.
    ///
    /// What others store between two steps could keep this going for ever, so that it ends after as many
    /// steps as a cache of this size can need, even if others evict half of what each step has chosen.
    pub(crate) fn shrink(&self, target: u64) -> Result<u64, Failure> {
        let mut is_counted = false;
        for _ in 0..2 * (self.limit() / STEP + 2) {
            match self.backend.wait(self.shrink_step(target))? {
                Shrunk::Done { used } => return Ok(used),
                Shrunk::More => {
                    if !is_counted {
                        self.capacity.lock().count_clean_up();
                    }
                    is_counted = true;
                }
            }
        }
        Ok(self.backend.wait(self.refresh())?.used)
    }

    async fn shrink_step(&self, target: u64) -> Result<Shrunk, Failure> {
        self.leases.flush().await?;
        let usage = self.refresh().await?;
        let excess = usage.used.saturating_sub(target);
        if excess == 0 {
            return Ok(Shrunk::Done { used: usage.used });
        }
        let freed = self.evict(excess.min(STEP)).await?;
        Ok(if freed == 0 {
            Shrunk::Done { used: self.refresh().await?.used }
        } else {
            Shrunk::More
        })
    }

    /// Sets what the server can hold, if that is known, and evicts in the background what is more.
    pub(crate) fn set_ceiling(&self, ceiling: Option<u64>) {
        let is_over = self.capacity.lock().set_ceiling(ceiling);
        if is_over {
            self.begin_clean_up();
        }
    }

    /// The server has dropped keys of an upload: it was out of memory and evicted by itself what expires.
    /// Evicts so much that this does not happen to the next uploads.
    pub(crate) async fn relieve(&self, bytes: u64) -> Result<(), Failure> {
        let usage = self.refresh().await?;
        self.evict((bytes + usage.used / 10).min(STEP)).await.map(|_| ())
    }

    /// Evicts what is more than the limit when the plugin starts, for which it would otherwise wait for the next
    /// upload.
    async fn evict_excess(&self) -> Result<(), Failure> {
        let usage = self.refresh().await?;
        let (is_over, limit) = {
            let capacity = self.capacity.lock();
            (capacity.is_over(), capacity.limit())
        };
        if is_over {
            tracing::warn!(
                used = usage.used,
                limit,
                "more is in use than this plugin may use: evicting. All plugins that share a server \
                 need the same size"
            );
            self.begin_clean_up();
        }
        Ok(())
    }

    pub(crate) fn state(&self) -> EvictorState {
        let evicted = *self.evicted.total.lock();
        let capacity = self.capacity.lock();
        EvictorState {
            limit: capacity.limit(),
            uploading: capacity.uploading(),
            evicted,
            clean_ups: capacity.clean_ups(),
        }
    }

    fn limit(&self) -> u64 {
        self.capacity.lock().limit()
    }

    fn begin_clean_up(&self) {
        if self.capacity.lock().begin_clean_up() {
            tracing::info!("the cache is full, cleaning up");
            self.full.notify_one();
        }
    }

    /// One step of a clean-up. False if there is no more to do.
    async fn clean_up_step(&self) -> Result<bool, Failure> {
        self.refresh().await?;
        let excess = self.capacity.lock().excess();
        Ok(excess > 0 && self.evict(excess.min(STEP)).await? > 0)
    }
}

/// What came of a step of shrinking.
enum Shrunk {
    Done { used: u64 },
    More,
}

/// What this instance has evicted since its start, here and for its server.
struct EvictionCounters {
    total: Mutex<Freed>,
    counter: EvictionCounter,
}

/// What the evictor does and has done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EvictorState {
    /// `SIZE`, or what the server can hold if that is less.
    pub(crate) limit: u64,
    pub(crate) uploading: u64,
    pub(crate) evicted: Freed,
    pub(crate) clean_ups: u64,
}

impl EvictionCounters {
    fn new(server: &ServerHandle) -> Self {
        Self { total: Mutex::default(), counter: server.eviction_counter() }
    }

    fn count(&self, freed: Freed) {
        let mut total = self.total.lock();
        total.objects = total.objects.saturating_add(freed.objects);
        total.bytes = total.bytes.saturating_add(freed.bytes);
        self.counter.count(freed.objects, freed.bytes);
    }
}

/// Evicts in the background, when uploads had to wait for an eviction.
pub(crate) async fn clean_up(evictor: Arc<Evictor>) {
    while let Err(error) = evictor.evict_excess().await {
        tracing::debug!(%error, "the usage is not known yet");
        sleep(RETRY).await;
    }
    loop {
        evictor.full.notified().await;
        loop {
            match evictor.clean_up_step().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "cannot clean up");
                    break;
                }
            }
        }
        evictor.capacity.lock().end_clean_up();
    }
}
