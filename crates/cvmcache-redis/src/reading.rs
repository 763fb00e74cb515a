//! Reads: one round trip for the bytes that were asked for, of an object that is held.

use std::sync::Arc;

use bytes::Bytes;
use cvmcache::plugin::{Data, ObjectId, Result, Status};

use crate::client::Failure;
use crate::metadata::{ObjectMetadata, SegmentRange};
use crate::store::Store;

/// Why there are no bytes.
enum Unread {
    /// The server does not have them.
    Gone,
    /// They are not what was stored.
    Bad,
    Failed(Failure),
}

impl Store {
    /// Up to `len` bytes of an object from `offset` on.
    pub(crate) async fn read(&self, id: &ObjectId, offset: u64, len: u32) -> Result<Data> {
        let metadata = self.metadata(id).await?;
        match self.range(id, &metadata, offset, len).await? {
            Ok(data) => return Ok(data),
            Err(Unread::Failed(failure)) => return Err(failure.into()),
            Err(Unread::Gone | Unread::Bad) => {}
        }
        // The object may have been evicted and stored again since its metadata were read.
        let metadata = match self.fetch_metadata(id).await {
            Err(Status::NoEntry) => {
                self.mark_lost(id);
                return Err(Status::NoEntry);
            }
            metadata => metadata?,
        };
        let unread = match self.range(id, &metadata, offset, len).await? {
            Ok(data) => return Ok(data),
            Err(unread) => unread,
        };
        match unread {
            Unread::Failed(failure) => return Err(failure.into()),
            Unread::Gone => {
                tracing::warn!(%id, offset, "data of an object is gone, dropping it");
            }
            Unread::Bad => {
                tracing::warn!(%id, offset, "data of an object is not what was stored, dropping it");
            }
        }
        self.drop_corrupted(id, &metadata).await?;
        Err(if matches!(unread, Unread::Gone) { Status::NoEntry } else { Status::Corrupted })
    }

    async fn range(
        &self,
        id: &ObjectId,
        metadata: &Arc<ObjectMetadata>,
        offset: u64,
        len: u32,
    ) -> Result<Result<Data, Unread>> {
        if offset > metadata.size {
            return Err(Status::OutOfBounds);
        }
        let end = metadata.size.min(offset.saturating_add(len.into()));
        let segment_ranges: Vec<_> =
            metadata.layout.segment_ranges(metadata.size, offset, end).collect();
        let fetched = match self.fetch(id, &segment_ranges).await {
            Ok(fetched) => fetched,
            // Somebody has put a key of another kind there.
            Err(Failure::Refused(reason)) if reason.contains("WRONGTYPE") => {
                return Ok(Err(Unread::Bad));
            }
            Err(failure) => return Ok(Err(Unread::Failed(failure))),
        };
        if fetched.iter().any(Bytes::is_empty) {
            return Ok(Err(Unread::Gone));
        }
        let mut data = Data::new();
        for (range, fetched) in segment_ranges.iter().zip(&fetched) {
            let Some(chunks) = metadata.layout.verify(id, &self.authenticator, range, fetched)
            else {
                return Ok(Err(Unread::Bad));
            };
            for (number, chunk) in (range.first..).zip(chunks) {
                // Where the chunk lies; both ends of the range may be inside of it.
                let begin = metadata.layout.offset(number);
                let from = offset.saturating_sub(begin).min(chunk.len() as u64);
                let to = (end - begin).min(chunk.len() as u64);
                data.push(chunk.slice(from as usize..to as usize));
            }
        }
        Ok(Ok(data))
    }

    async fn fetch(
        &self,
        id: &ObjectId,
        segment_ranges: &[SegmentRange],
    ) -> Result<Vec<Bytes>, Failure> {
        match segment_ranges {
            [] => Ok(Vec::new()),
            [range] => {
                let mut command = redis::cmd("GETRANGE");
                let key = self.keys.segment(id, range.segment);
                command.arg(key).arg(range.from).arg(range.to - 1);
                let bytes: Vec<u8> = self.client.command(&command).await?;
                Ok(vec![bytes.into()])
            }
            _ => {
                let mut pipeline = redis::pipe();
                for range in segment_ranges {
                    let key = self.keys.segment(id, range.segment);
                    pipeline.cmd("GETRANGE").arg(key).arg(range.from).arg(range.to - 1);
                }
                let bytes: Vec<Vec<u8>> = self.client.pipeline(&pipeline).await?;
                if bytes.len() != segment_ranges.len() {
                    return Err(Failure::InvalidResponse("too few answers".to_owned()));
                }
                Ok(bytes.into_iter().map(Bytes::from).collect())
            }
        }
    }
}
