//! Scrubbing: objects are read and compared with their digests, in the background at a bounded rate.

use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, TryRecvError, after, bounded, never, select};
use cvmcache::plugin::ObjectId;
use parking_lot::Mutex;

use crate::database::Change as Written;
use crate::digest::{self, BlockDigests};
use crate::entry::Place;
use crate::store::Store;

/// A pass over a small cache does not begin again at once.
const PAUSE: Duration = Duration::from_secs(24 * 3600);

const FULL_SPEED: u64 = u64::MAX;

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

/// How far a scrub is, and what it has found, see [`DiskCache::scrub`](crate::DiskCache::scrub).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubCounts {
    /// How many objects there were when it began.
    pub objects: usize,
    /// Objects whose bytes are those that were stored.
    pub good: usize,
    /// Objects whose bytes are not, or cannot be read. They were moved aside.
    pub damaged: usize,
    /// Objects without digests to compare with. They have them now.
    pub recorded: usize,
    /// Objects that were evicted before they were looked at.
    pub skipped: usize,
    /// How many bytes were read.
    pub bytes: u64,
}

impl ScrubCounts {
    /// How many objects have been looked at.
    pub fn done(&self) -> usize {
        self.good + self.damaged + self.recorded + self.skipped
    }
}

/// Scrubbing in the background.
#[derive(Debug)]
pub(crate) struct Scrubbing {
    state: Mutex<ScrubState>,
    request: (Sender<()>, Receiver<()>),
}

/// What is known of scrubbing in the background.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ScrubState {
    /// The pass that goes on.
    pub(crate) current: Option<ScrubCounts>,
    /// When the last one ended.
    pub(crate) ended: Option<SystemTime>,
}

/// Why a pass ends before all objects have been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interruption {
    Stop,
    /// A pass at full speed is requested.
    Request,
}

/// Checks the tree, and then scrubs until `stop` is disconnected: `rate` bytes a second, or on request only if
/// that is 0.
pub(crate) fn run(store: &Store, rate: u64, stop: &Receiver<()>) {
    if !store.layout.is_alien() {
        let begun = Instant::now();
        if !store.check_tree(stop) {
            return;
        }
        let (objects, took) = (store.locked(|state| state.index.len()), begun.elapsed());
        tracing::info!("the tree has been checked within {took:.1?}: {objects} objects");
    }
    let mut next = if rate > 0 { Some(rate) } else { wait(store, rate, stop) };
    while let Some(speed) = next {
        next = match store.pass(speed, stop) {
            None => wait(store, rate, stop),
            Some(Interruption::Request) => Some(FULL_SPEED),
            Some(Interruption::Stop) => None,
        };
    }
}

/// Waits for the next pass, and returns how fast it is; `None` if it is time to stop.
fn wait(store: &Store, rate: u64, stop: &Receiver<()>) -> Option<u64> {
    let pause = if rate > 0 { after(PAUSE) } else { never() };
    select! {
        recv(stop) -> _ => None,
        recv(store.scrubbing.request.1) -> _ => Some(FULL_SPEED),
        recv(pause) -> _ => Some(rate),
    }
}

impl Scrubbing {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), request: bounded(1) }
    }

    /// Has the thread begin a pass at full speed, unless one goes on.
    pub(crate) fn request(&self) {
        // One that waits there is enough.
        let _ = self.request.0.try_send(());
    }

    pub(crate) fn state(&self) -> ScrubState {
        *self.state.lock()
    }
}

impl Store {
    /// Scrubs all objects in the background.
    fn pass(&self, rate: u64, stop: &Receiver<()>) -> Option<Interruption> {
        let requests = &self.scrubbing.request.1;
        let (counts, interruption) = self.scrub_all(|bytes, counts| {
            self.scrubbed.fetch_add(bytes, Ordering::Relaxed);
            self.scrubbing.state.lock().current = Some(*counts);
            if rate == FULL_SPEED {
                let is_stopped = stop.try_recv() == Err(TryRecvError::Disconnected);
                return if is_stopped { Break(Interruption::Stop) } else { Continue(()) };
            }
            select! {
                recv(stop) -> _ => Break(Interruption::Stop),
                recv(requests) -> _ => Break(Interruption::Request),
                default(Duration::from_secs_f64(bytes as f64 / rate as f64)) => Continue(()),
            }
        });
        let mut state = self.scrubbing.state.lock();
        state.current = None;
        if interruption.is_none() {
            state.ended = Some(SystemTime::now());
            drop(state);
            if rate == FULL_SPEED {
                // Of those that came meanwhile, this was the answer.
                let _ = requests.try_recv();
            }
            let ScrubCounts { good, damaged, recorded, .. } = counts;
            tracing::info!(good, damaged, recorded, "all objects have been scrubbed");
        }
        interruption
    }

    /// Scrubs all objects. `step` is called with the number of bytes before each read, and with 0 after each object,
    /// and may end it.
    pub(crate) fn scrub_all<B>(
        &self,
        mut step: impl FnMut(u64, &ScrubCounts) -> ControlFlow<B>,
    ) -> (ScrubCounts, Option<B>) {
        let objects = self.locked(|state| state.index.len());
        let mut counts = ScrubCounts { objects, ..ScrubCounts::default() };
        for first in 0..=u8::MAX {
            if !self.checked.load(Ordering::Relaxed) {
                self.check_shard(first);
            }
            for id in self.shard(first) {
                let mut broken = None;
                let mut pace = |bytes| {
                    counts.bytes += bytes;
                    broken = step(bytes, &counts).break_value();
                    broken.is_none()
                };
                let mut scrubbed = self.scrub(&id, &mut pace);
                if scrubbed == Scrubbed::Skipped {
                    // It may have got its name meanwhile, but only once.
                    scrubbed = self.scrub(&id, &mut pace);
                }
                match scrubbed {
                    Scrubbed::Good => counts.good += 1,
                    Scrubbed::Recorded => counts.recorded += 1,
                    Scrubbed::Damaged => counts.damaged += 1,
                    Scrubbed::Skipped => counts.skipped += 1,
                    Scrubbed::Stopped => return (counts, broken),
                }
                if let Break(broken) = step(0, &counts) {
                    return (counts, Some(broken));
                }
            }
        }
        (counts, None)
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
                // It was found in the tree, which does not tell its type.
                if digest::is_catalog(&*self.files, &file) {
                    self.locked(|state| state.index.set_catalog(id));
                }
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
