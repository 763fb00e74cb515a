//! Writing back: objects that clients have stored are written to the store soon after, from a queue that is
//! bounded and survives a restart.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use cvmcache::plugin::ObjectId;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use crate::hot::HotTier;
use crate::markers::{Markers, MarkersError};
use crate::tier::{Tier, UploadError};

/// The queue of objects to write back.
#[derive(Debug)]
pub(crate) struct WriteBack {
    state: Mutex<Queue>,
    wake: (Sender<()>, Receiver<()>),
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(u64, ObjectId)>,
    ids: HashSet<ObjectId>,
    next: u64,
    /// Since the last time that the queue was made durable.
    added: Vec<(u64, ObjectId)>,
    refused: u64,
}

/// An entry takes some 100 bytes. What is over it is archived when it has gone cold.
const MAX: usize = 1_000_000;
const IN_FLIGHT: usize = 16;
const BATCH: usize = 256;
/// Between attempts while the store is away.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl WriteBack {
    /// The queue as the last run has left it.
    pub(crate) fn load(markers: &Markers) -> Result<Self, MarkersError> {
        let waiting: VecDeque<_> = markers.queue()?.into();
        let ids = waiting.iter().map(|&(_, id)| id).collect();
        let next = waiting.back().map_or(0, |&(number, _)| number + 1);
        let state = Queue { waiting, ids, next, ..Queue::default() };
        Ok(Self { state: Mutex::new(state), wake: bounded(1) })
    }

    /// Adds an object, unless the queue is full.
    pub(crate) fn add(&self, id: ObjectId) {
        let mut state = self.state.lock();
        if state.waiting.len() >= MAX {
            state.refused += 1;
            return;
        }
        if state.ids.insert(id) {
            let number = state.next;
            state.next += 1;
            state.waiting.push_back((number, id));
            state.added.push((number, id));
            drop(state);
            // One that waits there is enough.
            let _ = self.wake.0.try_send(());
        }
    }

    /// True while objects wait.
    pub(crate) fn is_behind(&self) -> bool {
        !self.state.lock().waiting.is_empty()
    }

    /// How many objects wait, and how many were not taken since the queue was full.
    pub(crate) fn len_and_refused(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.waiting.len(), state.refused)
    }

    /// Writes objects back until `stop` is disconnected.
    pub(crate) fn run<H: HotTier>(&self, tier: &Arc<Tier<H>>, stop: &Receiver<()>) {
        let mut back_off = BACK_OFF.0;
        loop {
            // Durable at once: what a kill leaves out is archived when it has gone cold.
            let (added, batch) = {
                let mut state = self.state.lock();
                let batch: Vec<_> = state.waiting.iter().take(BATCH).copied().collect();
                (std::mem::take(&mut state.added), batch)
            };
            if !added.is_empty()
                && let Err(error) = tier.markers.change_queue(&added, &[])
            {
                tier.statistics.warn(&error);
            }
            if batch.is_empty() {
                crossbeam_channel::select! {
                    recv(self.wake.1) -> _ => continue,
                    recv(stop) -> _ => return,
                }
            }
            let Some(written) = tier.run(write_batch(tier, &batch)) else { return };
            let all_failed = written.is_empty();
            self.remove(tier, &batch, &written);
            let pause = if all_failed { back_off } else { Duration::ZERO };
            back_off = if all_failed { (back_off * 2).min(BACK_OFF.1) } else { BACK_OFF.0 };
            if stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Takes out what was written; the rest of the batch goes behind all others, so that what fails for good does
    /// not keep them waiting.
    fn remove<H: HotTier>(&self, tier: &Tier<H>, batch: &[(u64, ObjectId)], written: &[u64]) {
        if !written.is_empty()
            && let Err(error) = tier.markers.change_queue(&[], written)
        {
            tier.statistics.warn(&error);
        }
        self.state.lock().take_out(batch.len(), &written.iter().copied().collect());
    }
}

impl Queue {
    /// Invariant: the batch is at the front, since objects are added at the back alone.
    fn take_out(&mut self, batch: usize, written: &HashSet<u64>) {
        for _ in 0..batch {
            let Some((number, id)) = self.waiting.pop_front() else { return };
            if written.contains(&number) {
                self.ids.remove(&id);
            } else {
                self.waiting.push_back((number, id));
            }
        }
    }
}

/// Writes these objects, and returns which of them are done with: written, gone, or not for the store.
async fn write_batch<H: HotTier>(tier: &Arc<Tier<H>>, batch: &[(u64, ObjectId)]) -> Vec<u64> {
    stream::iter(batch)
        .take_while(|_| async { !tier.is_ending() })
        .map(|&(number, id)| async move {
            match tier.write(id).await {
                Ok(()) => Some(number),
                Err(
                    UploadError::Gone
                    | UploadError::Damaged
                    | UploadError::Catalog
                    | UploadError::TooLarge,
                ) => Some(number),
                Err(error) => {
                    let reason = format_args!("cannot write object {id} back: {error}").to_string();
                    tier.statistics.warn(&reason);
                    None
                }
            }
        })
        .buffer_unordered(IN_FLIGHT)
        .filter_map(|done| async move { done })
        .collect()
        .await
}

#[cfg(test)]
mod tests {
    use cvmcache::plugin::HashAlgorithm;

    use super::*;

    #[test]
    fn what_was_not_written_goes_behind_what_has_not_been_tried() {
        let id = |number: u8| ObjectId::new(HashAlgorithm::Sha1, [number; ObjectId::DIGEST_LEN]);
        let mut queue = Queue::default();
        for number in 0..5 {
            queue.waiting.push_back((u64::from(number), id(number)));
            queue.ids.insert(id(number));
        }
        queue.take_out(3, &HashSet::from([1]));
        let left: Vec<_> = queue.waiting.iter().map(|&(number, _)| number).collect();
        assert_eq!(left, [3, 4, 0, 2]);
        assert_eq!(queue.ids.len(), 4);
    }
}
