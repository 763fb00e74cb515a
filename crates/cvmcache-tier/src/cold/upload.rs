//! Uploads to a store of the crate `object_store`: in one request, or in parts that are aborted on failure.

use bytes::Bytes;
use futures_util::stream::{BoxStream, TryStreamExt};
use md5::{Digest, Md5};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::runtime::Handle;

use crate::cold::{ColdError, Uploaded, failure};

/// The length of a part; up to this, an object is sent in one request. S3 takes 5 MiB or more.
const PART: u64 = 8 * 1024 * 1024;
/// The number of parts that S3 takes.
const MAX_PARTS: u64 = 10_000;

/// Stores `content` if it has `len` bytes.
pub(crate) async fn upload(
    store: &dyn ObjectStore,
    path: &Path,
    len: u64,
    content: BoxStream<'_, Result<Bytes, ColdError>>,
) -> Result<Uploaded, ColdError> {
    let mut parts = Parts { content, rest: Bytes::new(), left: len };
    if len <= PART {
        let (payload, md5) = parts.next(PART).await?;
        parts.end().await?;
        let stored = store.put(path, payload).await.map_err(failure::translate)?;
        return Ok(uploaded(stored.e_tag, &hex(&md5)));
    }
    let multipart = store.put_multipart(path).await.map_err(failure::translate)?;
    let mut multipart = AbortOnDrop(Some(multipart));
    let sent = send_parts(&mut multipart, &mut parts, len).await;
    match sent {
        Ok(uploaded) => {
            multipart.0 = None;
            Ok(uploaded)
        }
        Err(e) => {
            if let Some(mut multipart) = multipart.0.take() {
                abort(&mut *multipart).await;
            }
            Err(e)
        }
    }
}

async fn send_parts(
    multipart: &mut AbortOnDrop,
    parts: &mut Parts<'_>,
    len: u64,
) -> Result<Uploaded, ColdError> {
    let Some(multipart) = &mut multipart.0 else { return Ok(Uploaded::default()) };
    let part_len = PART.max(len.div_ceil(MAX_PARTS).next_multiple_of(1024 * 1024));
    let mut of_parts = Md5::new();
    let mut count = 0;
    while parts.left > 0 {
        let (payload, md5) = parts.next(part_len).await?;
        if parts.left == 0 {
            parts.end().await?;
        }
        multipart.put_part(payload).await.map_err(failure::translate)?;
        of_parts.update(&md5);
        count += 1;
    }
    let stored = multipart.complete().await.map_err(failure::translate)?;
    Ok(uploaded(stored.e_tag, &format!("{}-{count}", hex(&of_parts.finalize()))))
}

fn uploaded(etag: Option<String>, expected: &str) -> Uploaded {
    Uploaded { is_verified: etag.is_some_and(|etag| etag.trim_matches('"') == expected) }
}

/// Aborts an upload whose future was dropped: a store keeps its parts for ever.
struct AbortOnDrop(Option<Box<dyn MultipartUpload>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let (Some(mut multipart), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move { abort(&mut *multipart).await });
        }
    }
}

async fn abort(multipart: &mut dyn MultipartUpload) {
    if let Err(e) = multipart.abort().await {
        let e = failure::translate(e);
        tracing::warn!("an upload in parts could not be aborted, the store may keep them: {e}");
    }
}

/// The content of an object in parts of one length.
struct Parts<'a> {
    content: BoxStream<'a, Result<Bytes, ColdError>>,
    rest: Bytes,
    left: u64,
}

impl Parts<'_> {
    /// The next bytes, as many as `len` or all that are left, and their MD5.
    async fn next(&mut self, len: u64) -> Result<(PutPayload, Vec<u8>), ColdError> {
        let mut md5 = Md5::new();
        let mut chunks = Vec::new();
        let mut missing = len.min(self.left);
        self.left -= missing;
        while missing > 0 {
            if self.rest.is_empty() {
                self.rest = self.content.try_next().await?.ok_or_else(|| {
                    ColdError::Source("it is shorter than when its upload began".into())
                })?;
            }
            let taken =
                usize::try_from(missing).map_or(self.rest.len(), |n| n.min(self.rest.len()));
            let chunk = self.rest.split_to(taken);
            missing -= chunk.len() as u64;
            md5.update(&chunk);
            if !chunk.is_empty() {
                chunks.push(chunk);
            }
        }
        Ok((PutPayload::from_iter(chunks), md5.finalize().to_vec()))
    }

    /// Nothing comes after what was promised.
    async fn end(&mut self) -> Result<(), ColdError> {
        while self.rest.is_empty() {
            match self.content.try_next().await? {
                None => return Ok(()),
                Some(bytes) => self.rest = bytes,
            }
        }
        Err(ColdError::Source("it is longer than when its upload began".into()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
