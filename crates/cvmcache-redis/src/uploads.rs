//! Uploads: segments go to keys of their own, which expire, until one step makes them an object.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes};
use cvmcache::Transaction;
use cvmcache::plugin::{NewObject, ObjectId, PluginResult, Status};
use tokio::task::JoinHandle;

use crate::facts::{Facts, Shape};
use crate::keys::Shard;
use crate::link::Failure;
use crate::scripts::CommitCall;
use crate::space;
use crate::store::Store;

/// An object that is arriving.
pub(crate) struct Upload {
    store: Arc<Store>,
    id: ObjectId,
    facts: Facts,
    /// The repository for which it is kept, if that matters.
    repository: Option<Bytes>,
    /// Names its keys.
    token: String,
    /// What has arrived and not been sent, less than a segment and a part.
    pending: Vec<Bytes>,
    pending_len: usize,
    /// How many segments were sent.
    sent: u64,
    /// The last of them, on its way: nobody waits for it before the next.
    sending: Option<JoinHandle<Result<(), Failure>>>,
    reserved: Reservation,
    /// When its keys were last kept from expiring.
    refreshed: Instant,
}

impl Upload {
    /// Begins an upload. Nothing is told to the server before there is a segment of it.
    pub(crate) async fn begin(
        store: &Arc<Store>,
        new: NewObject,
        repository: Option<Bytes>,
    ) -> PluginResult<Self> {
        let facts = Facts {
            size: 0,
            object_type: new.object_type,
            shape: Shape::NEW,
            description: new.description,
        };
        let mut reserved = Reservation { store: Arc::clone(store), bytes: 0 };
        reserved.grow_to(space::cost(&facts)).await?;
        // What could never be kept is refused before it is sent, and before anything is evicted.
        store.could_hold(new.expected_size.unwrap_or(0)).await?;
        Ok(Self {
            store: Arc::clone(store),
            id: new.id,
            facts,
            repository,
            token: format!("{:032x}", fastrand::u128(..)),
            pending: Vec::new(),
            pending_len: 0,
            sent: 0,
            sending: None,
            reserved,
            refreshed: Instant::now(),
        })
    }

    async fn append(&mut self, data: Bytes) -> PluginResult<()> {
        self.facts.size += data.len() as u64;
        self.reserved.grow_to(space::cost(&self.facts)).await?;
        self.pending_len += data.len();
        self.pending.push(data);
        let segment = usize::try_from(Shape::NEW.segment_len()).unwrap_or(usize::MAX);
        // The last segment is kept for the commit, which takes it along.
        while self.pending_len > segment {
            self.send(segment).await?;
        }
        Ok(())
    }

    /// Sends a segment, after the one before has arrived.
    async fn send(&mut self, len: usize) -> PluginResult<()> {
        let parts = self.take(len);
        let bytes = self.facts.shape.seal(&self.id, &self.store.seal, self.sent, &parts);
        drop(parts);
        self.arrived().await?;
        let expiry = self.expiry();
        let mut command = redis::cmd("SET");
        command.arg(self.store.keys.upload(&self.id, &self.token, self.sent));
        command.arg(&bytes[..]).arg("PX").arg(expiry);
        drop(bytes);
        self.sent += 1;
        let refresh =
            (self.refreshed.elapsed() > self.store.upload_expiry / 4).then(|| self.refresh());
        let store = Arc::clone(&self.store);
        self.sending = Some(tokio::spawn(async move {
            if let Some(pipeline) = refresh {
                store.link.pipeline::<()>(&pipeline).await?;
            }
            match store.link.command(&command).await {
                Err(Failure::OutOfMemory) => {
                    store.evict(len as u64).await?;
                    store.link.command(&command).await
                }
                result => result,
            }
        }));
        Ok(())
    }

    /// Keeps what was sent before from expiring.
    fn refresh(&mut self) -> redis::Pipeline {
        self.refreshed = Instant::now();
        let mut pipeline = redis::pipe();
        for number in 0..self.sent {
            let key = self.store.keys.upload(&self.id, &self.token, number);
            pipeline.cmd("PEXPIRE").arg(key).arg(self.expiry()).ignore();
        }
        pipeline
    }

