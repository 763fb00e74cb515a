//! The objects on the server, as this instance sees and holds them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cvmcache::ServerHandle;
use cvmcache::plugin::{ObjectId, PluginResult, Status};
use redis::{FromRedisValue, ScriptInvocation};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::Config;
use crate::eviction::Evicted;
use crate::facts::Facts;
use crate::holds::{Holds, Known, Open};
use crate::keys::{Keys, Shard};
use crate::link::{Failure, Link};
use crate::scripts::{Holder, Scripts};
use crate::seal::Seal;
use crate::space::Budget;

/// What all sessions of an instance share.
pub(crate) struct Store {
    pub(crate) link: Link,
    pub(crate) runtime: Handle,
    pub(crate) keys: Keys,
    pub(crate) seal: Seal,
    pub(crate) scripts: Scripts,
    pub(crate) holder: Holder,
    pub(crate) clock: Clock,
    pub(crate) upload_expiry: Duration,
    pub(crate) per_repository: bool,
    pub(crate) server: ServerHandle,
    holds: Mutex<Holds>,
    /// Something in the table has changed that somebody may wait for.
    pub(crate) changed: Notify,
    /// Something is to be released.
    pub(crate) queued: Notify,
    /// Held by whoever tells the server what is released.
    pub(crate) releasing: tokio::sync::Mutex<()>,
    budget: Mutex<Budget>,
    /// There is more to evict than the requests up to now had to wait for.
    pub(crate) full: Notify,
    /// Held by whoever evicts.
    pub(crate) evicting: tokio::sync::Mutex<()>,
    pub(crate) evicted: Evicted,
}

impl Store {
    pub(crate) fn new(config: &Config, link: Link, runtime: Handle, server: ServerHandle) -> Self {
        let keys = Keys::new(&config.prefix);
        let instance = format!("{:032x}", fastrand::u128(..));
        let lease = u64::try_from(config.lease.as_millis()).unwrap_or(u64::MAX);
        Self {
            link,
            runtime,
            seal: Seal::new(config.secret.as_deref()),
            scripts: Scripts::new(keys.clone()),
            keys,
            holder: Holder { instance, lease },
            clock: Clock::new(),
            upload_expiry: config.upload_expiry,
            per_repository: config.per_repository,
            server,
            holds: Mutex::default(),
            changed: Notify::new(),
            queued: Notify::new(),
            releasing: tokio::sync::Mutex::new(()),
            budget: Mutex::new(Budget::new(config.size)),
            full: Notify::new(),
            evicting: tokio::sync::Mutex::new(()),
            evicted: Evicted::new(),
        }
    }

    /// Does what a callback is to answer, but not for longer than requests may take.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = PluginResult<T>>) -> PluginResult<T> {
        self.link.wait(async { Ok(work.await) })?
    }

    /// Opens an object by `by` references.
    pub(crate) async fn open(&self, id: &ObjectId, by: i32) -> PluginResult<Arc<Facts>> {
        loop {
            let changed = self.changed.notified();
            let open = self.holds().open(id, by)?;
            match open {
                Open::Done(facts) => return Ok(facts),
                Open::Ask => {
                    return self.hold(Claim { store: self, id, is_settled: false }, by).await;
                }
                Open::Wait => changed.await,
            }
        }
    }

    /// Closes an object by `by` references.
    pub(crate) async fn close(&self, id: &ObjectId, by: u32) -> PluginResult<()> {
        let closed = self.holds().close(id, by, self.clock.now());
        match closed {
            Ok(true) => self.queued.notify_one(),
            Ok(false) => {}
            // Nobody here has opened it; whether it is there makes a difference for the answer.
            Err(Status::NoEntry) => {
                self.facts(id).await?;
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
            if self.holds().claim(id) {
                return Claim { store: self, id, is_settled: false };
            }
            changed.await;
        }
    }

    /// Asks the server to hold an object that has been claimed.
    pub(crate) async fn hold(&self, claim: Claim<'_>, by: i32) -> PluginResult<Arc<Facts>> {
        let id = claim.id;
        let call = self.scripts.hold(&self.holder, Shard::of(id), &id.to_string());
        let bytes: Option<Vec<u8>> = self.link.script(&call).await?;
        match bytes {
            None => {
                claim.missing();
                Err(Status::NoEntry)
            }
            Some(bytes) => match Facts::decode(id, &self.seal, &bytes) {
                Some(facts) => claim.held(by, facts.into()),
                None => {
                    self.drop_forged(id, &bytes).await?;
                    claim.missing();
                    Err(Status::NoEntry)
                }
            },
        }
    }

    /// The facts of an object, whether it is held or not.
    pub(crate) async fn facts(&self, id: &ObjectId) -> PluginResult<Arc<Facts>> {
        let known = self.holds().known(id);
        match known {
            Known::Here(facts) => Ok(facts),
            Known::Lost => Err(Status::NoEntry),
            Known::Unknown => self.look(id).await,
        }
    }

    /// The facts of an object as the server has them.
    pub(crate) async fn look(&self, id: &ObjectId) -> PluginResult<Arc<Facts>> {
        let call = self.scripts.look(Shard::of(id), &id.to_string());
        let bytes: Option<Vec<u8>> = self.link.script(&call).await?;
        let bytes = bytes.ok_or(Status::NoEntry)?;
        match Facts::decode(id, &self.seal, &bytes) {
            Some(facts) => Ok(facts.into()),
            None => {
                self.drop_forged(id, &bytes).await?;
                Err(Status::NoEntry)
            }
        }
    }

    /// Removes an object whose facts are not what was stored.
    pub(crate) async fn drop_forged(&self, id: &ObjectId, seen: &[u8]) -> Result<(), Failure> {
        let reason = self.seal.complaint(seen);
        tracing::warn!(%id, %reason, "dropping an object that cannot be trusted");
        self.drop_object(id, seen).await
    }

    /// Removes an object whose data is not what was stored, or is gone.
    pub(crate) async fn drop_corrupted(&self, id: &ObjectId, facts: &Facts) -> Result<(), Failure> {
        self.drop_object(id, &facts.encode(id, &self.seal)).await?;
        self.lose(id);
        Ok(())
    }

    /// The server does not have an object any more.
    pub(crate) fn lose(&self, id: &ObjectId) {
        self.holds().lose(id, self.clock.now());
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
                store.link.script(&call(&store.scripts, shard)).await.map(|answer| (shard, answer))
            });
        }
        let mut answers = Vec::with_capacity(calls.len());
        while let Some(answer) = calls.join_next().await {
            answers.push(answer.map_err(|error| Failure::Nonsense(error.to_string()))??);
        }
        Ok(answers)
    }

    pub(crate) fn holds(&self) -> MutexGuard<'_, Holds> {
        lock(&self.holds)
    }

    pub(crate) fn budget(&self) -> MutexGuard<'_, Budget> {
        lock(&self.budget)
    }

    async fn drop_object(&self, id: &ObjectId, seen: &[u8]) -> Result<(), Failure> {
        let call = self.scripts.drop(Shard::of(id), &id.to_string(), seen);
        self.link.script::<()>(&call).await
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
    pub(crate) fn held(mut self, by: i32, facts: Arc<Facts>) -> PluginResult<Arc<Facts>> {
        self.is_settled = true;
        let now = self.store.clock.now();
        let counted = self.store.holds().held(self.id, by, Arc::clone(&facts), now);
        counted.map(|()| facts)
    }

    /// The server does not have it.
    pub(crate) fn missing(mut self) {
        self.is_settled = true;
        self.store.holds().missing(self.id);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.store.holds().in_doubt(self.id, self.store.clock.now());
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
