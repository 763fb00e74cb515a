//! Archiving: objects that have gone cold are written to the store, and only then their bytes here go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cvmcache::plugin::ObjectId;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::hot::{HotObject, HotTier};
use crate::markers::{Marker, MarkersError, State};
use crate::tier::{Tier, UploadError};

/// How far an archiving is, for others to look at and to stop it.
#[derive(Debug, Default)]
pub(crate) struct ArchiveProgress {
    /// Objects whose bytes have gone from here.
    pub(crate) archived: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Objects that were used, evicted or found to be catalogs meanwhile: they stay.
    pub(crate) skipped: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) stop: AtomicBool,
}

/// Uploads under way at once.
const IN_FLIGHT: usize = 64;
/// Objects whose markers are made durable together.
const BATCH: usize = 512;
/// After so many failures in a row the store is away: the rest is for the next time.
const MAX_FAILURES: u64 = 64;

impl<H: HotTier> Tier<H> {
    /// Archives these objects: each is written to the store and verified there, then its marker becomes durable,
    /// and then its bytes here go, unless it has been opened meanwhile.
    pub(crate) async fn archive(
        self: &Arc<Self>,
        objects: impl Iterator<Item = HotObject>,
        progress: &ArchiveProgress,
    ) -> Result<(), MarkersError> {
        let failed_in_row = AtomicU64::new(0);
        let goes_on = |_: &HotObject| {
            !progress.stop.load(Ordering::Relaxed)
                && failed_in_row.load(Ordering::Relaxed) < MAX_FAILURES
        };
        let uploads = stream::iter(objects.take_while(goes_on)).map(|object| {
            let id = object.id;
            async move { (id, self.upload(object).await) }
        });
        let mut batches = uploads.buffer_unordered(IN_FLIGHT).ready_chunks(BATCH).boxed_local();
        while let Some(batch) = batches.next().await {
            let mut uploaded = Vec::with_capacity(batch.len());
            for (id, result) in batch {
                match result {
                    Ok(marker) => {
                        failed_in_row.store(0, Ordering::Relaxed);
                        uploaded.push((id, marker));
                    }
                    Err(error) if error.is_no_failure() => {
                        progress.skipped.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        failed_in_row.fetch_add(1, Ordering::Relaxed);
                        progress.failed.fetch_add(1, Ordering::Relaxed);
                        self.statistics.warn(&format_args!("cannot archive object {id}: {error}"));
                    }
                }
            }
            let tier = Arc::clone(self);
            let released = spawn_blocking(move || tier.release(&uploaded)).await;
            // It panics if the work has, which is a defect; a runtime that ends has no one waiting.
            let (archived, bytes, kept) = released.unwrap_or(Ok((0, 0, 0)))?;
            progress.archived.fetch_add(archived, Ordering::Relaxed);
            progress.bytes.fetch_add(bytes, Ordering::Relaxed);
            progress.skipped.fetch_add(kept, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Lets the bytes here go of objects that the store has: how many objects and bytes, and how many stay since
    /// they are open.
    fn release(&self, uploaded: &[(ObjectId, Marker)]) -> Result<(u64, u64, u64), MarkersError> {
        let with = |state| move |&(id, marker): &(ObjectId, Marker)| (id, Some(Marker { state, ..marker }));
        // Durable before anything goes: a restart knows where the objects are, and goes on from here.
        let repair: Vec<_> = uploaded.iter().map(with(State::Repair)).collect();
        self.markers.apply(&repair, true)?;
        let (gone, kept): (Vec<_>, Vec<_>) =
            uploaded.iter().partition(|(id, _)| self.hot.evict(id));
        let mut changes: Vec<_> = gone.iter().map(with(State::Remote)).collect();
        changes.extend(kept.iter().map(with(State::Local)));
        self.markers.apply(&changes, false)?;
        let bytes = gone.iter().map(|(_, marker)| marker.len).sum();
        Ok((gone.len() as u64, bytes, kept.len() as u64))
    }

    /// Finishes what a former run has begun: objects in the store whose bytes here were about to go.
    pub(crate) fn repair(&self) -> Result<u64, MarkersError> {
        let (_, count) = self.markers.counts()[State::Repair as usize];
        if count.objects == 0 {
            return Ok(0);
        }
        let mut repaired = 0;
        let mut after = None;
        loop {
            let page = self.markers.page(after.as_ref(), BATCH)?;
            let Some((last, _)) = page.last() else { return Ok(repaired) };
            after = Some(*last);
            let halfway: Vec<_> =
                page.into_iter().filter(|(_, marker)| marker.state == State::Repair).collect();
            repaired += halfway.len() as u64;
            self.release(&halfway)?;
        }
    }

    /// The object with this id, to be archived.
    ///
    /// # Errors
    ///
    /// Why it cannot be: an object that is archived already is refused.
    pub(crate) fn archivable(&self, id: &ObjectId) -> Result<HotObject, String> {
        self.hot.object(id).map_err(|_| match self.markers.get(id) {
            Ok(Some(marker)) if marker.state == State::Error => {
                "it is in state ERROR: the store has lost it, and it is not here".to_owned()
            }
            Ok(Some(_)) => "it is REMOTE already".to_owned(),
            Ok(None) => "it is not here".to_owned(),
            Err(error) => error.to_string(),
        })
    }
}

impl UploadError {
    /// True for an object that rightly stays where it is.
    fn is_no_failure(&self) -> bool {
        matches!(self, Self::Gone | Self::Catalog | Self::TooLarge | Self::Ended)
    }
}

impl ArchiveProgress {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "archived": self.archived.load(Ordering::Relaxed),
            "bytes": self.bytes.load(Ordering::Relaxed),
            "skipped": self.skipped.load(Ordering::Relaxed),
            "failed": self.failed.load(Ordering::Relaxed),
        })
    }
}
