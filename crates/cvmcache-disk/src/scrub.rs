//! Scrubbing: objects are read at a bounded rate and compared with their digests.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use cvmcache::plugin::ObjectId;

use crate::database::Change as Written;
use crate::digest::{self, BlockDigests};
use crate::index::Place;
use crate::store::Store;

/// A pass over a small cache does not begin again at once.
const PAUSE: Duration = Duration::from_secs(24 * 3600);

/// What scrubbing an object has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scrubbed {
    Good,
    /// There was no digest to compare with: there is one now.
    Recorded,
    /// It was moved aside.
    Damaged,
    /// It has gone, or got its name meanwhile.
    Skipped,
    Stopped,
}

/// Checks the tree, and then scrubs until `stop` is disconnected.
pub(crate) fn run(store: &Store, rate: u64, stop: &Receiver<()>) {
    if !store.layout.is_alien() {
        let begun = Instant::now();
        if !store.check_tree(stop) {
            return;
        }
        let (objects, took) = (store.locked(|state| state.index.len()), begun.elapsed());
        tracing::info!("the tree has been checked within {took:.1?}: {objects} objects");
    }
    if rate == 0 {
        return;
    }
    loop {
        for first in 0..=u8::MAX {
            if !store.scrub_shard(first, rate, stop) {
                return;
            }
        }
        if !is_running(stop, PAUSE) {
            return;
        }
    }
}

impl Store {
    fn scrub_shard(&self, first: u8, rate: u64, stop: &Receiver<()>) -> bool {
        let ids = self.shard(first);
        let mut pace = |bytes: u64| {
            self.scrubbed.fetch_add(bytes, Ordering::Relaxed);
            is_running(stop, Duration::from_secs_f64(bytes as f64 / rate as f64))
        };
        ids.iter().all(|id| self.scrub(id, &mut pace) != Scrubbed::Stopped)
    }

    /// The objects whose digest begins with this byte.
    pub(crate) fn shard(&self, first: u8) -> Vec<ObjectId> {
        self.locked(|state| state.index.shard(first).map(|entry| entry.id).collect())
    }

    /// Reads an object and compares it with its digest; `pace` is called before each read, and stops it.
    pub(crate) fn scrub(&self, id: &ObjectId, pace: &mut impl FnMut(u64) -> bool) -> Scrubbed {
        let known = self.locked(|state| state.index.get(id).map(|entry| (entry.size, entry.place)));
        let Some((size, place)) = known else { return Scrubbed::Skipped };
        let file = match self.files.open(&self.path(id, place)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.vanished(id);
                return Scrubbed::Skipped;
            }
            Err(error) => return self.found_damaged(id, (size, place), &error.to_string()),
        };
        let digests = match digest::of_file(&*self.files, &file, size, pace) {
            Ok(Some(digests)) => digests,
            Ok(None) => return Scrubbed::Stopped,
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return Scrubbed::Skipped,
            Err(error) => return self.found_damaged(id, (size, place), &error.to_string()),
        };
        match self.digests(id) {
            Some(known) if known == digests => Scrubbed::Good,
            Some(_) => {
                self.found_damaged(id, (size, place), "its bytes are not those that were stored")
            }
            None => {
                let written = [Written::Digests { id: *id, digests }];
                let written = self.database.lock().apply(&written);
                if written.is_ok() { Scrubbed::Recorded } else { Scrubbed::Skipped }
            }
        }
    }

    /// The digests of an object's blocks, if they are known.
    pub(crate) fn digests(&self, id: &ObjectId) -> Option<BlockDigests> {
        // With the database locked, they are not on their way into it.
        let mut database = self.database.lock();
        let pending = self.locked(|state| state.digests.get(id).cloned());
        pending.or_else(|| database.digests(id).unwrap_or_default())
    }

    fn found_damaged(&self, id: &ObjectId, known: (u64, Place), reason: &str) -> Scrubbed {
        let change = self.change(id);
        // It may have been evicted meanwhile, and stored again.
        let is_same = self.locked(|state| {
            state.index.get(id).is_some_and(|entry| (entry.size, entry.place) == known)
        });
        if !is_same {
            return Scrubbed::Skipped;
        }
        self.damaged(&change, reason);
        Scrubbed::Damaged
    }
}

/// Waits; false if it is time to stop.
fn is_running(stop: &Receiver<()>, wait: Duration) -> bool {
    stop.recv_timeout(wait) == Err(RecvTimeoutError::Timeout)
}
