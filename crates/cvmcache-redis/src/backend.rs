//! The objects on the server: all scripts and commands for them. An instance's own view of them, which
//! sessions have them open and how much space is left, is in `leases.rs` and `capacity.rs`.
//!
//! The keys of a shard change only in scripts, which the server runs one at a time, so that an object,
//! its indexes, its pins and the counters of its shard agree after each of them. Nothing is atomic over
//! shards, nor over two scripts: whatever depends on an earlier reply is checked again by the script
//! (`evict.lua`: the time of use; `drop.lua`: the metadata).

pub(crate) mod breadcrumbs;
mod instances;
pub(crate) mod membership;
mod segments;

pub(crate) use instances::InstanceLease;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cvmcache::plugin::{ObjectId, ObjectType};
use redis::FromRedisValue;
use tokio::task::JoinSet;

use crate::capacity::Usage;
use crate::client::{Failure, RedisClient, ScriptCall, Traits};
use crate::config::Config;
use crate::integrity::Authenticator;
use crate::keys::{Keys, Shard};
use crate::metadata::ObjectMetadata;
use crate::scripts::{Candidate, CommitCall, Instance, Scripts};

/// The server, and what this instance needs to read and write objects there.
pub(crate) struct Backend {
    client: RedisClient,
    keys: Keys,
    scripts: Scripts,
    authenticator: Authenticator,
    instance: Instance,
    /// How many objects the sets of all repositories have at most.
    max_members: u64,
}

/// What came of a commit.
pub(crate) enum Committed {
    /// The object is that of the upload.
    New(Arc<ObjectMetadata>),
    /// The object was there already, and is kept.
    Existing(Arc<ObjectMetadata>),
    /// An object was there that did not verify. It has been dropped, and nothing is committed.
    Untrusted,
    /// Segments of the upload have expired, and nothing is committed.
    Expired,
}

/// An object of a listing.
pub(crate) struct ListedObject {
    pub(crate) id: ObjectId,
    pub(crate) metadata: ObjectMetadata,
    pub(crate) pinned: bool,
}

/// What an eviction has freed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Freed {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// Reads of a counter of every shard.
const USAGE_TRAITS: Traits = Traits::REPEATABLE.with_reply(512 * 16);

/// What is read of a counter: the digits of a number that is no larger than any sum of costs.
const MAX_DIGITS: u64 = 18;

impl Backend {
    pub(crate) fn new(config: &Config, client: RedisClient) -> Self {
        let keys = Keys::new(&config.prefix);
        Self {
            client,
            scripts: Scripts::new(keys.clone()),
            keys,
            authenticator: Authenticator::new(config.secret.as_deref()),
            instance: Instance {
                id: format!("{:032x}", fastrand::u128(..)),
                lease: u64::try_from(config.lease.as_millis()).unwrap_or(u64::MAX),
            },
            max_members: config.size / membership::BYTES_PER_MEMBER,
        }
    }

