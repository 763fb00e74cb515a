//! Reading an object of a store from its beginning.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::cold::{ColdError, ColdStore, Download};
use crate::key::StoreKey;

/// An object of a store, as a sequence of bytes.
#[derive(Debug)]
pub(crate) struct Reading {
    download: Download,
    buffered: BytesMut,
}

impl Reading {
    /// Begins to read.
    pub(crate) async fn begin(
        store: Arc<dyn ColdStore>,
        key: StoreKey,
        _timeout: Duration,
    ) -> Result<Self, ColdError> {
        let download = store.download(&key, 0, None).await?;
        Ok(Self { download, buffered: BytesMut::new() })
    }

    /// The length of the whole object.
    pub(crate) fn len(&self) -> u64 {
        self.download.len
    }

    /// The next `len` bytes, or fewer at the end.
    pub(crate) async fn read(&mut self, len: usize) -> Result<Bytes, ColdError> {
        while self.buffered.len() < len {
            match self.download.content.next().await {
                Some(bytes) => self.buffered.extend_from_slice(&bytes?),
                None => break,
            }
        }
        let len = self.buffered.len().min(len);
        Ok(self.buffered.split_to(len).freeze())
    }
}