    fn expiry(&self) -> u64 {
        u64::try_from(self.store.upload_expiry.as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits for the segment that is on its way.
    async fn arrived(&mut self) -> PluginResult<()> {
        match self.sending.take() {
            None => Ok(()),
            Some(sending) => Ok(sending.await.map_err(|_| Status::IoErr)??),
        }
    }

    /// Takes the first bytes of what is pending.
    fn take(&mut self, len: usize) -> Vec<Bytes> {
        let mut taken = Vec::new();
        let mut lacking = len;
        while lacking > 0 && !self.pending.is_empty() {
            let part = &mut self.pending[0];
            if part.len() <= lacking {
                lacking -= part.len();
                taken.push(self.pending.remove(0));
            } else {
                taken.push(part.slice(..lacking));
                part.advance(lacking);
                lacking = 0;
            }
        }
        self.pending_len -= len - lacking;
        taken
    }

    async fn finish(&mut self) -> PluginResult<()> {
        let last = self.take(self.pending_len);
        let last = self.facts.shape.seal(&self.id, &self.store.seal, self.sent, &last);
        self.arrived().await?;
        let encoded = self.facts.encode(&self.id, &self.store.seal);
        let call = CommitCall {
            facts: &encoded,
            cost: space::cost(&self.facts),
            object_type: self.facts.object_type.to_wire(),
            token: &self.token,
            sent: self.sent,
            last: (!last.is_empty()).then_some(&last[..]),
        };
        let name = self.id.to_string();
        let mut is_last_try = false;
        loop {
            let claim = self.store.claim(&self.id).await;
            let script =
                self.store.scripts.commit(&self.store.holder, Shard::of(&self.id), &name, &call);
            let (is_new, facts): (i64, Vec<u8>) = match self.store.link.script(&script).await {
                Err(Failure::OutOfMemory) if !is_last_try => {
                    drop(claim);
                    is_last_try = true;
                    self.store.evict(call.cost).await?;
                    continue;
                }
                answer => answer?,
            };
            if is_new < 0 {
                tracing::warn!(id = %self.id, "an upload has expired on the server");
                return Err(Status::Timeout);
            }
            let Some(facts) = Facts::decode(&self.id, &self.store.seal, &facts) else {
                // It was there already, and is none of ours.
                self.store.drop_forged(&self.id, &facts).await?;
                drop(claim);
                if is_last_try {
                    return Err(Status::IoErr);
                }
                is_last_try = true;
                continue;
            };
            claim.held(1, facts.into())?;
            if is_new > 0 {
                self.sent = 0;
                self.reserved.stored(call.cost);
            }
            return Ok(());
        }
    }
}

impl Transaction for Upload {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        let store = Arc::clone(&self.store);
        store.wait(self.append(data))
    }

    fn commit(mut self: Box<Self>) -> PluginResult<()> {
        let store = Arc::clone(&self.store);
        store.wait(async {
            self.finish().await?;
            match self.repository.take() {
                None => Ok(()),
                Some(repository) => Ok(self.store.add_member(&repository, &self.id).await?),
            }
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.sent == 0 {
            return;
        }
        let sending = self.sending.take();
        let mut command = redis::cmd("UNLINK");
        for number in 0..self.sent {
            command.arg(self.store.keys.upload(&self.id, &self.token, number));
        }
        let store = Arc::clone(&self.store);
        // If it fails, they expire.
        self.store.runtime.spawn(async move {
            if let Some(sending) = sending {
                let _ = sending.await;
            }
            let _ = store.link.command::<()>(&command).await;
        });
    }
}

/// Space that an upload has taken. It is given back on drop.
struct Reservation {
    store: Arc<Store>,
    bytes: u64,
}

impl Reservation {
    async fn grow_to(&mut self, bytes: u64) -> PluginResult<()> {
        if let Some(more) = bytes.checked_sub(self.bytes).filter(|&more| more > 0) {
            self.store.reserve(more).await?;
            self.bytes = bytes;
        }
        Ok(())
    }

    fn shrink_to(&mut self, bytes: u64) {
        self.store.budget().release(self.bytes.saturating_sub(bytes));
        self.bytes = bytes;
    }

    /// An object has taken it over.
    fn stored(&mut self, cost: u64) {
        self.shrink_to(cost);
        self.store.budget().stored(cost);
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.store.budget().release(self.bytes);
    }
}
