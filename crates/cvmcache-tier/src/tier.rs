//! What the parts of a tier share: hot cache, store and markers, and how an object moves between them.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cvmcache::Session;
use cvmcache::plugin::{NewObject, ObjectId, ObjectType, Status};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::{self, BoxStream};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::cold::{ColdError, ColdStore, Reading, retried, send};
use crate::config::TierConfig;
use crate::header::{BLOCK, Header, HeaderDigest, HeaderError, PREFIX, Verifier};
use crate::hot::{HotObject, HotTier};
use crate::key::StoreKey;
use crate::markers::{Marker, Markers, MarkersError, State};
use crate::ranges::Ranges;
use crate::recalls::{Outcome, Recalls};
use crate::statistics::Statistics;

/// A hot cache, a store, and the markers between them.
///
/// Locks: those of `recalls`, `ranges` and `markers` are taken one at a time, and none while the store or the hot
/// cache is asked.
pub(crate) struct Tier<H> {
    pub(crate) hot: H,
    pub(crate) cold: Arc<dyn ColdStore>,
    pub(crate) markers: Markers,
    pub(crate) recalls: Recalls,
    pub(crate) ranges: Ranges,
    pub(crate) statistics: Statistics,
    pub(crate) config: TierConfig,
    /// Memory for what is on its way to the store, in units of [`UPLOAD_UNIT`].
    pub(crate) upload_memory: Semaphore,
    /// Where the store's futures run. Callbacks, which have threads of their own, wait for them.
    pub(crate) runtime: Handle,
    /// True once the tier is being dropped.
    pub(crate) is_ending: watch::Sender<bool>,
}

/// How long what is under way in the background may take when the tier ends: a store that hangs does not delay the
/// end of the process.
pub(crate) const END_GRACE: Duration = Duration::from_secs(2);

/// What an upload may hold in memory: a part that is sent, and the next one.
const UPLOAD_BUFFER: u64 = 16 << 20;
const UPLOAD_UNIT: u64 = 64 << 10;
/// What all uploads together may: eight long objects at once, or any number of short ones.
pub(crate) const UPLOAD_UNITS: usize = (8 * (UPLOAD_BUFFER / UPLOAD_UNIT + 1)) as usize;

/// Why an object did not come back from the store.
#[derive(Debug, Error)]
pub(crate) enum RecallError {
    /// What the store has is not what was archived.
    #[error("{0}")]
    Damaged(String),
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// The answer is not from the store: an error page, for example.
    #[error("what came is no object of this program: {0}")]
    Foreign(HeaderError),
    #[error("the hot cache does not take it: {0:?}")]
    Hot(Status),
}

