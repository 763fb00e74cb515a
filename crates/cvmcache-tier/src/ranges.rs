//! Reading large objects in the store without bringing them back: block by block, each verified.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cvmcache::plugin::{Data, ObjectId, ObjectType, PluginResult, Status};
use lru::LruCache;
use parking_lot::Mutex;

use crate::cold::{ColdError, retried};
use crate::config::ReadPolicy;
use crate::header::{BLOCK, Header};
use crate::hot::HotTier;
use crate::key::StoreKey;
use crate::markers::Marker;
use crate::recalls::Outcome;
use crate::tier::{RecallError, Tier};

/// Objects that are open and stay in the store.
#[derive(Debug)]
pub(crate) struct Ranges {
    open: Mutex<HashMap<ObjectId, Open>>,
    blocks: Mutex<LruCache<(ObjectId, usize), Bytes>>,
}

#[derive(Debug)]
struct Open {
    object: Arc<Remote>,
    references: u64,
}

/// An object in the store whose header is known.
#[derive(Debug)]
struct Remote {
    key: StoreKey,
    header: Header,
    /// Where the content begins.
    content: u64,
}

/// Smaller objects come back whole: that takes one request as well.
pub(crate) const SMALLEST: u64 = 8 * BLOCK;
/// The blocks that were read last: reads of 128 KiB need one several times.
const CACHED_BLOCKS: NonZeroUsize = NonZeroUsize::new(64).expect("it is not 0");

impl Ranges {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::default(), blocks: Mutex::new(LruCache::new(CACHED_BLOCKS)) }
    }

    /// Closes up to `by` references, and returns how many there were not.
    pub(crate) fn close(&self, id: &ObjectId, by: u64) -> u64 {
        let mut open = self.open.lock();
        let Some(entry) = open.get_mut(id) else { return by };
        let closed = by.min(entry.references);
        entry.references -= closed;
        if entry.references == 0 {
            open.remove(id);
        }
        by - closed
    }

    /// Opens an object that is open already; false if it is not.
    fn open_again(&self, id: &ObjectId, by: u64) -> bool {
        let mut open = self.open.lock();
        let Some(entry) = open.get_mut(id) else { return false };
        entry.references += by;
        true
    }

    fn get(&self, id: &ObjectId) -> Option<Arc<Remote>> {
        self.open.lock().get(id).map(|entry| Arc::clone(&entry.object))
    }

    /// How many objects are open.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().len()
    }
}

impl<H: HotTier> Tier<H> {
    /// Opens an object that is not here and is read from the store in blocks, `by` times. `None` if it is to be
    /// recalled instead.
    pub(crate) fn open_remote(
        &self,
        id: &ObjectId,
        by: u64,
        now: Instant,
    ) -> Option<PluginResult<()>> {
        if self.config.read != ReadPolicy::Ranges {
            return None;
        }
        while !self.ranges.open_again(id, by) {
            let marker = self.recallable(id)?;
            if marker.len < SMALLEST || marker.object_type == ObjectType::Catalog {
                return None;
            }
            // It takes a thread like a recall, and its failure is remembered alike.
            let outcome = self.recalls.recall(id, now, || {
                match self.runtime.block_on(self.remote_object(id, &marker)) {
                    Ok(object) => {
                        let object = Arc::new(object);
                        let mut open = self.ranges.open.lock();
                        open.entry(*id).or_insert(Open { object, references: 0 }).references += by;
                        true
                    }
                    Err(error) => {
                        self.not_recalled(id, &marker, &error);
                        false
                    }
                }
            });
            match outcome {
                Outcome::Recalled { is_leader: true } => break,
                // The leader may have closed it meanwhile.
                Outcome::Recalled { is_leader: false } => {}
                Outcome::Failed => return Some(Err(Status::NoEntry)),
            }
        }
        Some(Ok(()))
    }

    async fn remote_object(&self, id: &ObjectId, marker: &Marker) -> Result<Remote, RecallError> {
        let (reading, header) = self.open(id, marker).await?;
        let content = reading.len() - header.len;
        Ok(Remote { key: StoreKey::of_object(id, &marker.digest), header, content })
    }

    /// Reads from an open object in the store; `None` if it is not open there.
    pub(crate) fn read_remote(
        &self,
        id: &ObjectId,
        offset: u64,
        len: u32,
    ) -> Option<PluginResult<Data>> {
        let object = self.ranges.get(id)?;
        let size = object.header.len;
        if offset > size {
            return Some(Err(Status::OutOfBounds));
        }
        let end = offset.saturating_add(u64::from(len)).min(size);
        let mut data = Data::new();
        let mut at = offset;
        while at < end {
            let number = (at / BLOCK) as usize;
            let start = number as u64 * BLOCK;
            let block = match self.block(id, &object, number) {
                Ok(block) => block,
                Err(error) => {
                    // The client has been told that the object is there.
                    self.statistics
                        .warn(&format_args!("cannot read object {id} in the store: {error}"));
                    return Some(Err(Status::IoErr));
                }
            };
            let to = end.min(start + BLOCK);
            data.push(block.slice((at - start) as usize..(to - start) as usize));
            at = to;
        }
        Some(Ok(data))
    }

    /// A block of an object, verified.
    fn block(&self, id: &ObjectId, object: &Remote, number: usize) -> Result<Bytes, RecallError> {
        if let Some(block) = self.ranges.blocks.lock().get(&(*id, number)) {
            return Ok(block.clone());
        }
        let offset = number as u64 * BLOCK;
        let len = (object.header.len - offset).min(BLOCK);
        let range = object.content + offset..object.content + offset + len;
        let read = retried(self.config.store.timeout, || async {
            let block = self.cold.read_range(&object.key, range.clone()).await?;
            if blake3::hash(&block) == object.header.blocks[number] {
                Ok(block)
            } else {
                // What a proxy has answered, for example: asked for again a few times.
                Err(ColdError::Failed("a block is not what was archived".to_owned()))
            }
        });
        let block = self.runtime.block_on(read)?;
        self.ranges.blocks.lock().put((*id, number), block.clone());
        Ok(block)
    }
}
