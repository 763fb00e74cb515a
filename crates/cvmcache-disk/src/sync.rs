//! A thread that synchronises files in batches and gives them their names, tells the database what has
//! changed, and continues clean-ups.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, at, never, select};
use cvmcache::plugin::ObjectId;

use crate::database::{Change as Written, Found};
use crate::entry::{NewEntry, Place};
use crate::index::Dirty;
use crate::layout::UploadNumber;
use crate::publish::Published;
use crate::store::{State, Store};

/// An object that waits for its name is lost in a power cut, or with the process: for so long at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the database is not told within this is lost: the order of use, types, and descriptions.
const DATABASE_INTERVAL: Duration = Duration::from_secs(5);

/// After an error of the database, the next attempt comes this much later.
const DATABASE_RETRY: Duration = Duration::from_secs(60);

/// Runs until `stop` is disconnected.
pub(crate) fn run(store: &Store, stop: &Receiver<()>) {
    let (mut sync_at, mut write_at) = (None, None);
    loop {
        let (pending, now) = (store.pending(), Instant::now());
        sync_at = pending.sync.then(|| sync_at.unwrap_or(now + INTERVAL));
        write_at = pending.write.then(|| write_at.unwrap_or(now + DATABASE_INTERVAL));
        let is_due = |time: Option<Instant>| pending.is_urgent || time.is_some_and(|it| it <= now);
        if !is_due(sync_at) && !is_due(write_at) {
            let next = [sync_at, write_at].into_iter().flatten().min();
            select! {
                recv(stop) -> _ => return,
                recv(store.wake_ups()) -> _ => {}
                recv(next.map_or_else(never, at)) -> _ => {}
            }
            continue;
        }
        if stop.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
        store.clean_up_step();
        if is_due(sync_at) {
            store.name_unsynced();
            sync_at = None;
        }
        if write_at.is_some_and(|it| it <= now) {
            write_at = if store.write_database() { None } else { Some(now + DATABASE_RETRY) };
        }
    }
}

impl Store {
    /// Evicts a batch, if a clean-up is in progress.
    pub(crate) fn clean_up_step(&self) {
        let evicted = self.locked(|state| state.index.clean_up());
        self.remove_evicted(&evicted);
    }

    /// Synchronises the files that wait for it, and gives them their names.
    pub(crate) fn name_unsynced(&self) {
        loop {
            let batch = self.locked(State::take_batch);
            if batch.is_empty() {
                return;
            }
            let mut failed = Vec::new();
            let synced = self.sync_uploads(&batch);
            for (id, number) in batch {
                let change = self.change(&id);
                // It may have been evicted, or evicted and stored again.
                let size = self.locked(|state| {
                    let entry = state.index.get(&id)?;
                    (entry.place == Place::Upload(number)).then_some(entry.size)
                });
                let Some(size) = size else { continue };
                let named = match &synced {
                    Ok(()) => self.publish(&change, number, size),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                };
                match named {
                    Ok(Published::Ours | Published::Theirs) => self.locked(|state| {
                        state.index.set_named(&id);
                        if !self.layout.is_alien() {
                            state.index.set_verified(&id);
                        }
                    }),
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => failed.push(id),
                    Err(error) => self.damaged(&change, &format!("it cannot be kept: {error}")),
                }
            }
            if !failed.is_empty() {
                // The next round may find room: uploads that find the disk full evict.
                tracing::warn!("no room on the disk for the names of {} objects", failed.len());
                self.locked(|state| state.unsynced.extend(failed));
                return;
            }
        }
    }

    fn sync_uploads(&self, batch: &[(ObjectId, UploadNumber)]) -> io::Result<()> {
        let open = |(_, number): &(ObjectId, UploadNumber)| {
            match self.files.open(&self.layout.upload(*number)) {
                // Evicted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                result => Some(result),
            }
        };
        let files: Vec<File> = batch.iter().filter_map(open).collect::<io::Result<_>>()?;
        self.files.sync(&files.iter().collect::<Vec<_>>())
    }

    /// Tells the database what has changed. False if it cannot be told.
    pub(crate) fn write_database(&self) -> bool {
        let mut database = self.database.lock();
        match database.open() {
            Ok(Found::Kept) => {}
            Ok(Found::New) => self.locked(|state| state.index.mark_all_dirty()),
            Err(error) => {
                tracing::warn!(%error, "the database cannot be opened");
                return false;
            }
        }
        let (dirty, mut digests) =
            self.locked(|state| (state.index.take_dirty(), std::mem::take(&mut state.digests)));
        let ids: Vec<_> = dirty.iter().map(|(id, what)| (*id, *what)).collect();
        let mut changes = Vec::with_capacity(ids.len());
        for part in ids.chunks(PART) {
            self.locked(|state| {
                let written =
                    part.iter().filter_map(|&(id, what)| state.written(id, what, &mut digests));
                changes.extend(written);
            });
        }
        if changes.is_empty() {
            return true;
        }
        let Err(error) = database.apply(&changes) else { return true };
        tracing::warn!(%error, "the database cannot be written");
        self.locked(|state| {
            dirty.into_iter().for_each(|(id, what)| state.index.mark_dirty(id, what));
            for change in changes {
                if let Written::Store { entry, digests: Some(known), .. } = change {
                    state.digests.entry(entry.id).or_insert(known);
                }
            }
        });
        false
    }
}

impl State {
    /// Some of the objects that wait for their names.
    fn take_batch(&mut self) -> Vec<(ObjectId, UploadNumber)> {
        let rest = self.unsynced.len().saturating_sub(BATCH);
        let ids = self.unsynced.split_off(rest);
        if rest == 0 {
            self.unsynced_bytes = 0;
        }
        let upload = |id: ObjectId| match self.index.get(&id)?.place {
            Place::Upload(number) => Some((id, number)),
            Place::Named => None,
        };
        ids.into_iter().filter_map(upload).collect()
    }

    /// What the database is to be told of an object now. One without a name is none yet, and is marked again
    /// when it gets it.
    fn written(
        &mut self,
        id: ObjectId,
        what: Dirty,
        digests: &mut HashMap<ObjectId, crate::digest::BlockDigests>,
    ) -> Option<Written> {
        let Some(entry) = self.index.get(&id) else {
            return Some(Written::Remove { id });
        };
        let last_use = entry.last_use;
        if entry.place != Place::Named {
            if let Some(known) = digests.remove(&id) {
                self.digests.entry(id).or_insert(known);
            }
            return None;
        }
        Some(match what {
            Dirty::Used => Written::Use { id, last_use },
            Dirty::Changed => {
                let entry = NewEntry {
                    id,
                    size: entry.size,
                    object_type: entry.object_type,
                    description: entry.description(),
                    place: Place::Named,
                    verified: false,
                };
                Written::Store { entry, last_use, digests: digests.remove(&id) }
            }
        })
    }
}

/// How many files are synchronised at once.
const BATCH: usize = 512;

/// How many objects are looked up under one lock.
const PART: usize = 256;