/// Why an object was not written to the store.
#[derive(Debug, Error)]
pub(crate) enum UploadError {
    #[error("it is not here any more")]
    Gone,
    #[error("it is damaged here, and was moved aside")]
    Damaged,
    #[error("it cannot be read here: {0:?}")]
    Hot(Status),
    #[error("objects of more than 256 GiB are not archived")]
    TooLarge,
    #[error("a catalog stays here")]
    Catalog,
    #[error(transparent)]
    Cold(#[from] ColdError),
    #[error("what the store has is not what was sent: {0}")]
    Unverified(RecallError),
    #[error(transparent)]
    Markers(#[from] MarkersError),
    #[error("the program ends")]
    Ended,
}

impl<H: HotTier> Tier<H> {
    /// Runs what the tier does in the background; `None` if the tier ends before that has, and the grace is over.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut is_ending = self.is_ending.subscribe();
        let end = async {
            // Its sender lives as long as the tier.
            let _ = is_ending.wait_for(|is_ending| *is_ending).await;
            sleep(END_GRACE).await;
        };
        self.runtime.block_on(async {
            match select(pin!(work), pin!(end)).await {
                Either::Left((result, _)) => Some(result),
                Either::Right(_) => None,
            }
        })
    }

    /// True once the tier is being dropped: nothing more is begun in the background.
    pub(crate) fn is_ending(&self) -> bool {
        *self.is_ending.borrow()
    }

    /// The object's marker, if the store can be asked for the object.
    pub(crate) fn recallable(&self, id: &ObjectId) -> Option<Marker> {
        match self.markers.get(id) {
            Ok(marker) => marker.filter(|marker| marker.state != State::Error),
            Err(error) => {
                self.statistics.warn(&error);
                None
            }
        }
    }

    /// What is known of an object that is not in the hot cache, without asking the store.
    pub(crate) fn remote(&self, id: &ObjectId, now: Instant) -> Option<Marker> {
        self.recallable(id).filter(|_| !self.recalls.has_failed(id, now))
    }

    /// Brings an object into the hot cache that is not there, and waits for it. After
    /// [`Outcome::Recalled`], its leader has a reference to give up.
    pub(crate) fn recall(&self, session: &Session, id: &ObjectId, now: Instant) -> Outcome {
        let Some(marker) = self.recallable(id) else { return Outcome::Failed };
        self.recalls.recall(id, now, || {
            let download = || self.download(session, id, &marker);
            let result = self.runtime.block_on(unless_damaged_twice(download));
            self.statistics.count_recall(&result, marker.len, now.elapsed());
            match &result {
                Ok(()) => self.set_state(id, &marker, State::Local),
                Err(error) => self.not_recalled(id, &marker, error),
            }
            result.is_ok()
        })
    }

    /// Notes that an object could not be had from the store.
    pub(crate) fn not_recalled(&self, id: &ObjectId, marker: &Marker, error: &RecallError) {
        if error.is_lost() {
            tracing::error!("the store has lost object {id}: {error}");
            self.set_state(id, marker, State::Error);
        } else {
            self.statistics.warn(&format_args!("cannot recall object {id}: {error}"));
        }
    }

    fn set_state(&self, id: &ObjectId, marker: &Marker, state: State) {
        if let Err(error) = self.markers.set_state(id, marker, state) {
            self.statistics.warn(&error);
        }
    }

    /// Copies an object from the store into the hot cache, block by block, each verified before it is passed on.
    async fn download(
        &self,
        session: &Session,
        id: &ObjectId,
        marker: &Marker,
    ) -> Result<(), RecallError> {
        let (mut reading, header) = self.open(id, marker).await?;
        let mut object = NewObject::new(*id);
        object.object_type = header.object_type;
        object.expected_size = Some(header.len);
        object.description = header.description.clone();
        let mut upload = self.hot.begin(session, object).map_err(RecallError::Hot)?;
        let mut verifier = Verifier::new(&header);
        while let Some(block) = next_block(&mut reading, &mut verifier).await? {
            upload.write(block).map_err(RecallError::Hot)?;
        }
        upload.commit().map_err(RecallError::Hot)
    }

    /// Begins to read an object in the store, and verifies that it is the one of the marker.
    pub(crate) async fn open(
        &self,
        id: &ObjectId,
        marker: &Marker,
    ) -> Result<(Reading, Header), RecallError> {
        let key = StoreKey::of_object(id, &marker.digest);
        let mut reading = self.reading(key).await?;
        let (header, digest) = read_header(&mut reading).await?;
        if digest != marker.digest || header.id != *id || header.len != marker.len {
            return Err(RecallError::Damaged("its header is another one".to_owned()));
        }
        Ok((reading, header))
    }

    pub(crate) async fn reading(&self, key: StoreKey) -> Result<Reading, ColdError> {
        Reading::begin(Arc::clone(&self.cold), key, self.config.store.timeout).await
    }

    async fn exists(&self, key: &StoreKey) -> Result<Option<u64>, ColdError> {
        retried(self.config.store.timeout, || self.cold.exists(key)).await
    }

    /// Reads all of an object in the store and compares it with its digests.
    pub(crate) async fn verify_remote(
        &self,
        id: &ObjectId,
        marker: &Marker,
    ) -> Result<(), RecallError> {
        unless_damaged_twice(|| self.verify_once(id, marker)).await
    }

    async fn verify_once(&self, id: &ObjectId, marker: &Marker) -> Result<(), RecallError> {
        let (mut reading, header) = self.open(id, marker).await?;
        let mut verifier = Verifier::new(&header);
        while next_block(&mut reading, &mut verifier).await?.is_some() {}
        Ok(())
    }

    /// Writes an object of the hot cache to the store, verified at both ends, and returns its marker, which is
    /// not yet stored. What the store has already is not written again.
    pub(crate) async fn upload(self: &Arc<Self>, object: HotObject) -> Result<Marker, UploadError> {
        let HotObject { id, len, object_type, description } = object;
        if !Header::fits(len) {
            return Err(UploadError::TooLarge);
        }
        if object_type == ObjectType::Catalog || self.looks_like_catalog(&id, len).await? {
            return Err(UploadError::Catalog);
        }
        let tier = Arc::clone(self);
        let blocks = blocking(move || tier.hot.block_digests(&id)).await?;
        let blocks = blocks.into_iter().map(blake3::Hash::from_bytes).collect();
        let header = Header { id, object_type, description, len, blocks };
        let (encoded, digest) = header.encode();
        let archived = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let marker = Marker { state: State::Local, object_type, len, archived, digest };
        let stored_len = encoded.len() as u64 + len;
        if let Some(known) = self.markers.get(&id)?
            && known.digest == digest
            && known.state != State::Error
            && self.exists(&StoreKey::of_object(&id, &digest)).await? == Some(stored_len)
        {
            return Ok(Marker { archived: known.archived, ..marker });
        }
        let key = StoreKey::of_object(&id, &digest);
        let header = Arc::new(header);
        let units = (len.min(UPLOAD_BUFFER) / UPLOAD_UNIT) as u32 + 1;
        let _memory =
            self.upload_memory.acquire_many(units).await.map_err(|_| UploadError::Ended)?;
        let content = || self.content(Arc::clone(&header), encoded.clone());
        let begun = Instant::now();
        let timeout = self.config.store.timeout;
        let uploaded = send(&*self.cold, &key, stored_len, timeout, content).await;
        self.statistics.count_upload(&uploaded, len, begun.elapsed());
        match uploaded {
            Ok(uploaded) if uploaded.is_verified => {}
            Ok(_) => {
                self.verify_remote(&id, &marker).await.map_err(UploadError::Unverified)?;
            }
            Err(ColdError::Source(reason)) => {
                // Either it has gone meanwhile, or it is not what was stored: this finds out.
                tracing::warn!("object {id} was not archived: {reason}");
                let tier = Arc::clone(self);
                blocking(move || tier.hot.verify(&id)).await?;
                return Err(ColdError::Source(reason).into());
            }
            Err(error) => return Err(error.into()),
        }
        Ok(marker)
    }

    /// Writes an object of the hot cache to the store; its bytes here stay.
    pub(crate) async fn write(self: &Arc<Self>, id: ObjectId) -> Result<(), UploadError> {
        let tier = Arc::clone(self);
        let object = blocking(move || tier.hot.object(&id)).await?;
        let marker = self.upload(object).await?;
        Ok(self.markers.apply(&[(id, Some(marker))], false)?)
    }

    /// A client has stored this object: its bytes are here, whatever the store has.
    pub(crate) fn stored(&self, id: &ObjectId) {
        self.recalls.forget_failure(id);
        let update = || match self.markers.get(id)? {
            Some(marker) if marker.state == State::Error => {
                self.markers.apply(&[(*id, None)], false)
            }
            Some(marker) if marker.state == State::Remote => {
                self.markers.set_state(id, &marker, State::Local)
            }
            _ => Ok(()),
        };
        if let Err(error) = update() {
            self.statistics.warn(&error);
        }
    }

    /// Header and blocks of an object of the hot cache, each block compared with its digest.
    fn content(
        self: &Arc<Self>,
        header: Arc<Header>,
        encoded: Bytes,
    ) -> BoxStream<'static, Result<Bytes, ColdError>> {
        let tier = Arc::clone(self);
        let blocks = stream::iter(0..header.blocks.len()).then(move |block| {
            let (tier, header) = (Arc::clone(&tier), Arc::clone(&header));
            async move {
                let id = header.id;
                let offset = block as u64 * BLOCK;
                let len = (header.len - offset).min(BLOCK) as u32;
                let read = blocking(move || tier.hot.read_unused(&id, offset, len)).await;
                let bytes =
                    read.map_err(|error| ColdError::Source(error.to_string()))?.into_bytes();
                if blake3::hash(&bytes) != header.blocks[block] {
                    return Err(ColdError::Source(
                        "its bytes are not those that were stored".to_owned(),
                    ));
                }
                Ok(bytes)
            }
        });
        stream::once(async { Ok(encoded) }).chain(blocks).boxed()
    }

