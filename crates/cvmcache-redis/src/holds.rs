//! Which objects the sessions of this instance hold open, and what the server knows of it.
//!
//! The server knows one holder, this instance, however many references there are: the first asks it,
//! others only count. The last reference queues the object to be released; whoever opens it again
//! before that takes it out of the queue. There is no I/O and no clock in this file: it says what to
//! ask, and is told what came of it.
//!
//! ```text
//!            open, claim            held                close                 batch
//!   (none) ─────────────► Asking ──────────► Held ◄─────────────────► Idle ───────────► Releasing
//!      ▲                   ▲   │ missing       │      open              │ claim          │
//!      └───────────────────┼───┴───────────────┼──────────────────────  ▼ ◄──────────────┘ released
//!                          │                   ▼ lose                 Asking
//!                          └───────────────── Lost (references of sessions, nothing on the server)
//! ```
//!
//! What the server knows may be in doubt, because an answer was lost. Then the object is released,
//! which does no harm if it was not held, before anybody relies on it again.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cvmcache::plugin::{ObjectId, PluginResult, Status};

use crate::facts::Facts;
use crate::keys::Shard;

/// The table of what is held.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    objects: HashMap<ObjectId, Hold>,
    /// What is to be released, in the order in which it was closed. What was opened again stays in
    /// it and is passed over.
    queue: VecDeque<(ObjectId, u64)>,
}

#[derive(Debug)]
struct Hold {
    /// What sessions hold, up to what the protocol can express.
    references: i32,
    state: State,
    /// Present while the object is known to be there.
    facts: Option<Arc<Facts>>,
    /// When it was closed last; tells its place in the queue from older ones.
    closed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Somebody asks the server for it; others wait.
    Asking,
    /// The server knows that it is held, and so do sessions.
    Held,
    /// The server knows that it is held, or it is in doubt; nobody needs it any more.
    Idle,
    /// Somebody tells the server; others wait.
    Releasing,
    /// The server has lost it, although sessions hold it.
    Lost,
}

/// What to do about an object that is to be opened.
#[derive(Debug)]
pub(crate) enum Open {
    /// Nothing: it counts.
    Done(Arc<Facts>),
    /// Ask the server, and then say so by [`Holds::held`], [`Holds::missing`] or
    /// [`Holds::in_doubt`].
    Ask,
    /// Wait until the table has changed, and try again.
    Wait,
}

/// What the table knows of an object without asking the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Here(Arc<Facts>),
    Lost,
    Unknown,
}

impl Holds {
    /// Opens an object by `by` references.
    pub(crate) fn open(&mut self, id: &ObjectId, by: i32) -> PluginResult<Open> {
        let hold = match self.objects.entry(*id) {
            Entry::Vacant(vacant) => {
                vacant.insert(Hold::asking());
                return Ok(Open::Ask);
            }
            Entry::Occupied(hold) => hold.into_mut(),
        };
        let references = hold.references.checked_add(by).ok_or(Status::BadCount)?;
        match (hold.state, &hold.facts) {
            (State::Held | State::Idle, Some(facts)) => {
                hold.references = references;
                hold.state = State::Held;
                Ok(Open::Done(Arc::clone(facts)))
            }
            (State::Asking | State::Releasing, _) => Ok(Open::Wait),
            _ => {
                hold.state = State::Asking;
                Ok(Open::Ask)
            }
        }
    }

    /// Claims an object for a change on the server that also holds it. False: wait until the table
    /// has changed, and try again. True: [`Holds::held`] or the like has to follow.
    pub(crate) fn claim(&mut self, id: &ObjectId) -> bool {
        let hold = self
            .objects
            .entry(*id)
            .or_insert_with(|| Hold { state: State::Idle, ..Hold::asking() });
        let is_free = !matches!(hold.state, State::Asking | State::Releasing);
        if is_free {
            hold.state = State::Asking;
        }
        is_free
    }

    /// The server holds the object now, for `by` more references.
    pub(crate) fn held(
        &mut self,
        id: &ObjectId,
        by: i32,
        facts: Arc<Facts>,
        now: u64,
    ) -> PluginResult<()> {
        let Some(hold) = self.objects.get_mut(id) else { return Ok(()) };
        hold.facts = Some(facts);
        hold.state = State::Held;
        let counted = match hold.references.checked_add(by) {
            Some(references) => {
                hold.references = references;
                Ok(())
            }
            None => Err(Status::BadCount),
        };
        self.queue_if_unused(id, now);
        counted
    }

    /// The server does not have the object.
    pub(crate) fn missing(&mut self, id: &ObjectId) {
        self.set_lost(id);
        if self.objects.get(id).is_some_and(|hold| hold.references == 0) {
            self.objects.remove(id);
        }
    }

    /// Nobody knows whether the server holds the object, because its answer was lost.
    pub(crate) fn in_doubt(&mut self, id: &ObjectId, now: u64) {
        let Some(hold) = self.objects.get_mut(id) else { return };
        // What sessions held before was there, and a renewal will tell if it is not any more.
        let was_held = hold.references > 0 && hold.facts.is_some();
        hold.state = if was_held { State::Held } else { State::Lost };
        if !was_held {
            hold.facts = None;
        }
        self.queue_if_unused(id, now);
    }

