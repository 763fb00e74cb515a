//! Leases: this instance pins the objects that its sessions have open, for as long as it renews its lease.
//!
//! The server knows which instances have pinned an object, the [`PinTable`] how many references sessions
//! have. Three tasks meet in the table:
//!
//! - workers open, close and commit. The first reference acquires a pin on the server, in a [`Claim`];
//!   other requests for the object wait until the claim is settled.
//! - the release task ([`release_pins`]) and whatever needs exact counters [`flush`](Leases::flush) the
//!   queue of objects without references. `flushing` makes that one task at a time.
//! - the renewal task ([`renew_leases`]) renews the lease in each shard, and reconciles the table with the
//!   server where their counts differ.
//!
//! Locks: `flushing` is taken before `pins`; the evictor's lock is taken before `flushing`. `pins` is never
//! held across an `await`.
//!
//! Invariant: an object that the server has pinned for this instance is in the table, unless a reply was
//! lost; then the next renewal adopts it, and releases it. While the server is away, references go on
//! counting here and renewals fail. If that lasts longer than the lease, other instances release the
//! pins; the first renewal after that returns -1 and pins again what is still there, and what was evicted
//! meanwhile is marked lost and answered NOENTRY.

mod pins;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cvmcache::plugin::{ObjectId, PluginResult, Status};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::backend::Backend;
use crate::client::Failure;
use crate::clock::Clock;
use crate::keys::Shard;
use crate::metadata::ObjectMetadata;

use pins::{Lookup, Opening, PinTable};

/// The pins of this instance, and its lease.
pub(crate) struct Leases {
    backend: Arc<Backend>,
    clock: Clock,
    lease: Duration,
    pins: Mutex<PinTable>,
    /// A claim or a release is settled: requests that wait for it try again.
    changed: Notify,
    /// There is something to be released.
    queued: Notify,
    /// Held by the task that releases.
    flushing: tokio::sync::Mutex<()>,
    /// When the lease was renewed last.
    renewed: watch::Sender<Option<Instant>>,
    /// Notified to renew it before its time.
    renew_now: Notify,
}

/// The lease of this instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseState {
    pub(crate) lease: Duration,
    /// How long ago it was renewed; `None` if the server has not answered yet.
    pub(crate) renewed: Option<Duration>,
    /// How many objects are pinned for sessions here, or are about to be released.
    pub(crate) pinned_objects: usize,
}

/// How many objects are released at once.
const RELEASE_BATCH: usize = 256;

/// How long a release waits for more of them, and for the object to be opened again.
const RELEASE_DELAY: Duration = Duration::from_millis(5);

/// The pause after a failure. The client has a back-off of its own; this one keeps the log and the
/// processor quiet.
const RETRY: Duration = Duration::from_secs(1);

/// How many times a hundred objects of a shard are released for one request, see `reap.lua`.
const REAP_ROUNDS: usize = 32;

impl Leases {
    pub(crate) fn new(backend: Arc<Backend>, lease: Duration) -> Self {
        Self {
            backend,
            clock: Clock::new(),
            lease,
            pins: Mutex::default(),
            changed: Notify::new(),
            queued: Notify::new(),
            flushing: tokio::sync::Mutex::new(()),
            renewed: watch::Sender::new(None),
            renew_now: Notify::new(),
        }
    }

    pub(crate) fn state(&self) -> LeaseState {
        let renewed = *self.renewed.borrow();
        LeaseState {
            lease: self.lease,
            renewed: renewed.map(|renewed| renewed.elapsed()),
            pinned_objects: self.pins().len(),
        }
    }

    /// Has the lease renewed now, and waits until it is.
    pub(crate) async fn renew_soon(&self) {
        let mut renewed = self.renewed.subscribe();
        self.renew_now.notify_one();
        // An error is the end of the runtime.
        let _ = renewed.changed().await;
    }

    /// Opens an object by `by` references.
    pub(crate) async fn open(&self, id: &ObjectId, by: i32) -> PluginResult<Arc<ObjectMetadata>> {
        loop {
            let changed = self.changed.notified();
            let opening = self.pins().open(id, by)?;
            match opening {
                Opening::Counted(metadata) => return Ok(metadata),
                Opening::Acquire => {
                    return self.acquire(Claim { leases: self, id, is_settled: false }, by).await;
                }
                Opening::Wait => changed.await,
            }
        }
    }

