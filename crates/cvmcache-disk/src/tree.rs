//! The check of the tree: what the index does not know is taken in, and what is not on disk goes. It runs in
//! the background, while clients are served: until it has ended, an object is looked for when it is opened.

use std::fs;
use std::io;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, TryRecvError};

use cvmcache::plugin::ObjectId;

use crate::entry::Place;
use crate::layout::Layout;
use crate::store::Store;

impl Store {
    /// Compares the index with the tree. False if it was stopped.
    pub(crate) fn check_tree(&self, stop: &Receiver<()>) -> bool {
        for first in 0..=u8::MAX {
            if stop.try_recv() == Err(TryRecvError::Disconnected) {
                return false;
            }
            self.check_shard(first);
        }
        self.checked.store(true, Ordering::Relaxed);
        true
    }

    /// Compares the index with one directory of the tree.
    pub(crate) fn check_shard(&self, first: u8) {
        if let Err(error) = self.try_check_shard(first) {
            tracing::error!(%error, "cannot read {}", self.layout.shard(first).display());
        }
    }

    fn try_check_shard(&self, first: u8) -> io::Result<()> {
        let entries = match fs::read_dir(self.layout.shard(first)) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        for entry in entries.into_iter().flatten() {
            let Some(id) = Layout::object_of(first, &entry?.file_name()) else { continue };
            if self.locked(|state| state.index.get(&id).is_none()) {
                self.take_in(&id);
            }
        }
        let unverified: Vec<ObjectId> = self.locked(|state| {
            let entries = state.index.shard(first);
            entries.filter(|e| !e.verified && e.place == Place::Named).map(|e| e.id).collect()
        });
        for id in unverified {
            // It is lost if it is not there.
            let _ = self.look(&self.change(&id));
        }
        Ok(())
    }

    /// Takes in an object that is on disk. A file without bytes is what a power cut has left of one.
    fn take_in(&self, id: &ObjectId) {
        let change = self.change(id);
        let is_known =
            self.look(&change).is_ok() || self.locked(|state| state.index.get(id).is_some());
        if is_known || self.layout.is_alien() {
            return;
        }
        let path = self.layout.object(id);
        let is_empty =
            self.files.metadata(&path).is_ok_and(|file| file.is_file() && file.len() == 0);
        if is_empty {
            self.remove_upload(&path);
        }
    }

    /// Removes what a former run has left of its uploads.
    pub(crate) fn clear_uploads(&self) {
        let Ok(entries) = fs::read_dir(self.layout.uploads()) else { return };
        for entry in entries.flatten() {
            self.remove_upload(&entry.path());
        }
    }
}
