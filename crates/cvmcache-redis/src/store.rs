//! The objects on the server, as this instance sees and holds them.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cvmcache::ServerHandle;
use cvmcache::plugin::{ObjectId, Result, Status};
use redis::{FromRedisValue, ScriptInvocation};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::capacity::Capacity;
use crate::client::{Failure, RedisClient};
use crate::clock::Clock;
use crate::config::Config;
use crate::eviction::Evicted;
use crate::integrity::Authenticator;
use crate::keys::{Keys, Shard};
use crate::metadata::ObjectMetadata;
use crate::pins::{Lookup, Opening, PinTable};
use crate::scripts::{Instance, Scripts};

/// What all sessions of an instance share.
pub(crate) struct Store {
    pub(crate) client: RedisClient,
    pub(crate) runtime: Handle,
    pub(crate) keys: Keys,
    pub(crate) authenticator: Authenticator,
    pub(crate) scripts: Scripts,
    pub(crate) instance: Instance,
    pub(crate) clock: Clock,
    pub(crate) upload_expiry: Duration,
    pub(crate) per_repository: bool,
    pub(crate) control: OnceLock<ServerHandle>,
    pins: Mutex<PinTable>,
    /// Something in the table has changed that somebody may wait for.
    pub(crate) changed: Notify,
    /// Something is to be released.
    pub(crate) queued: Notify,
    /// Held by whoever tells the server what is released.
    pub(crate) releasing: tokio::sync::Mutex<()>,
    capacity: Mutex<Capacity>,
    /// There is more to evict than the requests up to now had to wait for.
    pub(crate) full: Notify,
    /// Held by whoever evicts.
    pub(crate) evicting: tokio::sync::Mutex<()>,
    pub(crate) evicted: Evicted,
}

impl Store {
    pub(crate) fn new(config: &Config, client: RedisClient, runtime: Handle) -> Self {
        let keys = Keys::new(&config.prefix);
        let instance = format!("{:032x}", fastrand::u128(..));
        let lease = u64::try_from(config.lease.as_millis()).unwrap_or(u64::MAX);
        Self {
            client,
            runtime,
            authenticator: Authenticator::new(config.secret.as_deref()),
            scripts: Scripts::new(keys.clone()),
            keys,
            instance: Instance { instance, lease },
            clock: Clock::new(),
            upload_expiry: config.upload_expiry,
            per_repository: config.per_repository,
            control: OnceLock::new(),
            pins: Mutex::default(),
            changed: Notify::new(),
            queued: Notify::new(),
            releasing: tokio::sync::Mutex::new(()),
            capacity: Mutex::new(Capacity::new(config.size)),
            full: Notify::new(),
            evicting: tokio::sync::Mutex::new(()),
            evicted: Evicted::new(),
        }
    }

