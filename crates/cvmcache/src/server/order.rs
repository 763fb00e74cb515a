//! Which requests of a connection wait for each other when several workers are at it.
//!
//! The parts of an upload and the parts of a listing build on each other, and so do the changes of
//! one object's reference count: whoever sends `+1` and `-1` without waiting means them in that
//! order. Everything else may overtake.

use std::collections::{HashMap, VecDeque};

use cvmcache_proto::{ObjectId, Operation, Request};

/// What requests have in common that wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Upload(u64),
    Listing(u64),
    References(ObjectId),
}

impl Lane {
    fn of(request: &Request) -> Option<Self> {
        match &request.operation {
            Operation::Store(_) | Operation::StoreAbort { .. } => Some(Lane::Upload(request.id)),
            Operation::List { listing, .. } if *listing != 0 => Some(Lane::Listing(*listing)),
            Operation::Refcount { object, change_by } if *change_by != 0 => {
                Some(Lane::References(*object))
            }
            _ => None,
        }
    }
}

/// The lanes of a connection in which a request is under way, and who waits behind it.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    busy: HashMap<Lane, VecDeque<Request>>,
}

impl Lanes {
    /// Lets a request pass, with its lane, or keeps it until the one before it is done.
    pub(super) fn enter(&mut self, request: Request) -> Option<(Request, Option<Lane>)> {
        let Some(lane) = Lane::of(&request) else { return Some((request, None)) };
        if let Some(waiting) = self.busy.get_mut(&lane) {
            waiting.push_back(request);
            return None;
        }
        self.busy.insert(lane, VecDeque::new());
        Some((request, Some(lane)))
    }

    /// The request in a lane is done: the next one may pass.
    pub(super) fn leave(&mut self, lane: Lane) -> Option<Request> {
        let next = self.busy.get_mut(&lane)?.pop_front();
        if next.is_none() {
            self.busy.remove(&lane);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use cvmcache_proto::HashAlgorithm;

    use super::*;

    fn object(byte: u8) -> ObjectId {
        ObjectId::new(HashAlgorithm::Sha1, [byte; 20])
    }

    fn change(id: u64, object: ObjectId, change_by: i32) -> Request {
        Request { session: 1, id, operation: Operation::Refcount { object, change_by } }
    }

    #[test]
    fn changes_of_one_count_wait_for_each_other() {
        let mut lanes = Lanes::default();
        let (_, lane) = lanes.enter(change(1, object(1), 1)).unwrap();
        assert!(lanes.enter(change(2, object(1), -1)).is_none());
        assert!(lanes.enter(change(3, object(1), 1)).is_none());
        assert!(lanes.enter(change(4, object(2), 1)).is_some());
        assert!(lanes.enter(change(5, object(1), 0)).is_some());

        let lane = lane.unwrap();
        assert_eq!(lanes.leave(lane).unwrap().id, 2);
        assert_eq!(lanes.leave(lane).unwrap().id, 3);
        assert!(lanes.leave(lane).is_none());
        assert!(lanes.enter(change(6, object(1), 1)).is_some());
    }

    #[test]
    fn an_abort_waits_for_the_parts_before_it() {
        let mut lanes = Lanes::default();
        let abort =
            |id| Request { session: 1, id, operation: Operation::StoreAbort { object: object(1) } };
        assert!(lanes.enter(abort(1)).is_some());
        assert!(lanes.enter(abort(1)).is_none());
        assert!(lanes.enter(abort(2)).is_some());
    }

    #[test]
    fn reads_never_wait() {
        let mut lanes = Lanes::default();
        for id in 0..3 {
            let operation = Operation::Read { object: object(1), offset: 0, size: 1 };
            assert!(lanes.enter(Request { session: 1, id, operation }).is_some());
        }
        assert!(lanes.busy.is_empty());
    }
}
