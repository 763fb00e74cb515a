//! Which requests of a connection wait for each other when several workers are at it.
//!
//! The parts of an upload and the parts of a listing build on each other, and so do the changes of
//! one object's reference count: whoever sends `+1` and `-1` without waiting means them in that
//! order. Everything else may overtake.

use std::collections::{HashMap, VecDeque};

use cvmcache_proto::{ObjectId, Operation, Request};

use super::workers::Call;

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
            Operation::Refcount { .. }
            | Operation::Read { .. }
            | Operation::ObjectInfo { .. }
            | Operation::Info
            | Operation::Shrink { .. }
            | Operation::List { .. }
            | Operation::BreadcrumbStore { .. }
            | Operation::BreadcrumbLoad { .. } => None,
        }
    }
}

/// The lanes of a connection in which a request is under way, and who waits behind it.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    busy: HashMap<Lane, VecDeque<Call>>,
}

impl Lanes {
    /// Lets a call pass, with its lane, or keeps it until the one before it is done.
    pub(super) fn enter(&mut self, call: Call) -> Option<(Call, Option<Lane>)> {
        let Some(lane) = Lane::of(&call.request) else { return Some((call, None)) };
        if let Some(waiting) = self.busy.get_mut(&lane) {
            waiting.push_back(call);
            return None;
        }
        self.busy.insert(lane, VecDeque::new());
        Some((call, Some(lane)))
    }

    /// The call in a lane is done: the next one may pass.
    pub(super) fn leave(&mut self, lane: Lane) -> Option<Call> {
        let next = self.busy.get_mut(&lane)?.pop_front();
        if next.is_none() {
            self.busy.remove(&lane);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use cvmcache_proto::{Data, HashAlgorithm, ObjectInfo, Status};

    use super::*;
    use crate::plugin::{CachePlugin, Capabilities, PluginResult};
    use crate::service::Service;
    use crate::{Limits, Session};

    struct Nothing;

    impl CachePlugin for Nothing {
        fn capabilities(&self) -> Capabilities {
            Capabilities::NONE
        }

        fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
            Err(Status::NoEntry)
        }

        fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
            Err(Status::NoEntry)
        }
    }

    fn object(byte: u8) -> ObjectId {
        ObjectId::new(HashAlgorithm::Sha1, [byte; 20])
    }

    /// Calls of one session, with numbers of their own.
    fn calls() -> impl FnMut(u64, Operation) -> Call {
        let service = Service::new(Box::new(Nothing), "test", Limits::default());
        let (_, open) = service.handshake(None, None).unwrap();
        move |id, operation| {
            let request = Request { session: 1, id, operation };
            Call { serial: id, open: open.clone(), request }
        }
    }

    fn change(byte: u8, change_by: i32) -> Operation {
        Operation::Refcount { object: object(byte), change_by }
    }

    #[test]
    fn changes_of_one_count_wait_for_each_other() {
        let mut call = calls();
        let mut lanes = Lanes::default();
        let (_, lane) = lanes.enter(call(1, change(1, 1))).unwrap();
        assert!(lanes.enter(call(2, change(1, -1))).is_none());
        assert!(lanes.enter(call(3, change(1, 1))).is_none());
        assert!(lanes.enter(call(4, change(2, 1))).is_some());
        assert!(lanes.enter(call(5, change(1, 0))).is_some());

        let lane = lane.unwrap();
        assert_eq!(lanes.leave(lane).unwrap().serial, 2);
        assert_eq!(lanes.leave(lane).unwrap().serial, 3);
        assert!(lanes.leave(lane).is_none());
        assert!(lanes.enter(call(6, change(1, 1))).is_some());
    }

    #[test]
    fn an_abort_waits_for_the_parts_before_it() {
        let mut call = calls();
        let mut lanes = Lanes::default();
        let abort = || Operation::StoreAbort { object: object(1) };
        assert!(lanes.enter(call(1, abort())).is_some());
        assert!(lanes.enter(call(1, abort())).is_none());
        assert!(lanes.enter(call(2, abort())).is_some());
    }

    #[test]
    fn reads_never_wait() {
        let mut call = calls();
        let mut lanes = Lanes::default();
        for id in 0..3 {
            let operation = Operation::Read { object: object(1), offset: 0, size: 1 };
            assert!(lanes.enter(call(id, operation)).is_some());
        }
        assert!(lanes.busy.is_empty());
    }
}