    /// The server seems not to have the object any more.
    pub(crate) fn lose(&mut self, id: &ObjectId, now: u64) {
        if self.objects.get(id).is_some_and(|hold| hold.state == State::Held) {
            self.set_lost(id);
            self.queue_if_unused(id, now);
        } else if let Some(hold) = self.objects.get_mut(id) {
            hold.facts = None;
        }
    }

    /// Closes an object by `by` references. True if there is something to be released now.
    pub(crate) fn close(&mut self, id: &ObjectId, by: u32, now: u64) -> PluginResult<bool> {
        let hold = self.objects.get_mut(id).ok_or(Status::NoEntry)?;
        let by = i32::try_from(by).map_err(|_| Status::BadCount)?;
        if hold.references < by {
            return Err(if hold.references == 0 && hold.facts.is_none() {
                Status::NoEntry
            } else {
                Status::BadCount
            });
        }
        hold.references -= by;
        Ok(self.queue_if_unused(id, now))
    }

    /// What is known of an object.
    pub(crate) fn known(&self, id: &ObjectId) -> Known {
        match self.objects.get(id) {
            Some(Hold {
                facts: Some(facts),
                state: State::Held | State::Idle | State::Asking,
                ..
            }) => Known::Here(Arc::clone(facts)),
            Some(Hold { state: State::Lost, references: 1.., .. }) => Known::Lost,
            _ => Known::Unknown,
        }
    }

    /// Takes up to `at_most` objects out of the queue, with the times at which they were closed.
    /// [`Holds::released`] has to follow for each.
    pub(crate) fn batch(&mut self, at_most: usize) -> Vec<(ObjectId, u64)> {
        let mut batch = Vec::new();
        while batch.len() < at_most {
            let Some((id, closed)) = self.queue.pop_front() else { break };
            let Some(hold) = self.objects.get_mut(&id) else { continue };
            if hold.state == State::Idle && hold.closed == closed {
                hold.state = State::Releasing;
                hold.facts = None;
                batch.push((id, closed));
            }
        }
        batch
    }

    /// The server was told to release an object, or could not be.
    pub(crate) fn released(&mut self, id: &ObjectId, done: bool) {
        if done {
            self.objects.remove(id);
        } else if let Some(hold) = self.objects.get_mut(id) {
            hold.state = State::Idle;
            self.queue.push_back((*id, hold.closed));
        }
    }

    /// The server believes that this instance holds an object of which nothing is known here.
    pub(crate) fn found(&mut self, id: &ObjectId, now: u64) {
        if let Entry::Vacant(vacant) = self.objects.entry(*id) {
            vacant.insert(Hold { state: State::Lost, ..Hold::asking() });
            self.queue_if_unused(id, now);
        }
    }

    /// The shards in which something is held, with what the server should know of in each.
    pub(crate) fn by_shard(&self) -> HashMap<Shard, Vec<ObjectId>> {
        let mut shards: HashMap<_, Vec<_>> = HashMap::new();
        for (id, hold) in &self.objects {
            let shard = shards.entry(Shard::of(id)).or_default();
            if hold.facts.is_some() {
                shard.push(*id);
            }
        }
        shards
    }

    fn set_lost(&mut self, id: &ObjectId) {
        if let Some(hold) = self.objects.get_mut(id) {
            hold.state = State::Lost;
            hold.facts = None;
        }
    }

    fn queue_if_unused(&mut self, id: &ObjectId, now: u64) -> bool {
        let Some(hold) = self.objects.get_mut(id) else { return false };
        let unused = hold.references == 0 && matches!(hold.state, State::Held | State::Lost);
        if unused {
            hold.state = State::Idle;
            hold.closed = now;
            self.queue.push_back((*id, now));
        }
        unused
    }
}

impl Hold {
    fn asking() -> Self {
        Self { references: 0, state: State::Asking, facts: None, closed: 0 }
    }
}

#[cfg(test)]
mod tests {
    use cvmcache::plugin::{HashAlgorithm, ObjectType};

    use super::*;
    use crate::facts::Shape;

    const ID: ObjectId = ObjectId::new(HashAlgorithm::Sha1, [1; 20]);

    fn facts() -> Arc<Facts> {
        let object_type = ObjectType::Regular;
        Facts { size: 1, object_type, shape: Shape::NEW, description: None }.into()
    }

    /// A table in which an object is held by so many references.
    fn held(references: i32) -> Holds {
        let mut holds = Holds::default();
        assert!(matches!(holds.open(&ID, references), Ok(Open::Ask)));
        holds.held(&ID, references, facts(), 0).unwrap();
        holds
    }

    #[test]
    fn only_the_first_reference_asks_and_only_the_last_is_released() {
        let mut holds = held(1);
        assert!(matches!(holds.open(&ID, 2), Ok(Open::Done(_))));
        assert_eq!(holds.close(&ID, 1, 5), Ok(false));
        assert_eq!(holds.batch(9), []);
        assert_eq!(holds.close(&ID, 2, 6), Ok(true));
        assert_eq!(holds.batch(9), [(ID, 6)]);
        holds.released(&ID, true);
        assert!(holds.by_shard().is_empty());
    }

