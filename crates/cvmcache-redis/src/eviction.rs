//! Making room: what `space.rs` decides, done on the server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use cvmcache::plugin::{PluginResult, Status};
use metrics::{Counter, counter};

use crate::keys::Shard;
use crate::link::Failure;
use crate::space::{Admission, Budget, Candidate, Sum, choose};
use crate::store::Store;

impl Store {
    /// Reserves bytes for an upload, and evicts what must go for it.
    pub(crate) async fn reserve(self: &Arc<Self>, bytes: u64) -> PluginResult<()> {
        let (mut in_vain, mut asked) = (0, false);
        loop {
            let admission = self.budget().admit(bytes, Instant::now());
            match admission {
                Admission::Granted => return Ok(()),
                Admission::Ask => {
                    self.sum().await?;
                }
                Admission::Full { lacking } if in_vain < 2 => {
                    self.begin_clean_up();
                    if self.evict(lacking).await? == 0 {
                        in_vain += 1;
                        self.sum().await?;
                    }
                }
                // What was pinned when it was asked may have been closed since.
                Admission::Never if !asked => {
                    asked = true;
                    self.settle().await?;
                    self.sum().await?;
                }
                Admission::Full { .. } | Admission::Never => return Err(Status::NoSpace),
            }
        }
    }

    /// Refuses what would not fit even if everything that is not pinned were evicted.
    pub(crate) async fn could_hold(self: &Arc<Self>, size: u64) -> PluginResult<()> {
        if self.budget().could_hold(size) {
            return Ok(());
        }
        self.settle().await?;
        self.sum().await?;
        if self.budget().could_hold(size) { Ok(()) } else { Err(Status::NoSpace) }
    }

    /// Sees to it that what nobody holds any more is not counted as pinned: what is closed here, and
    /// what instances held that are dead.
    pub(crate) async fn settle(self: &Arc<Self>) -> Result<(), Failure> {
        self.flush().await?;
        let mut shards = self.shards_with_dead().await?;
        // Who had much open is not let go of in one go. The next time goes on.
        for _ in 0..REAP_ROUNDS {
            if shards.is_empty() {
                break;
            }
            let reaped = self.on_shards::<bool>(shards, |scripts, shard| scripts.reap(shard)).await;
            // What a server that takes no changes keeps is counted.
            let Ok(more) = reaped else { break };
            shards = more.into_iter().filter_map(|(shard, more)| more.then_some(shard)).collect();
        }
        Ok(())
    }

    /// The shards in which the lease of an instance has ended.
    async fn shards_with_dead(&self) -> Result<Vec<Shard>, Failure> {
        let now = self.clock.now() / 1000;
        let mut pipeline = redis::pipe();
        for shard in Shard::all() {
            pipeline.cmd("ZCOUNT").arg(self.keys.alive(shard)).arg("-inf").arg(now);
        }
        let dead: Vec<u64> = self.link.pipeline(&pipeline).await?;
        Ok(Shard::all().zip(dead).filter_map(|(shard, dead)| (dead > 0).then_some(shard)).collect())
    }

    /// What all objects take, as the server has it.
    pub(crate) async fn sum(&self) -> Result<Sum, Failure> {
        let mut pipeline = redis::pipe();
        for shard in Shard::all() {
            pipeline.cmd("GETRANGE").arg(self.keys.used(shard)).arg(0).arg(MAX_DIGITS);
            pipeline.cmd("GETRANGE").arg(self.keys.pinned(shard)).arg(0).arg(MAX_DIGITS);
        }
        let answers: Vec<Vec<u8>> = self.link.pipeline(&pipeline).await?;
        let mut sum = Sum::default();
        for shard in answers.chunks(2) {
            let mut numbers = shard.iter().map(|text| number(text));
            sum.used = sum.used.saturating_add(numbers.next().unwrap_or(0));
            sum.pinned = sum.pinned.saturating_add(numbers.next().unwrap_or(0));
        }
        if self.budget().update(sum, Instant::now()) {
            tracing::warn!(
                "more than {} % of the cache is pinned, asking clients to close file catalogs",
                Budget::PINNED_PERCENT
            );
            self.server.ask_detach();
        }
        Ok(sum)
    }

