//! What goes on in the background: objects are released, leases renewed, and the cache cleaned up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cvmcache::plugin::ObjectId;
use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::client::Failure;
use crate::keys::Shard;
use crate::store::Store;

/// Starts all of it. It ends with the runtime.
pub(crate) fn start(store: &Arc<Store>, runtime: &Handle) {
    runtime.spawn(release_what_is_queued(Arc::clone(store)));
    runtime.spawn(renew_leases(Arc::clone(store)));
    runtime.spawn(clean_up(Arc::clone(store)));
}

impl Store {
    /// Tells the server what is released, all that is queued.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), Failure> {
        let _alone = self.releasing.lock().await;
        loop {
            let batch =
                Batch { store: self, objects: self.pins().take_releases(BATCH), is_done: false };
            if batch.objects.is_empty() {
                return Ok(());
            }
            batch.send().await?;
        }
    }

    /// Lets go of everything, when the plugin ends.
    pub(crate) async fn leave(self: &Arc<Self>) -> Result<(), Failure> {
        self.flush().await?;
        let mut shards: Vec<_> = self.pins().by_shard().into_keys().collect();
        while !shards.is_empty() {
            let instance = self.instance.clone();
            let left = self
                .on_shards::<bool>(shards, move |s, shard| s.end_lease(&instance, shard))
                .await?;
            shards = left.into_iter().filter_map(|(shard, more)| more.then_some(shard)).collect();
        }
        Ok(())
    }

    /// Prolongs the lease in every shard in which something is held, and sees to it that the server
    /// and the table say the same.
    async fn renew(self: &Arc<Self>) -> Result<(), Failure> {
        let held = self.pins().by_shard();
        let instance = self.instance.clone();
        let shards: Vec<_> = held.keys().copied().collect();
        let counts =
            self.on_shards::<i64>(shards, move |s, shard| s.renew(&instance, shard)).await?;
        for (shard, count) in counts {
            let expected = held.get(&shard).map_or(0, Vec::len);
            if usize::try_from(count) != Ok(expected) {
                self.resume(shard, count, &held).await?;
            }
        }
        Ok(())
    }

    /// PinTable again what the server has lost, and releases what it should not know of.
    async fn resume(
        self: &Arc<Self>,
        shard: Shard,
        count: i64,
        held: &HashMap<Shard, Vec<ObjectId>>,
    ) -> Result<(), Failure> {
        if count < 0 {
            tracing::info!("the server has forgotten what is held, holding it again");
        }
        for id in held.get(&shard).into_iter().flatten() {
            let claim = self.claim(id).await;
            // What is not there any more is lost by this, and what failed is tried the next time.
            let _ = self.pin(claim, 0).await;
        }
        let mut cursor = 0;
        loop {
            let call = self.scripts.list_pins(&self.instance, shard, cursor);
            let (next, ids): (u64, Vec<Vec<u8>>) = self.client.script(&call).await?;
            for id in ids {
                if let Some(id) = std::str::from_utf8(&id).ok().and_then(|id| id.parse().ok()) {
                    self.pins().adopt(&id, self.clock.now());
                }
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
        self.queued.notify_one();
        Ok(())
    }

    async fn tell_time(&self) -> Result<(), Failure> {
        let (seconds, micros): (u64, u32) = self.client.command(&redis::cmd("TIME")).await?;
        let micros = Duration::from_micros(micros.into());
        self.clock.set(Duration::from_secs(seconds).saturating_add(micros));
        Ok(())
    }
}

/// Objects that the server is being told of. If nobody says that it was, they are queued again.
struct Batch<'a> {
    store: &'a Arc<Store>,
    objects: Vec<(ObjectId, u64)>,
    is_done: bool,
}

impl Batch<'_> {
    async fn send(mut self) -> Result<(), Failure> {
        let mut by_shard: HashMap<_, Vec<_>> = HashMap::new();
        for (id, closed) in &self.objects {
            by_shard.entry(Shard::of(id)).or_default().push((*id, *closed));
        }
        let shards: Vec<_> = by_shard.keys().copied().collect();
        let instance = self.store.instance.clone();
        let by_shard = Arc::new(by_shard);
        let released = self.store.on_shards::<()>(shards, move |scripts, shard| {
            let objects = by_shard.get(&shard).into_iter().flatten();
            scripts.release(&instance, shard, objects.map(|(id, closed)| (id.to_string(), *closed)))
        });
        released.await?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let mut pins = self.store.pins();
        for (id, _) in &self.objects {
            pins.finish_release(id, self.is_done);
        }
        drop(pins);
        self.store.changed.notify_waiters();
    }
}

/// How many objects are released in one go.
const BATCH: usize = 256;

/// How long a release waits for others, and for somebody to open the object again.
const RELEASE_AFTER: Duration = Duration::from_millis(5);

/// How long to wait after a failure. The client has a backoff of its own; this one only keeps the log
/// and the processor quiet.
const RETRY: Duration = Duration::from_secs(1);

async fn release_what_is_queued(store: Arc<Store>) {
    loop {
        store.queued.notified().await;
        sleep(RELEASE_AFTER).await;
        while let Err(error) = store.flush().await {
            tracing::debug!(%error, "cannot release what is closed, trying again");
            sleep(RETRY).await;
        }
    }
}

async fn renew_leases(store: Arc<Store>) {
    let third = Duration::from_millis(store.instance.lease / 3).max(Duration::from_millis(1));
    let mut ticks = interval(third);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begin = Instant::now();
        while let Err(error) = async {
            store.tell_time().await?;
            store.renew().await
        }
        .await
        {
            tracing::debug!(%error, "cannot renew the lease, trying again");
            sleep(RETRY.min(third / 4)).await;
        }
        if begin.elapsed() > 2 * third {
            tracing::warn!(
                "the lease was not renewed in time: what nobody else pins may be evicted"
            );
        }
    }
}

async fn clean_up(store: Arc<Store>) {
    loop {
        store.full.notified().await;
        loop {
            match store.clean_up_step().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "cannot clean up");
                    break;
                }
            }
        }
        store.capacity().end_clean_up();
    }
}