    /// Blocks on `work` until the deadline of a request.
    pub(crate) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.client.wait(work)
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.client.spawn(task);
    }

    pub(crate) fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// The time of the server's clock.
    pub(crate) async fn time(&self) -> Result<Duration, Failure> {
        let (seconds, micros): (u64, u32) =
            self.client.command(Traits::REPEATABLE, &redis::cmd("TIME")).await?;
        let micros = Duration::from_micros(micros.into());
        Ok(Duration::from_secs(seconds).saturating_add(micros))
    }

    /// The metadata of an object; `None` if there is none that verifies.
    pub(crate) async fn fetch_metadata(
        &self,
        id: &ObjectId,
    ) -> Result<Option<Arc<ObjectMetadata>>, Failure> {
        let call = self.scripts.fetch_metadata(Shard::of(id), &id.to_string());
        let stored = self.client.script(&call).await?;
        self.verify(id, stored).await
    }

    /// Pins an object for this instance and returns its metadata; `None` as for
    /// [`fetch_metadata`](Self::fetch_metadata). Idempotent.
    pub(crate) async fn pin(&self, id: &ObjectId) -> Result<Option<Arc<ObjectMetadata>>, Failure> {
        let call = self.scripts.pin(&self.instance, Shard::of(id), &id.to_string());
        let stored = self.client.script(&call).await?;
        self.verify(id, stored).await
    }

    /// Decodes what is stored, and drops an object whose metadata does not verify.
    async fn verify(
        &self,
        id: &ObjectId,
        stored: Option<Vec<u8>>,
    ) -> Result<Option<Arc<ObjectMetadata>>, Failure> {
        let Some(stored) = stored else { return Ok(None) };
        let metadata = ObjectMetadata::decode(id, &self.authenticator, &stored);
        if metadata.is_none() {
            let reason = self.authenticator.mismatch_reason(&stored);
            tracing::warn!(%id, %reason, "dropping an object that does not verify");
            self.drop_stored(id, &stored).await?;
        }
        Ok(metadata.map(Arc::new))
    }

    /// Drops an object whose data does not verify, or is gone, unless another has taken its place.
    pub(crate) async fn drop_object(
        &self,
        id: &ObjectId,
        metadata: &ObjectMetadata,
    ) -> Result<(), Failure> {
        self.drop_stored(id, &metadata.encode(id, &self.authenticator)).await
    }

    async fn drop_stored(&self, id: &ObjectId, seen: &[u8]) -> Result<(), Failure> {
        let call = self.scripts.drop(Shard::of(id), &id.to_string(), seen);
        self.client.script(&call).await
    }

    /// Makes an object of uploaded segments and the last one, and pins it.
    pub(crate) async fn commit(
        &self,
        id: &ObjectId,
        call: &CommitCall<'_>,
    ) -> Result<Committed, Failure> {
        let call = self.scripts.commit(&self.instance, Shard::of(id), &id.to_string(), call);
        let (is_new, stored): (i64, Vec<u8>) = self.client.script(&call).await?;
        if is_new < 0 {
            return Ok(Committed::Expired);
        }
        Ok(match self.verify(id, Some(stored)).await? {
            None => Committed::Untrusted,
            Some(metadata) if is_new > 0 => Committed::New(metadata),
            Some(metadata) => Committed::Existing(metadata),
        })
    }

    /// The cursor of the next page, and some of the objects of a type in a shard. Objects that do not
    /// verify are left out.
    pub(crate) async fn list_objects(
        &self,
        shard: Shard,
        object_type: ObjectType,
        cursor: u64,
    ) -> Result<(u64, Vec<ListedObject>), Failure> {
        type Listed = (Vec<u8>, Vec<u8>, bool);
        let call = self.scripts.list_objects(shard, object_type.to_wire(), cursor);
        let (next, listed): (u64, Vec<Listed>) = self.client.script(&call).await?;
        let objects = listed.into_iter().filter_map(|(name, metadata, pinned)| {
            let id = parse_id(&name)?;
            let metadata = ObjectMetadata::decode(&id, &self.authenticator, &metadata)?;
            Some(ListedObject { id, metadata, pinned })
        });
        Ok((next, objects.collect()))
    }

    /// Releases objects that this instance has pinned, with the times of their last use.
    pub(crate) async fn release(
        self: &Arc<Self>,
        objects: &[(ObjectId, u64)],
    ) -> Result<(), Failure> {
        let by_shard = Arc::new(group(objects.iter().copied(), |(id, _)| Shard::of(id)));
        let shards: Vec<_> = by_shard.keys().copied().collect();
        let released = self.on_shards::<()>(shards, move |backend, shard| {
            let objects = by_shard.get(&shard).into_iter().flatten();
            let objects = objects.map(|(id, used)| (id.to_string(), *used));
            backend.scripts.release(&backend.instance, shard, objects)
        });
        released.await.map(|_| ())
    }

    /// Renews the lease of this instance. Returns how many objects it has pinned in each shard, or -1
    /// if its lease there has expired.
    pub(crate) async fn renew(
        self: &Arc<Self>,
        shards: Vec<Shard>,
    ) -> Result<Vec<(Shard, i64)>, Failure> {
        self.on_shards(shards, |backend, shard| backend.scripts.renew(&backend.instance, shard))
            .await
    }

    /// Ends the lease of this instance. Returns the shards in which more is left to be released.
    pub(crate) async fn end_lease(
        self: &Arc<Self>,
        shards: Vec<Shard>,
    ) -> Result<Vec<Shard>, Failure> {
        let more = self.on_shards(shards, |backend, shard| {
            backend.scripts.end_lease(&backend.instance, shard)
        });
        Ok(shards_with_more(more.await?))
    }

    /// Some of the objects that this instance has pinned in a shard, and the next cursor.
    pub(crate) async fn list_pins(
        &self,
        shard: Shard,
        cursor: u64,
    ) -> Result<(u64, Vec<ObjectId>), Failure> {
        let call = self.scripts.list_pins(&self.instance, shard, cursor);
        let (next, names): (u64, Vec<Vec<u8>>) = self.client.script(&call).await?;
        Ok((next, names.iter().filter_map(|name| parse_id(name)).collect()))
    }

    /// The shards in which the lease of some instance has expired, at this time in milliseconds.
    pub(crate) async fn expired_leases(&self, now: u64) -> Result<Vec<Shard>, Failure> {
        let mut pipeline = redis::pipe();
        for shard in Shard::all() {
            pipeline.cmd("ZCOUNT").arg(self.keys.alive(shard)).arg("-inf").arg(now);
        }
        let expired: Vec<u64> = self.client.pipeline(USAGE_TRAITS, &pipeline).await?;
        let expired = Shard::all().zip(expired).filter(|(_, leases)| *leases > 0);
        Ok(expired.map(|(shard, _)| shard).collect())
    }

    /// Releases some of what instances with expired leases had pinned. Returns the shards in which there
    /// may be more of it.
    pub(crate) async fn reap(self: &Arc<Self>, shards: Vec<Shard>) -> Result<Vec<Shard>, Failure> {
        let more = self.on_shards(shards, |backend, shard| backend.scripts.reap(shard));
        Ok(shards_with_more(more.await?))
    }

    /// The sum of the counters of all shards.
    pub(crate) async fn usage(&self) -> Result<Usage, Failure> {
        let mut pipeline = redis::pipe();
        for shard in Shard::all() {
            pipeline.cmd("GETRANGE").arg(self.keys.used(shard)).arg(0).arg(MAX_DIGITS);
            pipeline.cmd("GETRANGE").arg(self.keys.pinned(shard)).arg(0).arg(MAX_DIGITS);
        }
        let replies: Vec<Vec<u8>> = self.client.pipeline(USAGE_TRAITS, &pipeline).await?;
        let mut sum = Usage::default();
        for shard in replies.chunks(2) {
            let mut numbers = shard.iter().map(|text| number(text));
            sum.used = sum.used.saturating_add(numbers.next().unwrap_or(0));
            sum.pinned = sum.pinned.saturating_add(numbers.next().unwrap_or(0));
        }
        Ok(sum)
    }

    /// Up to `limit` objects of each kind from each shard, the least recently used ones.
    pub(crate) async fn eviction_candidates(
        self: &Arc<Self>,
        limit: usize,
    ) -> Result<Vec<Candidate>, Failure> {
        type Listed = (bool, Vec<u8>, Vec<u8>, u64);
        let listed = self
            .on_shards::<Vec<Listed>>(Shard::all(), move |backend, shard| {
                backend.scripts.candidates(shard, limit)
            })
            .await?;
        let of_shard = |(shard, listed): (Shard, Vec<Listed>)| {
            let candidate =
                move |(volatile, id, used, cost)| Candidate { shard, volatile, id, used, cost };
            listed.into_iter().map(candidate)
        };
        Ok(listed.into_iter().flat_map(of_shard).collect())
    }

    /// Evicts objects, except those that were used or removed meanwhile.
    pub(crate) async fn evict(self: &Arc<Self>, chosen: Vec<Candidate>) -> Result<Freed, Failure> {
        let by_shard = Arc::new(group(chosen, |candidate| candidate.shard));
        let shards: Vec<_> = by_shard.keys().copied().collect();
        let evicted = self.on_shards::<(u64, u64)>(shards, move |backend, shard| {
            let candidates = by_shard.get(&shard).into_iter().flatten();
            let objects = candidates.map(|c| (c.volatile, &c.id[..], &c.used[..]));
            backend.scripts.evict(shard, objects)
        });
        let mut freed = Freed::default();
        for (_, (objects, bytes)) in evicted.await? {
            freed.objects = freed.objects.saturating_add(objects);
            freed.bytes = freed.bytes.saturating_add(bytes);
        }
        Ok(freed)
    }

    /// Calls a script on each of these shards, all at once.
    async fn on_shards<T>(
        self: &Arc<Self>,
        shards: impl IntoIterator<Item = Shard>,
        call: impl Fn(&Self, Shard) -> ScriptCall<'_> + Clone + Send + 'static,
    ) -> Result<Vec<(Shard, T)>, Failure>
    where
        T: FromRedisValue + Send + 'static,
    {
        let mut calls = JoinSet::new();
        for shard in shards {
            let (backend, call) = (Arc::clone(self), call.clone());
            calls.spawn(async move {
                let invocation = call(&backend, shard);
                backend.client.script(&invocation).await.map(|reply| (shard, reply))
            });
        }
        let mut replies = Vec::with_capacity(calls.len());
        while let Some(reply) = calls.join_next().await {
            replies.push(reply.map_err(|error| Failure::InvalidResponse(error.to_string()))??);
        }
        Ok(replies)
    }
}

fn group<T>(
    items: impl IntoIterator<Item = T>,
    shard: impl Fn(&T) -> Shard,
) -> BTreeMap<Shard, Vec<T>> {
    let mut groups: BTreeMap<_, Vec<T>> = BTreeMap::new();
    for item in items {
        groups.entry(shard(&item)).or_default().push(item);
    }
    groups
}

fn shards_with_more(more: Vec<(Shard, bool)>) -> Vec<Shard> {
    more.into_iter().filter_map(|(shard, more)| more.then_some(shard)).collect()
}

fn parse_id(name: &[u8]) -> Option<ObjectId> {
    std::str::from_utf8(name).ok().and_then(|name| name.parse().ok())
}

/// A counter of a shard; one that is not a number, or below zero for a while, counts as zero.
fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
