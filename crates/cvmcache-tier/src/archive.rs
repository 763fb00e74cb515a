//! Archiving: objects that have gone cold are written to the store, and only then their bytes here go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cvmcache::plugin::ObjectId;
use futures_util::{StreamExt, stream};
use tokio::task::spawn_blocking;

use crate::hot::{HotObject, HotTier};
use crate::jobs::Progress;
use crate::markers::{Marker, MarkersError, State};
use crate::tier::{Tier, UploadError};

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
        progress: &Progress,
    ) -> Result<(), MarkersError> {
        let failed_in_row = AtomicU64::new(0);
        let goes_on = |_: &HotObject| {
            progress.look_at();
            !progress.is_stopped()
                && !self.is_ending()
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
                    Err(error) if error.is_no_failure() => progress.skip(),
                    Err(error) => {
                        failed_in_row.fetch_add(1, Ordering::Relaxed);
                        let reason = format!("cannot archive object {id}: {error}");
                        progress.failed(&reason);
                        self.statistics.warn(&reason);
                    }
                }
            }
            let tier = Arc::clone(self);
            let released = spawn_blocking(move || tier.release(&uploaded)).await;
            // Without a result, the program ends.
            for is_gone in released.unwrap_or(Ok(Vec::new()))? {
                match is_gone {
                    Some(bytes) => progress.done(bytes),
                    None => progress.skip(),
                }
            }
        }
        Ok(())
    }

    /// Lets the bytes here go of objects that the store has: how many bytes of each, or `None` if it stays since
    /// it is open.
    fn release(&self, uploaded: &[(ObjectId, Marker)]) -> Result<Vec<Option<u64>>, MarkersError> {
        let with =
            |(id, marker): &(ObjectId, Marker), state| (*id, Some(Marker { state, ..*marker }));
        // Durable before anything goes: a restart knows where the objects are, and goes on from here.
        let repair: Vec<_> = uploaded.iter().map(|entry| with(entry, State::Repair)).collect();
        self.markers.apply(&repair, true)?;
        let mut changes = Vec::with_capacity(uploaded.len());
        let mut gone = Vec::with_capacity(uploaded.len());
        for entry in uploaded {
            let is_gone = self.hot.evict(&entry.0);
            changes.push(with(entry, if is_gone { State::Remote } else { State::Local }));
            gone.push(is_gone.then_some(entry.1.len));
        }
        self.markers.apply(&changes, false)?;
        Ok(gone)
    }

    /// Finishes what a former run has begun: objects in the store whose bytes here were about to go.
    pub(crate) fn repair(&self) -> Result<u64, MarkersError> {
        let (_, count) = self.markers.counts()[State::Repair as usize];
        if count.objects == 0 {
            return Ok(0);
        }
        let mut repaired = 0;
        for page in self.markers.pages() {
            let halfway: Vec<_> =
                page?.into_iter().filter(|(_, marker)| marker.state == State::Repair).collect();
            repaired += halfway.len() as u64;
            self.release(&halfway)?;
        }
        Ok(repaired)
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