    /// Evicts what was used longest ago, until `bytes` bytes are free or nothing is left that could
    /// be evicted. Returns how many have become free.
    pub(crate) async fn evict(self: &Arc<Self>, bytes: u64) -> Result<u64, Failure> {
        let _alone = self.evicting.lock().await;
        self.flush().await?;
        let (mut freed, mut in_vain, mut limit) = (0u64, 0, FIRST_ROUND);
        while freed < bytes && in_vain < 3 {
            let candidates = self.candidates(limit).await?;
            let chosen = choose(candidates, limit, bytes - freed);
            if chosen.is_empty() {
                break;
            }
            let now_free = self.evict_all(chosen).await?;
            self.budget().evicted(now_free);
            freed = freed.saturating_add(now_free);
            in_vain = if now_free == 0 { in_vain + 1 } else { 0 };
            limit = (2 * limit).min(LAST_ROUND);
        }
        Ok(freed)
    }

    /// Evicts until at most `target` bytes are in use or nothing is left. Returns how many are.
    pub(crate) async fn shrink_step(self: &Arc<Self>, target: u64) -> Result<Shrunk, Failure> {
        self.flush().await?;
        let sum = self.sum().await?;
        let excess = sum.used.saturating_sub(target);
        if excess == 0 {
            return Ok(Shrunk::Done { used: sum.used });
        }
        let freed = self.evict(excess.min(STEP)).await?;
        Ok(if freed == 0 { Shrunk::Done { used: self.sum().await?.used } } else { Shrunk::More })
    }

    /// How many steps of shrinking a cache can need, even if others evict half of what each step has
    /// chosen.
    pub(crate) fn shrink_steps(&self) -> u64 {
        2 * (self.budget().limit() / STEP + 2)
    }

    /// One step of a clean-up in the background. False if there is no more to do.
    pub(crate) async fn clean_up_step(self: &Arc<Self>) -> Result<bool, Failure> {
        self.sum().await?;
        let excess = self.budget().excess();
        Ok(excess > 0 && self.evict(excess.min(STEP)).await? > 0)
    }

    fn begin_clean_up(&self) {
        if self.budget().begin_clean_up() {
            tracing::info!("the cache is full, cleaning up");
            self.full.notify_one();
        }
    }

    async fn candidates(self: &Arc<Self>, limit: usize) -> Result<Vec<Candidate>, Failure> {
        type Told = (bool, Vec<u8>, Vec<u8>, u64);
        let told = self
            .on_shards::<Vec<Told>>(Shard::all(), move |s, shard| s.candidates(shard, limit))
            .await?;
        let of_shard = |(shard, told): (Shard, Vec<Told>)| {
            let candidate =
                move |(volatile, id, used, cost)| Candidate { shard, volatile, id, used, cost };
            told.into_iter().map(candidate)
        };
        Ok(told.into_iter().flat_map(of_shard).collect())
    }

    async fn evict_all(self: &Arc<Self>, chosen: Vec<Candidate>) -> Result<u64, Failure> {
        let mut by_shard: BTreeMap<_, Vec<Candidate>> = BTreeMap::new();
        for candidate in chosen {
            by_shard.entry(candidate.shard).or_default().push(candidate);
        }
        let shards: Vec<_> = by_shard.keys().copied().collect();
        let by_shard = Arc::new(by_shard);
        let told = self.on_shards::<(u64, u64)>(shards, move |scripts, shard| {
            let candidates = by_shard.get(&shard).into_iter().flatten();
            scripts.evict(shard, candidates.map(|c| (c.volatile, &c.id[..], &c.used[..])))
        });
        let (mut gone, mut freed) = (0, 0u64);
        for (_, (objects, bytes)) in told.await? {
            gone += objects;
            freed = freed.saturating_add(bytes);
        }
        self.evicted.objects.increment(gone);
        self.evicted.bytes.increment(freed);
        Ok(freed)
    }
}

/// What has gone to make room, for the metrics of this process.
pub(crate) struct Evicted {
    objects: Counter,
    bytes: Counter,
}

impl Evicted {
    /// Counts for the recorder that is the current one on this thread.
    pub(crate) fn new() -> Self {
        Self {
            objects: counter!("cvmcache_evicted_objects_total"),
            bytes: counter!("cvmcache_evicted_bytes_total"),
        }
    }
}

/// What came of a step of shrinking.
pub(crate) enum Shrunk {
    Done { used: u64 },
    More,
}

/// How many objects of each kind each shard tells in the first round and in the last ones.
const FIRST_ROUND: usize = 4;
const LAST_ROUND: usize = 64;

/// How many times a hundred objects of a shard are let go of for one request.
const REAP_ROUNDS: usize = 32;

/// How many bytes are evicted in one go, so that others who evict get their turn.
const STEP: u64 = 64 * 1024 * 1024;

/// The digits of a number that is no larger than any sum. More would be somebody's mischief.
const MAX_DIGITS: u64 = 18;

/// A number on the server; accounts that went wrong may be below zero for a while.
fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
