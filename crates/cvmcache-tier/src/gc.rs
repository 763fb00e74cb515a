//! Objects in the store that no cache needs any more, and markers that were lost.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cvmcache::plugin::ObjectId;
use futures_util::{StreamExt, stream};

use crate::cold::{ColdError, Listed, retried};
use crate::header::{Header, HeaderDigest, PREFIX};
use crate::hot::HotTier;
use crate::jobs::Progress;
use crate::key::{OBJECTS, StoreKey};
use crate::marker_list::ListError;
use crate::markers::{Marker, State};
use crate::tier::{RecallError, Tier};

const IN_FLIGHT: usize = 32;
const BATCH: usize = 512;
/// The header of an object of 100 MiB, with the protocol's longest description.
const LIKELY_HEADER: u64 = 8 * 1024;

impl<H: HotTier> Tier<H> {
    /// Finds, and with `delete` deletes, objects of the store that are older than `grace` and in the list of no
    /// cache of this prefix. A list that cannot be read, or is older than that, stops it before anything goes.
    pub(crate) async fn gc(
        &self,
        workspace: &Path,
        grace: Duration,
        delete: bool,
        progress: &Progress,
    ) -> Result<(), ListError> {
        self.upload_list(workspace).await?;
        let named = self.named(grace).await?;
        let timeout = self.config.store.timeout;
        // By the clock of the store, which has dated the objects.
        let now = named.now.unwrap_or(SystemTime::UNIX_EPOCH).min(SystemTime::now());
        let until = now.checked_sub(grace);
        let unnamed = self.cold.list(OBJECTS).filter_map(|listed| async {
            progress.look_at();
            match listed {
                Ok(listed) => {
                    let is_old = until.is_some_and(|until| listed.modified < until);
                    let is_garbage =
                        is_old && listed.key.to_object().is_some() && !named.contains(&listed.key);
                    is_garbage.then_some(Ok(listed))
                }
                Err(error) => Some(Err(error)),
            }
        });
        let deleted = unnamed.map(|listed| async move {
            let listed = listed?;
            if delete {
                retried(timeout, || self.cold.delete(&listed.key)).await?;
            }
            Ok::<_, ColdError>(listed)
        });
        let mut deleted = deleted.buffer_unordered(IN_FLIGHT).boxed();
        while let Some(listed) = deleted.next().await {
            match listed {
                Ok(listed) => progress.done(listed.len),
                Err(error) => {
                    progress.failed(&error);
                    // Half a listing is no reason to go on.
                    return Err(error.into());
                }
            }
            if progress.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    /// Makes markers again for objects of the store that have none, from their headers.
    pub(crate) async fn rebuild(&self, progress: &Progress) -> Result<(), ListError> {
        let mut newest: HashMap<ObjectId, (HeaderDigest, SystemTime)> = HashMap::new();
        let mut listed = self.cold.list(OBJECTS);
        while let Some(object) = listed.next().await {
            let Listed { key, modified, .. } = object?;
            progress.look_at();
            let Some((id, digest)) = key.to_object() else { continue };
            let known = newest.entry(id).or_insert((digest, modified));
            if known.1 < modified {
                *known = (digest, modified);
            }
        }
        drop(listed);
        let markers = stream::iter(newest).map(|(id, (digest, modified))| async move {
            if self.markers.get(&id)?.is_some_and(|marker| marker.state != State::Error) {
                return Ok(None);
            }
            let marker = self.marker_from_header(&id, digest, modified).await;
            match marker {
                Ok(marker) => Ok(Some((id, Some(marker)))),
                Err(error) => {
                    progress.failed(&format_args!("object {id}: {error}"));
                    Ok(None)
                }
            }
        });
        let mut batches = markers.buffer_unordered(IN_FLIGHT).ready_chunks(BATCH).boxed();
        while let Some(batch) = batches.next().await {
            let found: Vec<_> = batch.into_iter().collect::<Result<Vec<_>, ListError>>()?;
            let found: Vec<_> = found.into_iter().flatten().collect();
            self.markers.apply(&found, true)?;
            for (_, marker) in found {
                progress.done(marker.map_or(0, |marker| marker.len));
            }
            if progress.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    async fn marker_from_header(
        &self,
        id: &ObjectId,
        digest: HeaderDigest,
        archived: SystemTime,
    ) -> Result<Marker, RecallError> {
        let key = &StoreKey::of_object(id, &digest);
        let read =
            |len| retried(self.config.store.timeout, move || self.cold.read_range(key, 0..len));
        let mut bytes = read(LIKELY_HEADER).await?;
        let len = Header::len_from_prefix(&bytes[..bytes.len().min(PREFIX)])
            .map_err(RecallError::from_header)?;
        if len > bytes.len() {
            bytes = read(len as u64).await?;
        }
        let header = bytes.get(..len).ok_or_else(RecallError::cut)?;
        let (header, found) = Header::parse(header).map_err(RecallError::from_header)?;
        if found != digest || header.id != *id {
            return Err(RecallError::Damaged("its header is another one".to_owned()));
        }
        let is_local = self.hot.object(id).is_ok();
        let since_1970 = archived.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Marker {
            state: if is_local { State::Local } else { State::Remote },
            object_type: header.object_type,
            len: header.len,
            archived: since_1970.as_secs(),
            digest,
        })
    }

    /// Deletes the list of a cache that is no more, so that `gc` may delete what only that cache has used.
    pub(crate) async fn forget_cache(&self, cache: &str) -> Result<(), ColdError> {
        let is_id = cache.len() == 32 && cache.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id || cache == self.markers.cache_id() {
            return Err(ColdError::Settings(format!("{cache} is not the id of another cache")));
        }
        let key = StoreKey::of_markers(cache);
        retried(self.config.store.timeout, || self.cold.delete(&key)).await
    }
}
