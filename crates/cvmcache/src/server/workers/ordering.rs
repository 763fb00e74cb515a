//! Ordering keys: which requests of a connection run one after another, however many workers there
//! are.
//!
//! The parts of an upload and the parts of a listing build on each other, and so do the changes of
//! one object's reference count: a client that sends `+1` and `-1` without waiting means them in that
//! order. Everything else may overtake: clients match replies by request number.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use cvmcache_proto::{ObjectId, Operation, Request};

use crate::sparse::shrink_if_sparse;

/// What requests have in common that wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum OrderingKey {
    Upload(u64),
    Listing(u64),
    References(ObjectId),
}

impl OrderingKey {
    pub(super) fn of(request: &Request) -> Option<Self> {
        match &request.operation {
            Operation::Store(_) | Operation::StoreAbort { .. } => Some(Self::Upload(request.id)),
            Operation::List { listing, .. } if *listing != 0 => Some(Self::Listing(*listing)),
            Operation::Refcount { object, change_by } if *change_by != 0 => {
                Some(Self::References(*object))
            }
            Operation::Refcount { .. }
            | Operation::Read { .. }
            | Operation::ObjectInfo { .. }
            | Operation::Info
            | Operation::Shrink { .. }
            | Operation::List { .. }
            | Operation::BreadcrumbStore { .. }
            | Operation::BreadcrumbLoad { .. }
            | _ => None,
        }
    }
}

/// For each key that is busy, what waits behind it.
///
/// Invariant: a key is in the table as long as one item has entered under it and not left.
#[derive(Debug)]
pub(super) struct KeyedQueues<K, T> {
    busy: HashMap<K, VecDeque<T>>,
}

impl<K: Eq + Hash, T> KeyedQueues<K, T> {
    /// True if an item under this key would not pass.
    pub(super) fn is_busy(&self, key: &K) -> bool {
        self.busy.contains_key(key)
    }

    /// Lets an item pass, or keeps it until the one before it has left.
    pub(super) fn enter(&mut self, key: K, item: T) -> Option<T> {
        if let Some(waiting) = self.busy.get_mut(&key) {
            waiting.push_back(item);
            return None;
        }
        self.busy.insert(key, VecDeque::new());
        Some(item)
    }

    /// The item under a key has left: the next one may pass.
    pub(super) fn leave(&mut self, key: &K) -> Option<T> {
        let next = self.busy.get_mut(key)?.pop_front();
        if next.is_none() {
            self.busy.remove(key);
            shrink_if_sparse(&mut self.busy);
        }
        next
    }

    /// Takes an item out that waits under a key.
    pub(super) fn remove(&mut self, key: &K, mut is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let waiting = self.busy.get_mut(key)?;
        let place = waiting.iter().position(&mut is_it)?;
        waiting.remove(place)
    }
}

impl<K, T> Default for KeyedQueues<K, T> {
    fn default() -> Self {
        Self { busy: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use cvmcache_proto::HashAlgorithm;

    use super::*;

    fn object(byte: u8) -> ObjectId {
        ObjectId::new(HashAlgorithm::Sha1, [byte; 20])
    }

    fn key(id: u64, operation: Operation) -> Option<OrderingKey> {
        OrderingKey::of(&Request { session: 1, id, operation })
    }

    fn change(byte: u8, change_by: i32) -> Operation {
        Operation::Refcount { object: object(byte), change_by }
    }

    #[test]
    fn changes_of_one_reference_count_have_one_key() {
        assert_eq!(key(1, change(1, 1)), key(2, change(1, -1)));
        assert_ne!(key(1, change(1, 1)), key(1, change(2, 1)));
        assert_eq!(key(1, change(1, 0)), None);
    }

    #[test]
    fn an_abort_has_the_key_of_the_parts_before_it() {
        let abort = || Operation::StoreAbort { object: object(1) };
        assert_eq!(key(1, abort()), Some(OrderingKey::Upload(1)));
        assert_ne!(key(1, abort()), key(2, abort()));
    }

    #[test]
    fn reads_have_no_key() {
        let read = Operation::Read { object: object(1), offset: 0, size: 1 };
        assert_eq!(key(1, read), None);
    }

    #[test]
    fn items_of_one_key_pass_one_by_one_in_order() {
        let mut queues = KeyedQueues::default();
        assert_eq!(queues.enter('a', 1), Some(1));
        assert_eq!(queues.enter('a', 2), None);
        assert_eq!(queues.enter('a', 3), None);
        assert_eq!(queues.enter('a', 4), None);
        assert_eq!(queues.enter('b', 5), Some(5));
        assert_eq!(['a', 'b', 'c'].map(|key| queues.is_busy(&key)), [true, true, false]);
        assert_eq!(queues.remove(&'a', |item| *item == 3), Some(3));
        assert_eq!(queues.remove(&'a', |item| *item == 3), None);
        assert_eq!(queues.leave(&'a'), Some(2));
        assert_eq!(queues.leave(&'a'), Some(4));
        assert_eq!(queues.leave(&'a'), None);
        assert_eq!(queues.enter('a', 6), Some(6));
        assert_eq!(queues.leave(&'b'), None);
        assert_eq!(queues.busy.len(), 1);
    }
}
