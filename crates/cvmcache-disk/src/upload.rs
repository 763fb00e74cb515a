//! Uploads: files that are no objects yet, and the room that they have taken.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use cvmcache::Transaction;
use cvmcache::plugin::{NewObject, PluginResult, Status};

use crate::config::Fsync;
use crate::digest::BlockHasher;
use crate::entry::{NewEntry, Place, cost};
use crate::index::Dirty;
use crate::layout::UploadNumber;
use crate::publish::Published;
use crate::store::{Store, now};

/// An object that is arriving.
#[derive(Debug)]
pub(crate) struct Upload {
    store: Arc<Store>,
    new: NewObject,
    number: UploadNumber,
    file: File,
    size: u64,
    hasher: BlockHasher,
    /// The room taken in the index.
    reserved: u64,
    /// The file is an object's now, or gone.
    has_left: bool,
}

impl Upload {
    /// How often room is made on a full disk for one write.
    const ROUNDS: usize = 16;

    pub(crate) fn begin(store: &Arc<Store>, new: NewObject) -> PluginResult<Self> {
        let bytes = cost(0);
        reserve(store, bytes, cost(new.expected_size.unwrap_or(0)))?;
        let number = store.new_upload_number();
        let path = store.layout.upload(number);
        let create = || store.files.create(&path, store.layout.file_mode());
        let created = with_room(store, || match create() {
            // It looks unused to whatever removes directories.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                store.layout.make_directory(&store.layout.uploads())?;
                create()
            }
            result => result,
        });
        let file = created.inspect_err(|_| store.locked(|state| state.index.release(bytes)))?;
        let (store, hasher) = (Arc::clone(store), BlockHasher::default());
        Ok(Self { store, new, number, file, size: 0, hasher, reserved: bytes, has_left: false })
    }

    /// Publishes the file, unless the object is there already.
    fn publish(&mut self) -> PluginResult<()> {
        let store = Arc::clone(&self.store);
        let id = self.new.id;
        let change = store.change(&id);
        if store.look(&change).is_ok()
            && store.locked(|state| state.index.change_references(&id, 1)).is_ok()
        {
            return Ok(());
        }
        let place = match store.fsync {
            Fsync::Batched => Place::Upload(self.number),
            Fsync::Commit | Fsync::Never => {
                if store.fsync == Fsync::Commit {
                    with_room(&store, || store.files.sync(&[&self.file]))?;
                }
                let published =
                    with_room(&store, || store.publish(&change, self.number, self.size))?;
                self.has_left = true;
                if store.fsync == Fsync::Commit {
                    let shard = store.layout.shard(id.digest()[0]);
                    if let Err(error) = store.files.sync_directory(&shard) {
                        tracing::warn!(%error, "cannot synchronise {}", shard.display());
                    }
                }
                if published == Published::Theirs {
                    tracing::debug!("object {id} was on disk already");
                }
                Place::Named
            }
        };
        let digests = std::mem::take(&mut self.hasher).finish();
        let entry = NewEntry {
            id,
            size: self.size,
            object_type: self.new.object_type,
            description: self.new.description.take(),
            place,
            verified: place == Place::Named && !store.layout.is_alien(),
        };
        let now = now();
        store.locked(|state| {
            state.index.set_now(now);
            state.index.release(std::mem::take(&mut self.reserved));
            state.index.insert(entry, 1, None);
            state.index.mark_dirty(id, Dirty::Changed);
            state.digests.insert(id, digests);
            if let Place::Upload(_) = place {
                self.has_left = true;
                state.unsynced.push(id);
                state.unsynced_bytes += self.size;
            }
        });
        Ok(())
    }
}

impl Transaction for Upload {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        let size = self.size + data.len() as u64;
        let more = cost(size) - self.reserved;
        if more > 0 {
            reserve(&self.store, more, 0)?;
            self.reserved += more;
        }
        let (store, file, offset) = (&self.store, &self.file, self.size);
        with_room(store, || store.files.write_at(file, &data, offset))?;
        self.hasher.update(&data);
        self.size = size;
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> PluginResult<()> {
        self.publish()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.has_left {
            self.store.remove_upload(&self.store.layout.upload(self.number));
        }
        if self.reserved > 0 {
            self.store.locked(|state| state.index.release(self.reserved));
        }
    }
}

/// Takes room within the quota, and evicts what must go for it.
fn reserve(store: &Store, bytes: u64, expected: u64) -> PluginResult<()> {
    let evicted = store.locked(|state| state.index.reserve(bytes, expected))?;
    store.remove_evicted(&evicted);
    Ok(())
}

/// Repeats what fails for lack of room on the disk, which may have less than the quota: other programs use
/// it, too.
fn with_room<T>(store: &Store, mut work: impl FnMut() -> io::Result<T>) -> PluginResult<T> {
    for _ in 0..Upload::ROUNDS {
        match work() {
            Ok(done) => return Ok(done),
            Err(error) if is_full(&error) => {
                let evicted = store.locked(|state| {
                    // A share of what there is, so that not each write evicts.
                    let bytes = (state.index.occupied() / 16).max(MINIMAL_ROOM);
                    state.index.count_clean_up();
                    state.index.evict(bytes, usize::MAX)
                });
                if evicted.is_empty() {
                    break;
                }
                store.remove_evicted(&evicted);
                tracing::warn!("the disk is full: evicted {} objects", evicted.len());
            }
            Err(error) => {
                tracing::error!(%error, "an upload fails");
                return Err(Status::IoErr);
            }
        }
    }
    Err(Status::NoSpace)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

const MINIMAL_ROOM: u64 = 1024 * 1024;