    /// Catalogs are read in small pieces at random, and stay here. Their type is not always known.
    async fn looks_like_catalog(
        self: &Arc<Self>,
        id: &ObjectId,
        len: u64,
    ) -> Result<bool, UploadError> {
        const SQLITE: &[u8] = b"SQLite format 3\0";
        if len < SQLITE.len() as u64 {
            return Ok(false);
        }
        let (tier, id) = (Arc::clone(self), *id);
        let begin = blocking(move || tier.hot.read_unused(&id, 0, SQLITE.len() as u32)).await?;
        Ok(begin.into_bytes() == SQLITE)
    }
}

impl<H> fmt::Debug for Tier<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier").field("cold", &self.cold).finish_non_exhaustive()
    }
}

impl RecallError {
    /// True if the store has not got what was archived, and asking it again is of no use.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Cold(ColdError::NotFound))
    }
}

impl From<Status> for UploadError {
    fn from(status: Status) -> Self {
        match status {
            Status::NoEntry => Self::Gone,
            Status::Corrupted => Self::Damaged,
            status => Self::Hot(status),
        }
    }
}

/// Reads the header at the beginning of an object in the store.
pub(crate) async fn read_header(
    reading: &mut Reading,
) -> Result<(Header, HeaderDigest), RecallError> {
    let prefix = reading.read(PREFIX).await?;
    let len = Header::len_from_prefix(&prefix).map_err(RecallError::from_header)?;
    let rest = reading.read(len - PREFIX).await?;
    let bytes = [prefix, rest].concat();
    let (header, digest) = Header::parse(&bytes).map_err(RecallError::from_header)?;
    let expected = len as u64 + header.len;
    if reading.len() != expected {
        let reason = format!("it has {} bytes instead of {expected}", reading.len());
        return Err(RecallError::Damaged(reason));
    }
    Ok((header, digest))
}

