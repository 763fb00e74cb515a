//! Tests of the stores of this crate, against real servers.

mod conformance;
mod faults;
mod secrets;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use crate::cold::{ColdError, ColdStore, Uploaded};
use crate::key::StoreKey;

const MIB: usize = 1024 * 1024;

fn key(key: &str) -> StoreKey {
    StoreKey::new(key)
}

/// Bytes that differ wherever they are taken from.
fn bytes(len: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(len as u64);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Content in pieces of odd lengths.
fn pieces(content: &Bytes) -> BoxStream<'static, Result<Bytes, ColdError>> {
    let pieces: Vec<_> = content.chunks(300_007).map(|piece| content.slice_ref(piece)).collect();
    stream::iter(pieces).map(Ok).boxed()
}

async fn upload(store: &dyn ColdStore, name: &str, content: &Bytes) -> Result<Uploaded, ColdError> {
    store.upload(&key(name), content.len() as u64, pieces(content)).await
}

/// All that a download brings.
async fn download(
    store: &dyn ColdStore,
    name: &str,
    from: u64,
    etag: Option<&str>,
) -> Result<Vec<u8>, ColdError> {
    let mut download = store.download(&key(name), from, etag).await?;
    let mut all = Vec::new();
    while let Some(bytes) = download.content.next().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(all)
}
