//! Uploads: segments go to keys of their own, which expire, until one script makes them an object. An upload
//! keeps its keys from expiring while it lives; those of a plugin that has died are gone when its lease is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use cvmcache::Transaction;
use cvmcache::plugin::{NewObject, ObjectId, PluginResult, Status};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::backend::{Backend, Committed};
use crate::client::Failure;
use crate::cost::cost;
use crate::eviction::Evictor;
use crate::metadata::{ChunkLayout, ObjectMetadata};
use crate::scripts::CommitCall;
use crate::store::Store;

/// An object that is being uploaded.
pub(crate) struct Upload {
    store: Arc<Store>,
    id: ObjectId,
    metadata: ObjectMetadata,
    /// The repository that may see it, if sessions see only the objects of theirs.
    repository: Option<Bytes>,
    /// Names its keys.
    token: String,
    /// Received and not sent: less than a segment and a part.
    pending: Vec<Bytes>,
    pending_len: usize,
    /// How many segments were sent.
    sent: u64,
    /// The last of them, in flight: it is awaited before the next is sent.
    sending: Option<JoinHandle<Result<(), Failure>>>,
    reserved: Reservation,
    /// Keeps its keys from expiring, once there are any.
    refresh: Option<Refresh>,
}

impl Upload {
    /// Begins an upload. The first segment is the first request for it to the server.
    pub(crate) async fn begin(
        store: &Arc<Store>,
        new: NewObject,
        repository: Option<Bytes>,
    ) -> PluginResult<Self> {
        let metadata = ObjectMetadata {
            size: 0,
            object_type: new.object_type,
            layout: ChunkLayout::NEW,
            description: new.description,
        };
        let mut reserved = Reservation { evictor: Arc::clone(&store.evictor), bytes: 0 };
        reserved.grow_to(cost(&metadata)).await?;
        // What cannot fit is refused before it is sent, and before anything is evicted.
        store.evictor.check_fits(new.expected_size.unwrap_or(0)).await?;
        Ok(Self {
            store: Arc::clone(store),
            id: new.id,
            metadata,
            repository,
            token: format!("{:032x}", fastrand::u128(..)),
            pending: Vec::new(),
            pending_len: 0,
            sent: 0,
            sending: None,
            reserved,
            refresh: None,
        })
    }

    async fn append(&mut self, data: Bytes) -> PluginResult<()> {
        self.metadata.size += data.len() as u64;
        self.reserved.grow_to(cost(&self.metadata)).await?;
        self.pending_len += data.len();
        self.pending.push(data);
        let segment = usize::try_from(ChunkLayout::NEW.segment_len()).unwrap_or(usize::MAX);
        // The last segment is kept for the commit, which takes it along.
        while self.pending_len > segment {
            self.send(segment).await?;
        }
        Ok(())
    }

    /// Sends a segment, after the one before has arrived.
    async fn send(&mut self, len: usize) -> PluginResult<()> {
        let bytes = self.take_segment(len);
        self.await_sent().await?;
        let (backend, expiry) = (&self.store.backend, self.store.lease);
        let write = backend.segment_write(&self.id, &self.token, self.sent, &bytes, expiry);
        drop(bytes);
        self.sent += 1;
        let start = || Refresh::start(backend, self.id, &self.token, expiry);
        self.refresh.get_or_insert_with(start).sent.store(self.sent, Ordering::Relaxed);
        let (backend, evictor) = (Arc::clone(backend), Arc::clone(&self.store.evictor));
        self.sending = Some(tokio::spawn(async move {
            match backend.write_segment(&write).await {
                Err(Failure::OutOfMemory) => {
                    evictor.evict(len as u64).await?;
                    backend.write_segment(&write).await
                }
                result => result,
            }
        }));
        Ok(())
    }

    /// Waits for the segment that is in flight.
    async fn await_sent(&mut self) -> PluginResult<()> {
        match self.sending.take() {
            None => Ok(()),
            Some(sending) => Ok(sending.await.map_err(|_| Status::IoErr)??),
        }
    }

