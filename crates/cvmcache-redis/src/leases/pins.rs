//! The state machine of pins: which objects sessions of this instance have open, and what the server knows
//! of it. There is no I/O and no clock in this file; it returns what to request, and is passed the outcome.
//!
//! The server has one pin for this instance, however many references there are: the first acquires it,
//! further ones only count. The last reference queues the object for release; opening it again before
//! that takes it out of the queue.
//!
//! ```text
//!          open, claim             acquired            close            take_releases
//!   (none) ───────────► Acquiring ──────────► Pinned ◄───────► Unpinned ─────────────► Releasing
//!      ▲                 ▲    │                 │      open       │ claim                  │
//!      │   mark_missing  │    │                 │ mark_lost       ▼                        │
//!      ├─────────────────┼────┘                 │             Acquiring                    │
//!      │                 │                      ▼                           finish_release │
//!      │                 └──────────────────── Lost                                        │
//!      └───────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Invariants: one task at a time acquires or releases an object, all others wait. An object without
//! references is `Unpinned` and queued, or being acquired or released. An object whose pin is unknown,
//! because a reply was lost, is released before a new reference relies on it, which is harmless if it was
//! not pinned.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cvmcache::plugin::{ObjectId, PluginResult, Status};

use crate::keys::Shard;
use crate::metadata::ObjectMetadata;

/// The objects that are, or may be, pinned for this instance.
#[derive(Debug, Default)]
pub(crate) struct PinTable {
    objects: HashMap<ObjectId, Pin>,
    /// Objects to be released, in the order in which they were closed. One that was opened again stays
    /// in it and is skipped.
    queue: VecDeque<ObjectId>,
}

#[derive(Debug)]
struct Pin {
    /// The references of all sessions; the protocol has 32 bits for a change of them.
    references: i32,
    state: State,
    /// Present while the object is known to exist.
    metadata: Option<Arc<ObjectMetadata>>,
    /// When it was closed last.
    closed: u64,
    /// Invariant: the object has at most one entry in the queue, however often it is opened and closed while the
    /// server is away.
    is_queued: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A task requests the pin; others wait.
    Acquiring,
    /// The server has the pin, and sessions have references.
    Pinned,
    /// The server has the pin, or that is unknown; there are no references.
    Unpinned,
    /// A task releases the pin; others wait.
    Releasing,
    /// The server has lost the object, although sessions have references.
    Lost,
}

/// What opening an object takes.
#[derive(Debug)]
pub(crate) enum Opening {
    /// Nothing: the references are counted.
    Counted(Arc<ObjectMetadata>),
    /// Pin it on the server, and then call [`PinTable::acquired`], [`PinTable::mark_missing`] or
    /// [`PinTable::mark_unknown`].
    Acquire,
    /// Wait until the table has changed, and try again.
    Wait,
}

/// What the table has of an object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    Present(Arc<ObjectMetadata>),
    Lost,
    Unknown,
}

impl PinTable {
    /// Opens an object by `by` references.
    pub(crate) fn open(&mut self, id: &ObjectId, by: i32) -> PluginResult<Opening> {
        let pin = match self.objects.entry(*id) {
            Entry::Vacant(vacant) => {
                vacant.insert(Pin::acquiring());
                return Ok(Opening::Acquire);
            }
            Entry::Occupied(pin) => pin.into_mut(),
        };
        let references = pin.references.checked_add(by).ok_or(Status::BadCount)?;
        match (pin.state, &pin.metadata) {
            (State::Pinned | State::Unpinned, Some(metadata)) => {
                pin.references = references;
                pin.state = State::Pinned;
                Ok(Opening::Counted(Arc::clone(metadata)))
            }
            (State::Acquiring | State::Releasing, _) => Ok(Opening::Wait),
            _ => {
                pin.state = State::Acquiring;
                Ok(Opening::Acquire)
            }
        }
    }

    /// Claims an object for a script that also pins it. False: wait until the table has changed, and try
    /// again. True: one of the calls that [`Opening::Acquire`] names has to follow.
    pub(crate) fn claim(&mut self, id: &ObjectId) -> bool {
        let pin = self
            .objects
            .entry(*id)
            .or_insert_with(|| Pin { state: State::Unpinned, ..Pin::acquiring() });
        let is_free = !matches!(pin.state, State::Acquiring | State::Releasing);
        if is_free {
            pin.state = State::Acquiring;
        }
        is_free
    }