    #[test]
    fn what_is_opened_again_in_time_is_not_released() {
        let mut holds = held(1);
        holds.close(&ID, 1, 5).unwrap();
        assert!(matches!(holds.open(&ID, 1), Ok(Open::Done(_))));
        assert_eq!(holds.batch(9), []);
        holds.close(&ID, 1, 7).unwrap();
        assert_eq!(holds.batch(9), [(ID, 7)], "once, as it was closed last");
    }

    #[test]
    fn others_wait_while_the_server_is_asked_or_told() {
        let mut holds = Holds::default();
        assert!(matches!(holds.open(&ID, 1), Ok(Open::Ask)));
        assert!(matches!(holds.open(&ID, 1), Ok(Open::Wait)));
        assert!(!holds.claim(&ID));
        holds.held(&ID, 1, facts(), 0).unwrap();
        holds.close(&ID, 1, 1).unwrap();
        holds.batch(1);
        assert!(matches!(holds.open(&ID, 1), Ok(Open::Wait)));
        holds.released(&ID, true);
        assert!(matches!(holds.open(&ID, 1), Ok(Open::Ask)));
    }

    #[test]
    fn a_release_that_failed_is_tried_again_and_not_relied_upon() {
        let mut holds = held(1);
        holds.close(&ID, 1, 5).unwrap();
        holds.batch(1);
        holds.released(&ID, false);
        assert_eq!(holds.known(&ID), Known::Unknown);
        assert_eq!(holds.batch(1), [(ID, 5)]);
        holds.released(&ID, false);
        assert!(matches!(holds.open(&ID, 1), Ok(Open::Ask)));
        assert_eq!(holds.batch(1), [], "it is needed again");
    }

    #[test]
    fn what_is_in_doubt_is_released() {
        let mut holds = Holds::default();
        holds.open(&ID, 1).unwrap();
        holds.in_doubt(&ID, 3);
        assert_eq!(holds.known(&ID), Known::Unknown);
        assert_eq!(holds.close(&ID, 1, 4), Err(Status::NoEntry));
        assert_eq!(holds.batch(9), [(ID, 3)]);
    }

    #[test]
    fn doubt_about_one_more_reference_leaves_those_that_are_held() {
        let mut holds = held(2);
        assert!(holds.claim(&ID));
        assert_eq!(holds.known(&ID), Known::Here(facts()), "it can be read meanwhile");
        assert_eq!(holds.close(&ID, 1, 3), Ok(false));
        holds.in_doubt(&ID, 4);
        assert_eq!(holds.known(&ID), Known::Here(facts()));
        assert_eq!(holds.close(&ID, 1, 5), Ok(true));
    }

    #[test]
    fn what_is_closed_while_the_server_is_asked_is_released_afterwards() {
        for outcome in 0..3 {
            let mut holds = held(1);
            assert!(holds.claim(&ID));
            assert_eq!(holds.close(&ID, 1, 3), Ok(false));
            match outcome {
                0 => holds.held(&ID, 0, facts(), 4).unwrap(),
                1 => holds.in_doubt(&ID, 4),
                _ => holds.missing(&ID),
            }
            assert_eq!(holds.batch(9).len(), usize::from(outcome < 2));
        }
    }

    #[test]
    fn what_the_server_has_lost_is_lost_until_it_is_stored_again() {
        let mut holds = held(2);
        holds.lose(&ID, 1);
        assert_eq!(holds.known(&ID), Known::Lost);
        assert!(matches!(holds.open(&ID, 1), Ok(Open::Ask)));
        holds.missing(&ID);
        assert_eq!(holds.known(&ID), Known::Lost);
        assert!(holds.claim(&ID));
        holds.held(&ID, 1, facts(), 2).unwrap();
        assert_eq!(holds.known(&ID), Known::Here(facts()));
        assert_eq!(holds.close(&ID, 3, 3), Ok(true), "old references count");
    }

    #[test]
    fn counts_stay_within_what_the_protocol_can_express() {
        let mut holds = held(i32::MAX);
        assert_eq!(holds.open(&ID, 1).err(), Some(Status::BadCount));
        assert!(holds.claim(&ID));
        assert_eq!(holds.held(&ID, 1, facts(), 1), Err(Status::BadCount));
        assert_eq!(holds.close(&ID, u32::MAX, 2), Err(Status::BadCount));
        assert_eq!(holds.close(&ID, i32::MAX as u32, 2), Ok(true));
        assert_eq!(holds.close(&ID, 1, 3), Err(Status::BadCount));
        holds.batch(1);
        holds.released(&ID, true);
        assert_eq!(holds.close(&ID, 1, 3), Err(Status::NoEntry));
    }

    #[test]
    fn what_only_the_server_knows_of_is_released() {
        let mut holds = Holds::default();
        holds.found(&ID, 1);
        assert_eq!(holds.batch(9), [(ID, 1)]);
        let mut holds = held(1);
        holds.found(&ID, 1);
        assert_eq!(holds.batch(9), []);
    }
}