    /// Takes the next segment out of what is pending, with its tags.
    fn take_segment(&mut self, len: usize) -> Vec<u8> {
        let parts = self.take(len);
        let authenticator = self.store.backend.authenticator();
        self.metadata.layout.attach_tags(&self.id, authenticator, self.sent, &parts)
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

    /// Whether its keys cannot have expired.
    fn is_refreshed(&self) -> bool {
        self.refresh.as_ref().is_none_or(|refresh| refresh.last.lock().elapsed() < self.store.lease)
    }

    async fn finish(&mut self) -> PluginResult<()> {
        let last = self.take_segment(self.pending_len);
        self.await_sent().await?;
        let (backend, evictor) = (&self.store.backend, &self.store.evictor);
        let encoded = self.metadata.encode(&self.id, backend.authenticator());
        let call = CommitCall {
            metadata: &encoded,
            cost: cost(&self.metadata),
            object_type: self.metadata.object_type.to_wire(),
            token: &self.token,
            sent: self.sent,
            last: (!last.is_empty()).then_some(&last[..]),
        };
        let mut is_last_try = false;
        loop {
            // Invariant: a claim is dropped before an eviction, which may have to release this object.
            let claim = self.store.leases.claim(&self.id).await;
            match backend.commit(&self.id, &call).await {
                Err(Failure::OutOfMemory) if !is_last_try => {
                    drop(claim);
                    is_last_try = true;
                    evictor.evict(call.cost).await?;
                }
                Err(failure) => return Err(failure.into()),
                Ok(Committed::Expired) if self.is_refreshed() => {
                    tracing::warn!(
                        id = %self.id,
                        "the server has dropped an upload: it is out of memory and evicts what \
                         expires; set maxmemory-policy noeviction"
                    );
                    drop(claim);
                    evictor.relieve(call.cost).await?;
                    return Err(Status::NoSpace);
                }
                Ok(Committed::Expired) => {
                    tracing::warn!(id = %self.id, "an upload has expired on the server");
                    return Err(Status::Timeout);
                }
                // The object that was there is dropped: the next try commits this one.
                Ok(Committed::Untrusted) if !is_last_try => is_last_try = true,
                Ok(Committed::Untrusted) => return Err(Status::IoErr),
                Ok(Committed::New(metadata)) => {
                    claim.acquired(1, metadata)?;
                    self.sent = 0;
                    self.reserved.stored(call.cost);
                    return Ok(());
                }
                Ok(Committed::Existing(metadata)) => {
                    claim.acquired(1, metadata)?;
                    return Ok(());
                }
            }
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
            let Some(repository) = self.repository.take() else { return Ok(()) };
            let reference = store.leases.tentative(&self.id, 1);
            let added = match store.backend.add_member(&repository, &self.id).await {
                Err(Failure::OutOfMemory) => {
                    store.evictor.evict(MEMBER_ROOM).await?;
                    store.backend.add_member(&repository, &self.id).await
                }
                added => added,
            };
            added?;
            reference.keep();
            Ok(())
        })
    }
}

/// What is evicted for a member of a repository's set if the server is out of memory.
const MEMBER_ROOM: u64 = 1 << 20;

impl Drop for Upload {
    fn drop(&mut self) {
        if self.sent == 0 {
            return;
        }
        self.refresh = None;
        let sending = self.sending.take();
        let backend = Arc::clone(&self.store.backend);
        let (id, token, sent) = (self.id, std::mem::take(&mut self.token), self.sent);
        // If it fails, the keys expire.
        self.store.backend.spawn(async move {
            if let Some(sending) = sending {
                let _ = sending.await;
            }
            let _ = backend.unlink_segments(&id, &token, sent).await;
        });
    }
}

/// A task that keeps the keys of an upload from expiring. It ends when this is dropped.
struct Refresh {
    /// How many segments there are.
    sent: Arc<AtomicU64>,
    /// When all of them were refreshed.
    last: Arc<Mutex<Instant>>,
    task: JoinHandle<()>,
}

/// The pause after a refresh that has failed.
const RETRY: Duration = Duration::from_secs(1);

impl Refresh {
    fn start(backend: &Arc<Backend>, id: ObjectId, token: &str, expiry: Duration) -> Self {
        let (sent, last) = (Arc::<AtomicU64>::default(), Arc::new(Mutex::new(Instant::now())));
        let (backend, token) = (Arc::clone(backend), token.to_owned());
        let (number, refreshed) = (Arc::clone(&sent), Arc::clone(&last));
        let third = (expiry / 3).max(Duration::from_millis(1));
        let task = tokio::spawn(async move {
            let mut pause = third;
            loop {
                sleep(pause).await;
                let (begin, sent) = (Instant::now(), number.load(Ordering::Relaxed));
                pause = match backend.refresh_expiry(&id, &token, sent, expiry).await {
                    Ok(()) => {
                        *refreshed.lock() = begin;
                        third
                    }
                    // The server is away, and said to be.
                    Err(_) => RETRY.min(third / 4),
                };
            }
        });
        Self { sent, last, task }
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Space that is reserved for an upload. It is given back on drop.
struct Reservation {
    evictor: Arc<Evictor>,
    bytes: u64,
}

impl Reservation {
    async fn grow_to(&mut self, bytes: u64) -> PluginResult<()> {
        if let Some(more) = bytes.checked_sub(self.bytes).filter(|&more| more > 0) {
            self.evictor.reserve(more).await?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// An object has taken it over.
    fn stored(&mut self, cost: u64) {
        self.evictor.unreserve(self.bytes.saturating_sub(cost));
        self.evictor.stored(cost);
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.evictor.unreserve(self.bytes);
    }
}