    /// The server has pinned the object, for `by` more references.
    pub(crate) fn acquired(
        &mut self,
        id: &ObjectId,
        by: i32,
        metadata: Arc<ObjectMetadata>,
        now: u64,
    ) -> PluginResult<()> {
        let Some(pin) = self.objects.get_mut(id) else { return Ok(()) };
        pin.metadata = Some(metadata);
        pin.state = State::Pinned;
        let counted = match pin.references.checked_add(by) {
            Some(references) => {
                pin.references = references;
                Ok(())
            }
            None => Err(Status::BadCount),
        };
        self.queue_if_unused(id, now);
        counted
    }

    /// The server does not have the object.
    pub(crate) fn mark_missing(&mut self, id: &ObjectId) {
        self.set_lost(id);
        if self.objects.get(id).is_some_and(|pin| pin.references == 0) {
            self.objects.remove(id);
        }
    }

    /// It is unknown whether the server has pinned the object, because its reply was lost.
    pub(crate) fn mark_unknown(&mut self, id: &ObjectId, now: u64) {
        let Some(pin) = self.objects.get_mut(id) else { return };
        // What had references before was pinned; the next renewal finds out if it is not any more.
        let was_held = pin.references > 0 && pin.metadata.is_some();
        pin.state = if was_held { State::Pinned } else { State::Lost };
        if !was_held {
            pin.metadata = None;
        }
        self.queue_if_unused(id, now);
    }

    /// The server does not have the object any more.
    pub(crate) fn mark_lost(&mut self, id: &ObjectId, now: u64) {
        if self.objects.get(id).is_some_and(|pin| pin.state == State::Pinned) {
            self.set_lost(id);
            self.queue_if_unused(id, now);
        } else if let Some(pin) = self.objects.get_mut(id) {
            pin.metadata = None;
        }
    }

    /// Closes an object by `by` references. True if there is something to be released now.
    pub(crate) fn close(&mut self, id: &ObjectId, by: u32, now: u64) -> PluginResult<bool> {
        let pin = self.objects.get_mut(id).ok_or(Status::NoEntry)?;
        let by = i32::try_from(by).map_err(|_| Status::BadCount)?;
        if pin.references < by {
            return Err(if pin.references == 0 && pin.metadata.is_none() {
                Status::NoEntry
            } else {
                Status::BadCount
            });
        }
        pin.references -= by;
        Ok(self.queue_if_unused(id, now))
    }

    /// Looks an object up.
    pub(crate) fn lookup(&self, id: &ObjectId) -> Lookup {
        match self.objects.get(id) {
            Some(Pin {
                metadata: Some(metadata),
                state: State::Pinned | State::Unpinned | State::Acquiring,
                ..
            }) => Lookup::Present(Arc::clone(metadata)),
            Some(Pin { state: State::Lost, references: 1.., .. }) => Lookup::Lost,
            _ => Lookup::Unknown,
        }
    }

    /// Takes up to `at_most` objects out of the queue, with the times at which they were closed.
    /// [`PinTable::released`] has to follow for each.
    pub(crate) fn take_releases(&mut self, at_most: usize) -> Vec<(ObjectId, u64)> {
        let mut batch = Vec::new();
        while batch.len() < at_most {
            let Some(id) = self.queue.pop_front() else { break };
            let Some(pin) = self.objects.get_mut(&id) else { continue };
            pin.is_queued = false;
            if pin.state == State::Unpinned {
                pin.state = State::Releasing;
                pin.metadata = None;
                batch.push((id, pin.closed));
            }
        }
        batch
    }

    /// Ends a release, which was done or has failed.
    pub(crate) fn finish_release(&mut self, id: &ObjectId, done: bool) {
        if done {
            self.objects.remove(id);
        } else if let Some(pin) = self.objects.get_mut(id) {
            pin.state = State::Unpinned;
            pin.enqueue(*id, &mut self.queue);
        }
    }

    /// Adopts a pin that only the server has, to release it.
    pub(crate) fn adopt(&mut self, id: &ObjectId, now: u64) {
        if let Entry::Vacant(vacant) = self.objects.entry(*id) {
            vacant.insert(Pin { state: State::Lost, ..Pin::acquiring() });
            self.queue_if_unused(id, now);
        }
    }