    /// Does what a callback is to answer, but not for longer than requests may take.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.client.wait(async { Ok(work.await) })?
    }

    /// Opens an object by `by` references.
    pub(crate) async fn open(&self, id: &ObjectId, by: i32) -> Result<Arc<ObjectMetadata>> {
        loop {
            let changed = self.changed.notified();
            let open = self.pins().open(id, by)?;
            match open {
                Opening::Counted(metadata) => return Ok(metadata),
                Opening::Acquire => {
                    return self.pin(Claim { store: self, id, is_settled: false }, by).await;
                }
                Opening::Wait => changed.await,
            }
        }
    }

    /// Closes an object by `by` references.
    pub(crate) async fn close(&self, id: &ObjectId, by: u32) -> Result<()> {
        let closed = self.pins().close(id, by, self.clock.now());
        match closed {
            Ok(true) => self.queued.notify_one(),
            Ok(false) => {}
            // Nobody here has opened it; whether it is there makes a difference for the answer.
            Err(Status::NoEntry) => {
                self.metadata(id).await?;
                return Err(Status::BadCount);
            }
            Err(status) => return Err(status),
        }
        Ok(())
    }

    /// Claims an object for a change that also holds it.
    pub(crate) async fn claim<'a>(&'a self, id: &'a ObjectId) -> Claim<'a> {
        loop {
            let changed = self.changed.notified();
            if self.pins().claim(id) {
                return Claim { store: self, id, is_settled: false };
            }
            changed.await;
        }
    }

    /// Asks the server to hold an object that has been claimed.
    pub(crate) async fn pin(&self, claim: Claim<'_>, by: i32) -> Result<Arc<ObjectMetadata>> {
        let id = claim.id;
        let call = self.scripts.pin(&self.instance, Shard::of(id), &id.to_string());
        let bytes: Option<Vec<u8>> = self.client.script(&call).await?;
        match bytes {
            None => {
                claim.mark_missing();
                Err(Status::NoEntry)
            }
            Some(bytes) => match ObjectMetadata::decode(id, &self.authenticator, &bytes) {
                Some(metadata) => claim.acquired(by, metadata.into()),
                None => {
                    self.drop_forged(id, &bytes).await?;
                    claim.mark_missing();
                    Err(Status::NoEntry)
                }
            },
        }
    }

    /// The metadata of an object, whether it is held or not.
    pub(crate) async fn metadata(&self, id: &ObjectId) -> Result<Arc<ObjectMetadata>> {
        let known = self.pins().lookup(id);
        match known {
            Lookup::Present(metadata) => Ok(metadata),
            Lookup::Lost => Err(Status::NoEntry),
            Lookup::Unknown => self.fetch_metadata(id).await,
        }
    }

    /// The metadata of an object as the server has them.
    pub(crate) async fn fetch_metadata(&self, id: &ObjectId) -> Result<Arc<ObjectMetadata>> {
        let call = self.scripts.fetch_metadata(Shard::of(id), &id.to_string());
        let bytes: Option<Vec<u8>> = self.client.script(&call).await?;
        let bytes = bytes.ok_or(Status::NoEntry)?;
        match ObjectMetadata::decode(id, &self.authenticator, &bytes) {
            Some(metadata) => Ok(metadata.into()),
            None => {
                self.drop_forged(id, &bytes).await?;
                Err(Status::NoEntry)
            }
        }
    }

    /// Removes an object whose metadata are not what was stored.
    pub(crate) async fn drop_forged(&self, id: &ObjectId, seen: &[u8]) -> Result<(), Failure> {
        let reason = self.authenticator.mismatch_reason(seen);
        tracing::warn!(%id, %reason, "dropping an object that cannot be trusted");
        self.drop_object(id, seen).await
    }

    /// Removes an object whose data is not what was stored, or is gone.
    pub(crate) async fn drop_corrupted(
        &self,
        id: &ObjectId,
        metadata: &ObjectMetadata,
    ) -> Result<(), Failure> {
        self.drop_object(id, &metadata.encode(id, &self.authenticator)).await?;
        self.mark_lost(id);
        Ok(())
    }

    /// The server does not have an object any more.
    pub(crate) fn mark_lost(&self, id: &ObjectId) {
        self.pins().mark_lost(id, self.clock.now());
        self.queued.notify_one();
    }

    /// Calls a script for each of these shards, all at once.
    pub(crate) async fn on_shards<T>(
        self: &Arc<Self>,
        shards: impl IntoIterator<Item = Shard>,
        call: impl Fn(&Scripts, Shard) -> ScriptInvocation<'_> + Clone + Send + 'static,
    ) -> Result<Vec<(Shard, T)>, Failure>
    where
        T: FromRedisValue + Send + 'static,
    {
        let mut calls = JoinSet::new();
        for shard in shards {
            let (store, call) = (Arc::clone(self), call.clone());
            calls.spawn(async move {
                store
                    .client
                    .script(&call(&store.scripts, shard))
                    .await
                    .map(|answer| (shard, answer))
            });
        }
        let mut answers = Vec::with_capacity(calls.len());
        while let Some(answer) = calls.join_next().await {
            answers.push(answer.map_err(|error| Failure::InvalidResponse(error.to_string()))??);
        }
        Ok(answers)
    }

    pub(crate) fn pins(&self) -> MutexGuard<'_, PinTable> {
        lock(&self.pins)
    }

    pub(crate) fn capacity(&self) -> MutexGuard<'_, Capacity> {
        lock(&self.capacity)
    }

    async fn drop_object(&self, id: &ObjectId, seen: &[u8]) -> Result<(), Failure> {
        let call = self.scripts.drop(Shard::of(id), &id.to_string(), seen);
        self.client.script::<()>(&call).await
    }
}

/// An object about which the server is being asked, while others wait. If nobody says what came of it,
/// it is in doubt.
pub(crate) struct Claim<'a> {
    store: &'a Store,
    id: &'a ObjectId,
    is_settled: bool,
}

impl Claim<'_> {
    /// The server holds the object, for `by` more references.
    pub(crate) fn acquired(
        mut self,
        by: i32,
        metadata: Arc<ObjectMetadata>,
    ) -> Result<Arc<ObjectMetadata>> {
        self.is_settled = true;
        let now = self.store.clock.now();
        let counted = self.store.pins().acquired(self.id, by, Arc::clone(&metadata), now);
        counted.map(|()| metadata)
    }

    /// The server does not have it.
    pub(crate) fn mark_missing(mut self) {
        self.is_settled = true;
        self.store.pins().mark_missing(self.id);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.store.pins().mark_unknown(self.id, self.store.clock.now());
        }
        self.store.changed.notify_waiters();
        self.store.queued.notify_one();
    }
}

/// Locks, even if somebody panicked while holding the lock: the SDK answers a panic and goes on,
/// and so must the plugin. Nothing here panics between two changes that belong together.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