    /// Opens an object by `by` references, for work that may still fail.
    pub(crate) async fn open_tentatively(
        &self,
        id: &ObjectId,
        by: i32,
    ) -> PluginResult<TentativeReferences<'_>> {
        self.open(id, by).await?;
        Ok(self.tentative(id, by.unsigned_abs()))
    }

    /// References that an object has got, for work that may still fail.
    pub(crate) fn tentative(&self, id: &ObjectId, by: u32) -> TentativeReferences<'_> {
        TentativeReferences { leases: self, id: *id, by }
    }

    /// Closes an object by `by` references.
    pub(crate) async fn close(&self, id: &ObjectId, by: u32) -> PluginResult<()> {
        let closed = self.pins().close(id, by, self.clock.now());
        match closed {
            Ok(true) => self.queued.notify_one(),
            Ok(false) => {}
            // No session here has it open; the status is whether it exists.
            Err(Status::NoEntry) => {
                self.metadata(id).await?;
                return Err(Status::BadCount);
            }
            Err(status) => return Err(status),
        }
        Ok(())
    }

    /// Claims an object for a script that also pins it.
    pub(crate) async fn claim<'a>(&'a self, id: &'a ObjectId) -> Claim<'a> {
        loop {
            let changed = self.changed.notified();
            if self.pins().claim(id) {
                return Claim { leases: self, id, is_settled: false };
            }
            changed.await;
        }
    }

    /// Pins an object that has been claimed.
    async fn acquire(&self, claim: Claim<'_>, by: i32) -> PluginResult<Arc<ObjectMetadata>> {
        match self.backend.pin(claim.id).await? {
            Some(metadata) => claim.acquired(by, metadata),
            None => {
                claim.missing();
                Err(Status::NoEntry)
            }
        }
    }

    /// The metadata of an object: from the table if it is pinned, from the server if not.
    pub(crate) async fn metadata(&self, id: &ObjectId) -> PluginResult<Arc<ObjectMetadata>> {
        let lookup = self.pins().lookup(id);
        match lookup {
            Lookup::Present(metadata) => Ok(metadata),
            Lookup::Lost => Err(Status::NoEntry),
            Lookup::Unknown => self.backend.fetch_metadata(id).await?.ok_or(Status::NoEntry),
        }
    }

    /// The server does not have an object any more.
    pub(crate) fn mark_lost(&self, id: &ObjectId) {
        self.pins().mark_lost(id, self.clock.now());
        self.queued.notify_one();
    }

    /// Releases all objects that are queued.
    pub(crate) async fn flush(&self) -> Result<(), Failure> {
        let _flushing = self.flushing.lock().await;
        loop {
            let objects = self.pins().take_releases(RELEASE_BATCH);
            let mut batch = ReleaseBatch { leases: self, objects, is_released: false };
            if batch.objects.is_empty() {
                return Ok(());
            }
            self.backend.release(&batch.objects).await?;
            batch.is_released = true;
        }
    }

    /// Releases what no session of any instance has open, so that it does not count as pinned: what was
    /// closed here, and what instances with expired leases had pinned.
    pub(crate) async fn settle(&self) -> Result<(), Failure> {
        self.flush().await?;
        // Leases are in milliseconds.
        let mut shards = self.backend.expired_leases(self.clock.now() / 1000).await?;
        // An instance may have had more pinned than is released here; the next request goes on.
        for _ in 0..REAP_ROUNDS {
            if shards.is_empty() {
                break;
            }
            // A server that is read-only keeps them pinned, and they count.
            let Ok(more) = self.backend.reap(shards).await else { break };
            shards = more;
        }
        Ok(())
    }

    /// Ends the lease and releases everything, when the plugin shuts down.
    pub(crate) async fn end(&self) -> Result<(), Failure> {
        self.flush().await?;
        let mut shards: Vec<_> = self.pins().by_shard().into_keys().collect();
        while !shards.is_empty() {
            shards = self.backend.end_lease(shards).await?;
        }
        Ok(())
    }

    /// Renews the lease in every shard in which an object is pinned, and reconciles those in which the
    /// server has another number of pins than the table.
    async fn renew(&self) -> Result<(), Failure> {
        let pinned = self.pins().by_shard();
        let counts = self.backend.renew(pinned.keys().copied().collect()).await?;
        for (shard, count) in counts {
            let expected = pinned.get(&shard).map_or(0, Vec::len);
            if usize::try_from(count) != Ok(expected) {
                self.reconcile(shard, count, &pinned).await?;
            }
        }
        Ok(())
    }

    /// Pins again what the server has lost, and releases what only the server has as pinned.
    async fn reconcile(
        &self,
        shard: Shard,
        count: i64,
        pinned: &HashMap<Shard, Vec<ObjectId>>,
    ) -> Result<(), Failure> {
        if count < 0 {
            tracing::info!("the lease has expired on the server, pinning open objects again");
        }
        for id in pinned.get(&shard).into_iter().flatten() {
            let claim = self.claim(id).await;
            // An object that is gone is marked lost by this; after a failure, the next renewal does it.
            let _ = self.acquire(claim, 0).await;
        }
        let mut cursor = 0;
        loop {
            let (next, ids) = self.backend.list_pins(shard, cursor).await?;
            for id in ids {
                self.pins().adopt(&id, self.clock.now());
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
        self.queued.notify_one();
        Ok(())
    }

    fn pins(&self) -> MutexGuard<'_, PinTable> {
        self.pins.lock()
    }
}