/// The next block, verified; `None` after the last one.
async fn next_block(
    reading: &mut Reading,
    verifier: &mut Verifier<'_>,
) -> Result<Option<Bytes>, RecallError> {
    let len = verifier.block_len();
    if len == 0 {
        return Ok(None);
    }
    let block = reading.read(len).await?;
    if !verifier.is_next(&block) {
        return Err(RecallError::Damaged("a block is not what was archived".to_owned()));
    }
    Ok(Some(block))
}

impl RecallError {
    pub(crate) fn cut() -> Self {
        Self::Damaged("it ends early".to_owned())
    }

    pub(crate) fn from_header(error: HeaderError) -> Self {
        match error {
            HeaderError::Damaged => Self::Damaged(error.to_string()),
            HeaderError::Magic | HeaderError::Version(_) => Self::Foreign(error),
        }
    }
}

/// Reads once more what came damaged: maybe it was on its way, and not in the store.
async fn unless_damaged_twice<F: Future<Output = Result<(), RecallError>>>(
    read: impl Fn() -> F,
) -> Result<(), RecallError> {
    match read().await {
        Err(RecallError::Damaged(_)) => read().await,
        result => result,
    }
}

/// Runs what may wait for a disk on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, UploadError> {
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(UploadError::from),
        Err(error) if error.is_panic() => Err(UploadError::Hot(Status::IoErr)),
        Err(_) => Err(UploadError::Ended),
    }
}
