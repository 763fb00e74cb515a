//! Uploads that are tried again, and given up when the store takes no more bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::pin;
use tokio::time::timeout as within;

use crate::cold::retry::Attempts;
use crate::cold::{ColdError, ColdStore, Uploaded};
use crate::key::StoreKey;

/// Uploads an object; `content` gives its bytes anew for each attempt. An attempt ends when the store has taken no byte
/// for `timeout`, and there is no other after ten times that.
pub(crate) async fn send(
    store: &dyn ColdStore,
    key: &StoreKey,
    len: u64,
    timeout: Duration,
    content: impl Fn() -> BoxStream<'static, Result<Bytes, ColdError>>,
) -> Result<Uploaded, ColdError> {
    let mut attempts = Attempts::new(timeout);
    loop {
        let taken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&taken);
        let counted = content().inspect(move |piece| {
            let len = piece.as_ref().map_or(0, Bytes::len);
            counter.fetch_add(len as u64, Ordering::Relaxed);
        });
        let upload = store.upload(key, len, counted.boxed());
        match while_bytes_go(timeout, &taken, upload).await {
            Ok(uploaded) => return Ok(uploaded),
            Err(error) => {
                attempts.pause(error).await?;
            }
        }
    }
}

/// Waits for an upload for as long as bytes are taken from it.
async fn while_bytes_go<T>(
    timeout: Duration,
    taken: &AtomicU64,
    upload: impl Future<Output = Result<T, ColdError>>,
) -> Result<T, ColdError> {
    pin!(upload);
    loop {
        let before = taken.load(Ordering::Relaxed);
        if let Ok(result) = within(timeout, &mut upload).await {
            return result;
        }
        if taken.load(Ordering::Relaxed) == before {
            let text = format!("it took no byte within {}", humantime::format_duration(timeout));
            return Err(ColdError::Unavailable(text));
        }
    }
}