/// References that no client has been told of. Dropped before they are kept, as at the deadline of a request,
/// they are given back: the client is told of a failure, and would never close the object.
pub(crate) struct TentativeReferences<'a> {
    leases: &'a Leases,
    id: ObjectId,
    by: u32,
}

impl TentativeReferences<'_> {
    /// The client is told of them.
    pub(crate) fn keep(mut self) {
        self.by = 0;
    }
}

impl Drop for TentativeReferences<'_> {
    fn drop(&mut self) {
        if self.by > 0 {
            // An object that is lost meanwhile has no references.
            let _ = self.leases.pins().close(&self.id, self.by, self.leases.clock.now());
            self.leases.queued.notify_one();
        }
    }
}

/// An object for which this task acquires a pin, while others wait. Dropped before it is settled, what
/// the server knows is unknown.
pub(crate) struct Claim<'a> {
    leases: &'a Leases,
    id: &'a ObjectId,
    is_settled: bool,
}

impl Claim<'_> {
    /// The server has pinned the object, for `by` more references.
    pub(crate) fn acquired(
        mut self,
        by: i32,
        metadata: Arc<ObjectMetadata>,
    ) -> PluginResult<Arc<ObjectMetadata>> {
        self.is_settled = true;
        let now = self.leases.clock.now();
        let counted = self.leases.pins().acquired(self.id, by, Arc::clone(&metadata), now);
        counted.map(|()| metadata)
    }

    /// The server does not have it.
    fn missing(mut self) {
        self.is_settled = true;
        self.leases.pins().mark_missing(self.id);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.leases.pins().mark_unknown(self.id, self.leases.clock.now());
        }
        self.leases.changed.notify_waiters();
        self.leases.queued.notify_one();
    }
}

/// Objects that are being released. Dropped before the server has replied, they are queued again.
struct ReleaseBatch<'a> {
    leases: &'a Leases,
    objects: Vec<(ObjectId, u64)>,
    is_released: bool,
}

impl Drop for ReleaseBatch<'_> {
    fn drop(&mut self) {
        let mut pins = self.leases.pins();
        for (id, _) in &self.objects {
            pins.finish_release(id, self.is_released);
        }
        drop(pins);
        self.leases.changed.notify_waiters();
    }
}

/// Releases objects after their last reference was closed.
pub(crate) async fn release_pins(leases: Arc<Leases>) {
    loop {
        leases.queued.notified().await;
        sleep(RELEASE_DELAY).await;
        while let Err(error) = leases.flush().await {
            tracing::debug!(%error, "cannot release closed objects, trying again");
            sleep(RETRY).await;
        }
    }
}

/// Renews the lease three times in its time, and follows the server's clock.
pub(crate) async fn renew_leases(leases: Arc<Leases>) {
    let third = (leases.lease / 3).max(Duration::from_millis(1));
    let mut ticks = interval(third);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = leases.renew_now.notified() => ticks.reset(),
        }
        let begin = Instant::now();
        while let Err(error) = async {
            leases.clock.set(leases.backend.time().await?);
            leases.renew().await
        }
        .await
        {
            tracing::debug!(%error, "cannot renew the lease, trying again");
            sleep(RETRY.min(third / 4)).await;
        }
        leases.renewed.send_replace(Some(Instant::now()));
        if begin.elapsed() > 2 * third {
            tracing::warn!(
                "the lease was not renewed in time: objects that no other instance has open may be \
                 evicted"
            );
        }
    }
}
