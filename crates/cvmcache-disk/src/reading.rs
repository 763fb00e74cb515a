//! Reads of objects: from the page cache or the disk into the buffer of the reply, by one copy.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cvmcache::plugin::{Data, ObjectId, PluginResult, ReadBuffer, Status};

use crate::entry::Place;
use crate::store::Store;

impl Store {
    /// Reads `len` bytes from `offset` on, or fewer at the end of the object.
    pub(crate) fn read(&self, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let (size, file) = self.open(id, true)?;
        self.read_file(id, size, &file, offset, len)
    }

    /// The same for what is no use by a client: the file is closed again.
    pub(crate) fn read_unused(&self, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let (size, file) = self.open(id, false)?;
        self.read_file(id, size, &file, offset, len)
    }

    /// Reads as [`read`](Self::read) does if all of it is in the page cache; else a worker does.
    pub(crate) fn try_read(
        &self,
        id: &ObjectId,
        offset: u64,
        len: u32,
    ) -> Option<PluginResult<Data>> {
        if !self.can_read_cached.load(Ordering::Relaxed) {
            return None;
        }
        let (size, place) =
            self.locked(|state| state.index.get(id).map(|entry| (entry.size, entry.place)))?;
        if offset > size {
            return Some(Err(Status::OutOfBounds));
        }
        let len = u64::from(len).min(size - offset) as usize;
        if len == 0 {
            return Some(Ok(Data::default()));
        }
        let file = match self.descriptors.get(id) {
            Some(file) => file,
            None => self.keep(id, self.files.open_cached(&self.path(id, place)).ok()?),
        };
        let mut buffer = ReadBuffer::new(len).ok()?;
        match self.files.read_cached(&file, &mut buffer, offset) {
            Ok(read) if read == len => Some(Ok(buffer.into())),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.can_read_cached.store(false, Ordering::Relaxed);
                None
            }
            _ => None,
        }
    }

    fn read_file(
        &self,
        id: &ObjectId,
        size: u64,
        file: &File,
        offset: u64,
        len: u32,
    ) -> PluginResult<Data> {
        if offset > size {
            return Err(Status::OutOfBounds);
        }
        let len = u64::from(len).min(size - offset);
        if len == 0 {
            return Ok(Data::default());
        }
        let mut buffer = ReadBuffer::new(len as usize)?;
        while (buffer.as_ref().len() as u64) < len {
            let read = buffer.as_ref().len() as u64;
            match self.files.read_at(file, &mut buffer, offset + read) {
                Ok(0) => {
                    self.damaged(&self.change(id), "its file ends early");
                    return Err(Status::Corrupted);
                }
                Ok(_) => {}
                Err(error) => {
                    self.damaged(&self.change(id), &error.to_string());
                    return Err(Status::IoErr);
                }
            }
        }
        Ok(buffer.into())
    }

    /// The size of an object and its file, which is kept open if it `is_used`.
    fn open(&self, id: &ObjectId, is_used: bool) -> PluginResult<(u64, Arc<File>)> {
        // It may get its name between the look-up and the open, but only once.
        for _ in 0..2 {
            let (size, place) = self.entry(id)?;
            if is_used && let Some(file) = self.descriptors.get(id) {
                return Ok((size, file));
            }
            match self.files.open(&self.path(id, place)) {
                Ok(file) => {
                    let file = if is_used { self.keep(id, file) } else { Arc::new(file) };
                    return Ok((size, file));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::error!(%error, "cannot open object {id}");
                    return Err(Status::IoErr);
                }
            }
        }
        self.vanished(id);
        Err(Status::NoEntry)
    }

    /// Keeps the file of an object open.
    fn keep(&self, id: &ObjectId, file: File) -> Arc<File> {
        let file = Arc::new(file);
        self.locked(|state| {
            if state.index.get(id).is_some() {
                self.descriptors.put(*id, Arc::clone(&file));
            }
        });
        file
    }

    /// The size and the place of an object; a reader has it open, so it was verified to be there.
    fn entry(&self, id: &ObjectId) -> PluginResult<(u64, Place)> {
        let known = |state: &crate::store::State| {
            state.index.get(id).map(|entry| (entry.size, entry.place))
        };
        if let Some(known) = self.locked(|state| known(state)) {
            return Ok(known);
        }
        self.find(id, |index| {
            index.get(id).map(|entry| (entry.size, entry.place)).ok_or(Status::NoEntry)
        })
    }

    /// The file of an object is not where it was: it has got its name meanwhile, or is lost.
    pub(crate) fn vanished(&self, id: &ObjectId) {
        let _change = self.change(id);
        let place = self.locked(|state| state.index.get(id).map(|entry| entry.place));
        let Some(place) = place else { return };
        if self.files.metadata(&self.path(id, place)).is_err() {
            tracing::warn!("the file of object {id} has vanished");
            self.lose(id);
        }
    }
}
