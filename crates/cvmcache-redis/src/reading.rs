//! Reads: one round trip for the bytes that a client reads of an object that is pinned.

use bytes::Bytes;
use cvmcache::plugin::{Data, ObjectId, PluginResult, Status};

use crate::client::Failure;
use crate::metadata::ObjectMetadata;
use crate::store::Store;

/// Why a range of an object has no data.
enum ReadError {
    OutOfBounds,
    /// The server does not have it.
    Missing,
    /// It does not verify.
    Mismatch,
    Failed(Failure),
}

impl Store {
    /// Up to `len` bytes of an object from `offset` on.
    pub(crate) async fn read(&self, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let metadata = self.leases.metadata(id).await?;
        match self.read_range(id, &metadata, offset, len).await {
            Ok(data) => return Ok(data),
            Err(ReadError::OutOfBounds) => return Err(Status::OutOfBounds),
            Err(ReadError::Failed(failure)) => return Err(failure.into()),
            Err(ReadError::Missing | ReadError::Mismatch) => {}
        }
        // The object may have been evicted and stored again since its metadata was fetched.
        let Some(metadata) = self.backend.fetch_metadata(id).await? else {
            self.leases.mark_lost(id);
            return Err(Status::NoEntry);
        };
        let status = match self.read_range(id, &metadata, offset, len).await {
            Ok(data) => return Ok(data),
            Err(ReadError::OutOfBounds) => return Err(Status::OutOfBounds),
            Err(ReadError::Failed(failure)) => return Err(failure.into()),
            Err(ReadError::Missing) => {
                tracing::warn!(%id, offset, "data of an object is missing, dropping it");
                Status::NoEntry
            }
            Err(ReadError::Mismatch) => {
                tracing::warn!(%id, offset, "data of an object does not verify, dropping it");
                Status::Corrupted
            }
        };
        self.backend.drop_object(id, &metadata).await?;
        self.leases.mark_lost(id);
        Err(status)
    }

    async fn read_range(
        &self,
        id: &ObjectId,
        metadata: &ObjectMetadata,
        offset: u64,
        len: u32,
    ) -> Result<Data, ReadError> {
        if offset > metadata.size {
            return Err(ReadError::OutOfBounds);
        }
        let end = metadata.size.min(offset.saturating_add(len.into()));
        let ranges: Vec<_> = metadata.layout.segment_ranges(metadata.size, offset, end).collect();
        let fetched = match self.backend.fetch_ranges(id, &ranges).await {
            Ok(fetched) => fetched,
            // A key of another type is in the place of a segment.
            Err(Failure::Refused(reason)) if reason.contains("WRONGTYPE") => {
                return Err(ReadError::Mismatch);
            }
            Err(failure) => return Err(ReadError::Failed(failure)),
        };
        if fetched.iter().any(Bytes::is_empty) {
            return Err(ReadError::Missing);
        }
        let mut data = Data::new();
        for (range, fetched) in ranges.iter().zip(&fetched) {
            let authenticator = self.backend.authenticator();
            let chunks = metadata.layout.verify(id, authenticator, range, fetched);
            let chunks = chunks.ok_or(ReadError::Mismatch)?;
            for (number, chunk) in (range.first..).zip(chunks) {
                // Where the chunk lies; both ends of the read may be inside of it.
                let begin = metadata.layout.offset(number);
                let from = offset.saturating_sub(begin).min(chunk.len() as u64);
                let to = (end - begin).min(chunk.len() as u64);
                data.push(chunk.slice(from as usize..to as usize));
            }
        }
        Ok(data)
    }
}