    /// How many objects are, or may be, pinned for this instance.
    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    /// The shards in which this instance has pins, and the objects that the server has to have as pinned.
    pub(crate) fn by_shard(&self) -> HashMap<Shard, Vec<ObjectId>> {
        let mut shards: HashMap<_, Vec<_>> = HashMap::new();
        for (id, pin) in &self.objects {
            let shard = shards.entry(Shard::of(id)).or_default();
            if pin.metadata.is_some() {
                shard.push(*id);
            }
        }
        shards
    }

    fn set_lost(&mut self, id: &ObjectId) {
        if let Some(pin) = self.objects.get_mut(id) {
            pin.state = State::Lost;
            pin.metadata = None;
        }
    }

    fn queue_if_unused(&mut self, id: &ObjectId, now: u64) -> bool {
        let Some(pin) = self.objects.get_mut(id) else { return false };
        let unused = pin.references == 0 && matches!(pin.state, State::Pinned | State::Lost);
        if unused {
            pin.state = State::Unpinned;
            pin.closed = now;
            pin.enqueue(*id, &mut self.queue);
        }
        unused
    }
}

impl Pin {
    fn acquiring() -> Self {
        Self { references: 0, state: State::Acquiring, metadata: None, closed: 0, is_queued: false }
    }

    fn enqueue(&mut self, id: ObjectId, queue: &mut VecDeque<ObjectId>) {
        if !std::mem::replace(&mut self.is_queued, true) {
            queue.push_back(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use cvmcache::plugin::{HashAlgorithm, ObjectType};

    use super::*;
    use crate::metadata::ChunkLayout;

    const ID: ObjectId = ObjectId::new(HashAlgorithm::Sha1, [1; 20]);

    fn metadata() -> Arc<ObjectMetadata> {
        let object_type = ObjectType::Regular;
        ObjectMetadata { size: 1, object_type, layout: ChunkLayout::NEW, description: None }.into()
    }

    /// A table in which an object has so many references.
    fn held(references: i32) -> PinTable {
        let mut pins = PinTable::default();
        assert!(matches!(pins.open(&ID, references), Ok(Opening::Acquire)));
        pins.acquired(&ID, references, metadata(), 0).unwrap();
        pins
    }

    #[test]
    fn only_the_first_reference_acquires_and_only_the_last_releases() {
        let mut pins = held(1);
        assert!(matches!(pins.open(&ID, 2), Ok(Opening::Counted(_))));
        assert_eq!(pins.close(&ID, 1, 5), Ok(false));
        assert_eq!(pins.take_releases(9), []);
        assert_eq!(pins.close(&ID, 2, 6), Ok(true));
        assert_eq!(pins.take_releases(9), [(ID, 6)]);
        pins.finish_release(&ID, true);
        assert!(pins.by_shard().is_empty());
    }

    #[test]
    fn an_object_that_is_opened_again_in_time_is_not_released() {
        let mut pins = held(1);
        pins.close(&ID, 1, 5).unwrap();
        assert!(matches!(pins.open(&ID, 1), Ok(Opening::Counted(_))));
        assert_eq!(pins.take_releases(9), []);
        pins.close(&ID, 1, 7).unwrap();
        assert_eq!(pins.take_releases(9), [(ID, 7)], "once, as it was closed last");
    }

    #[test]
    fn an_object_that_is_opened_and_closed_again_and_again_is_queued_once() {
        let mut pins = held(1);
        for now in 1..100 {
            pins.close(&ID, 1, now).unwrap();
            assert!(matches!(pins.open(&ID, 1), Ok(Opening::Counted(_))));
        }
        assert_eq!(pins.queue.len(), 1);
        pins.close(&ID, 1, 100).unwrap();
        assert_eq!(pins.take_releases(9), [(ID, 100)]);
    }

    #[test]
    fn requests_wait_while_a_pin_is_acquired_or_released() {
        let mut pins = PinTable::default();
        assert!(matches!(pins.open(&ID, 1), Ok(Opening::Acquire)));
        assert!(matches!(pins.open(&ID, 1), Ok(Opening::Wait)));
        assert!(!pins.claim(&ID));
        pins.acquired(&ID, 1, metadata(), 0).unwrap();
        pins.close(&ID, 1, 1).unwrap();
        pins.take_releases(1);
        assert!(matches!(pins.open(&ID, 1), Ok(Opening::Wait)));
        pins.finish_release(&ID, true);
        assert!(matches!(pins.open(&ID, 1), Ok(Opening::Acquire)));
    }

    #[test]
    fn a_release_that_failed_is_queued_again_and_its_pin_not_relied_upon() {
        let mut pins = held(1);
        pins.close(&ID, 1, 5).unwrap();
        pins.take_releases(1);
        pins.finish_release(&ID, false);
        assert_eq!(pins.lookup(&ID), Lookup::Unknown);
        assert_eq!(pins.take_releases(1), [(ID, 5)]);
        pins.finish_release(&ID, false);
        assert!(matches!(pins.open(&ID, 1), Ok(Opening::Acquire)));
        assert_eq!(pins.take_releases(1), [], "it is needed again");
    }

    #[test]
    fn a_pin_whose_reply_was_lost_is_released() {
        let mut pins = PinTable::default();
        pins.open(&ID, 1).unwrap();
        pins.mark_unknown(&ID, 3);
        assert_eq!(pins.lookup(&ID), Lookup::Unknown);
        assert_eq!(pins.close(&ID, 1, 4), Err(Status::NoEntry));
        assert_eq!(pins.take_releases(9), [(ID, 3)]);
    }

    #[test]
    fn a_lost_reply_leaves_the_references_that_were_counted_before() {
        let mut pins = held(2);
        assert!(pins.claim(&ID));
        assert_eq!(pins.lookup(&ID), Lookup::Present(metadata()), "it can be read meanwhile");
        assert_eq!(pins.close(&ID, 1, 3), Ok(false));
        pins.mark_unknown(&ID, 4);
        assert_eq!(pins.lookup(&ID), Lookup::Present(metadata()));
        assert_eq!(pins.close(&ID, 1, 5), Ok(true));
    }

    #[test]
    fn an_object_that_is_closed_while_it_is_acquired_is_released_afterwards() {
        for outcome in 0..3 {
            let mut pins = held(1);
            assert!(pins.claim(&ID));
            assert_eq!(pins.close(&ID, 1, 3), Ok(false));
            match outcome {
                0 => pins.acquired(&ID, 0, metadata(), 4).unwrap(),
                1 => pins.mark_unknown(&ID, 4),
                _ => pins.mark_missing(&ID),
            }
            assert_eq!(pins.take_releases(9).len(), usize::from(outcome < 2));
        }
    }

    #[test]
    fn an_object_that_the_server_has_lost_is_lost_until_it_is_stored_again() {
        let mut pins = held(2);
        pins.mark_lost(&ID, 1);
        assert_eq!(pins.lookup(&ID), Lookup::Lost);
        assert!(matches!(pins.open(&ID, 1), Ok(Opening::Acquire)));
        pins.mark_missing(&ID);
        assert_eq!(pins.lookup(&ID), Lookup::Lost);
        assert!(pins.claim(&ID));
        pins.acquired(&ID, 1, metadata(), 2).unwrap();
        assert_eq!(pins.lookup(&ID), Lookup::Present(metadata()));
        assert_eq!(pins.close(&ID, 3, 3), Ok(true), "old references count");
    }

    #[test]
    fn a_reference_count_beyond_the_protocol_is_refused() {
        let mut pins = held(i32::MAX);
        assert_eq!(pins.open(&ID, 1).err(), Some(Status::BadCount));
        assert!(pins.claim(&ID));
        assert_eq!(pins.acquired(&ID, 1, metadata(), 1), Err(Status::BadCount));
        assert_eq!(pins.close(&ID, u32::MAX, 2), Err(Status::BadCount));
        assert_eq!(pins.close(&ID, i32::MAX as u32, 2), Ok(true));
        assert_eq!(pins.close(&ID, 1, 3), Err(Status::BadCount));
        pins.take_releases(1);
        pins.finish_release(&ID, true);
        assert_eq!(pins.close(&ID, 1, 3), Err(Status::NoEntry));
    }

    #[test]
    fn a_pin_that_only_the_server_has_is_released() {
        let mut pins = PinTable::default();
        pins.adopt(&ID, 1);
        assert_eq!(pins.take_releases(9), [(ID, 1)]);
        let mut pins = held(1);
        pins.adopt(&ID, 1);
        assert_eq!(pins.take_releases(9), []);
    }
}
