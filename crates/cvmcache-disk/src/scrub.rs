//! Scrubbing: objects are read at a bounded rate and compared with their digests.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use cvmcache::plugin::ObjectId;

use crate::database::Change as Written;
use crate::digest;
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
    /// It has gone, or has no name yet.
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
        let ids: Vec<_> =
            self.locked(|state| state.index.shard(first).map(|entry| entry.id).collect());
        let mut pace = |bytes: u64| {
            self.scrubbed.fetch_add(bytes, Ordering::Relaxed);
            is_running(stop, Duration::from_secs_f64(bytes as f64 / rate as f64))
        };
        ids.iter().all(|id| self.scrub(id, &mut pace) != Scrubbed::Stopped)
    }

    /// Reads an object and compares it with its digest; `pace` is called before each read, and stops it.
    pub(crate) fn scrub(&self, id: &ObjectId, pace: &mut impl FnMut(u64) -> bool) -> Scrubbed {
        let size = self.locked(|state| {
            let entry = state.index.get(id)?;
            (entry.place == Place::Named).then_some(entry.size)
        });
        let Some(size) = size else { return Scrubbed::Skipped };
        let path = self.layout.object(id);
        let file = match self.files.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Scrubbed::Skipped,
            Err(error) => return self.found_damaged(id, size, &error.to_string()),
        };
        let digests = match digest::of_file(&*self.files, &file, size, pace) {
            Ok(Some(digests)) => digests,
            Ok(None) => return Scrubbed::Stopped,
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return Scrubbed::Skipped,
            Err(error) => return self.found_damaged(id, size, &error.to_string()),
        };
        let pending = self.locked(|state| state.digests.get(id).cloned());
        let mut database = self.database.lock();
        let known = match pending {
            Some(known) => Some(known),
            None => database.digests(id).unwrap_or_default(),
        };
        match known {
            Some(known) if known == digests => Scrubbed::Good,
            Some(_) => {
                drop(database);
                self.found_damaged(id, size, "its bytes are not those that were stored")
            }
            None => {
                let written = database.apply(&[Written::Digests { id: *id, digests }]);
                if written.is_ok() { Scrubbed::Recorded } else { Scrubbed::Skipped }
            }
        }
    }

    fn found_damaged(&self, id: &ObjectId, size: u64, reason: &str) -> Scrubbed {
        let change = self.change(id);
        // It may have been evicted meanwhile, and stored again.
        let is_same = self.locked(|state| {
            let entry = state.index.get(id);
            entry.is_some_and(|entry| entry.place == Place::Named && entry.size == size)
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
