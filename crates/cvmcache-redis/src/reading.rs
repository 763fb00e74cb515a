//! Reads: one round trip for the bytes that were asked for, of an object that is held.

use std::sync::Arc;

use bytes::Bytes;
use cvmcache::plugin::{Data, ObjectId, PluginResult, Status};

use crate::facts::{Facts, Piece};
use crate::link::Failure;
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
    pub(crate) async fn read(&self, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let facts = self.facts(id).await?;
        match self.range(id, &facts, offset, len).await? {
            Ok(data) => return Ok(data),
            Err(Unread::Failed(failure)) => return Err(failure.into()),
            Err(Unread::Gone | Unread::Bad) => {}
        }
        // The object may have been evicted and stored again since its facts were read.
        let facts = match self.look(id).await {
            Err(Status::NoEntry) => {
                self.lose(id);
                return Err(Status::NoEntry);
            }
            facts => facts?,
        };
        let unread = match self.range(id, &facts, offset, len).await? {
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
        self.drop_corrupted(id, &facts).await?;
        Err(if matches!(unread, Unread::Gone) { Status::NoEntry } else { Status::Corrupted })
    }

    async fn range(
        &self,
        id: &ObjectId,
        facts: &Arc<Facts>,
        offset: u64,
        len: u32,
    ) -> PluginResult<Result<Data, Unread>> {
        if offset > facts.size {
            return Err(Status::OutOfBounds);
        }
        let end = facts.size.min(offset.saturating_add(len.into()));
        let pieces: Vec<_> = facts.shape.pieces(facts.size, offset, end).collect();
        let fetched = match self.fetch(id, &pieces).await {
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
        for (piece, fetched) in pieces.iter().zip(&fetched) {
            let Some(chunks) = facts.shape.open(id, &self.seal, piece, fetched) else {
                return Ok(Err(Unread::Bad));
            };
            for (number, chunk) in (piece.first..).zip(chunks) {
                // Where the chunk lies; both ends of the range may be inside of it.
                let begin = facts.shape.offset(number);
                let from = offset.saturating_sub(begin).min(chunk.len() as u64);
                let to = (end - begin).min(chunk.len() as u64);
                data.push(chunk.slice(from as usize..to as usize));
            }
        }
        Ok(Ok(data))
    }

    async fn fetch(&self, id: &ObjectId, pieces: &[Piece]) -> Result<Vec<Bytes>, Failure> {
        match pieces {
            [] => Ok(Vec::new()),
            [piece] => {
                let mut command = redis::cmd("GETRANGE");
                let key = self.keys.segment(id, piece.segment);
                command.arg(key).arg(piece.from).arg(piece.to - 1);
                let bytes: Vec<u8> = self.link.command(&command).await?;
                Ok(vec![bytes.into()])
            }
            _ => {
                let mut pipeline = redis::pipe();
                for piece in pieces {
                    let key = self.keys.segment(id, piece.segment);
                    pipeline.cmd("GETRANGE").arg(key).arg(piece.from).arg(piece.to - 1);
                }
                let bytes: Vec<Vec<u8>> = self.link.pipeline(&pipeline).await?;
                if bytes.len() != pieces.len() {
                    return Err(Failure::Nonsense("too few answers".to_owned()));
                }
                Ok(bytes.into_iter().map(Bytes::from).collect())
            }
        }
    }
}
