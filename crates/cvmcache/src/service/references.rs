//! References by object, and what is handed over of them. Pure.
//!
//! Nothing here takes long, however many references there are: they are in trees, which grow and shrink a node
//! at a time, and what is handed over stays in the tree that it was in.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::plugin::ObjectId;

/// How many references are moved at most when some are handed over: about 0.1 ms.
const MERGED_AT_ONCE: usize = 1024;

/// References by object. None of the counts is zero.
#[derive(Debug, Default)]
pub(super) struct References(BTreeMap<ObjectId, u64>);

/// References of several sessions that have retired.
///
/// Invariants: no set is empty. An object may be in more than one; its count is the sum. Sets are merged
/// as others come, smallest first, so there are few unless they are large.
#[derive(Debug, Default)]
pub(super) struct HandedOver(Vec<References>);

impl References {
    pub(super) fn count(&self, id: &ObjectId) -> u64 {
        self.0.get(id).copied().unwrap_or(0)
    }

    /// How many objects there are references to.
    pub(super) fn objects(&self) -> usize {
        self.0.len()
    }

    /// True if there were none to this object.
    pub(super) fn add(&mut self, id: ObjectId, count: u64) -> bool {
        if count == 0 {
            return false;
        }
        match self.0.entry(id) {
            Entry::Vacant(place) => {
                place.insert(count);
                true
            }
            Entry::Occupied(mut held) => {
                *held.get_mut() = held.get().saturating_add(count);
                false
            }
        }
    }

    /// Removes `count` references, or as many as there are. True if those were the last ones to this object.
    pub(super) fn remove(&mut self, id: &ObjectId, count: u64) -> bool {
        let Entry::Occupied(mut held) = self.0.entry(*id) else { return false };
        if *held.get() > count {
            *held.get_mut() -= count;
            return false;
        }
        held.remove();
        true
    }
}

impl HandedOver {
    /// Takes the references of a session over. Returns to how many objects there are fewer entries than
    /// before, since two sets had some to the same.
    pub(super) fn push(&mut self, references: References) -> usize {
        if references.objects() == 0 {
            return 0;
        }
        self.0.push(references);
        self.merge_some()
    }

    /// The same, of several sessions.
    pub(super) fn append(&mut self, mut other: HandedOver) -> usize {
        self.0.append(&mut other.0);
        self.merge_some()
    }

    fn merge_some(&mut self) -> usize {
        let sizes = self.0.iter().map(References::objects).enumerate();
        let Some((smallest, _)) = sizes.min_by_key(|(_, objects)| *objects) else { return 0 };
        let mut from = self.0.swap_remove(smallest);
        let mut fewer = 0;
        if let Some(to) = self.0.last_mut() {
            for _ in 0..MERGED_AT_ONCE {
                let Some((id, count)) = from.0.pop_first() else { break };
                fewer += usize::from(!to.add(id, count));
            }
        }
        if from.objects() > 0 {
            self.0.push(from);
        }
        fewer
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many objects there are references to; one that is in two sets counts twice.
    pub(super) fn objects(&self) -> usize {
        self.0.iter().map(References::objects).sum()
    }

    /// Takes `count` references out. `None` if there are not that many; else to how many objects there are
    /// fewer entries.
    pub(super) fn take(&mut self, id: &ObjectId, mut count: u64) -> Option<usize> {
        let held = self.0.iter().fold(0u64, |sum, set| sum.saturating_add(set.count(id)));
        if held < count {
            return None;
        }
        let mut fewer = 0;
        for set in &mut self.0 {
            let part = set.count(id).min(count);
            if part > 0 {
                fewer += usize::from(set.remove(id, part));
                count -= part;
            }
        }
        self.0.retain(|set| set.objects() > 0);
        Some(fewer)
    }

    /// Takes the references to some objects out, at most so many.
    pub(super) fn pop(&mut self, at_most: usize) -> Vec<(ObjectId, u64)> {
        let mut popped = Vec::new();
        while popped.len() < at_most
            && let Some(set) = self.0.last_mut()
        {
            match set.0.pop_first() {
                Some(entry) => popped.push(entry),
                None => drop(self.0.pop()),
            }
        }
        self.0.retain(|set| set.objects() > 0);
        popped
    }
}

#[cfg(test)]
mod tests {
    use cvmcache_proto::HashAlgorithm;

    use super::*;

    fn id(number: u32) -> ObjectId {
        let mut digest = [0; ObjectId::DIGEST_LEN];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        ObjectId::new(HashAlgorithm::Sha1, digest)
    }

    fn references(numbers: std::ops::Range<u32>) -> References {
        let mut references = References::default();
        numbers.for_each(|number| assert!(references.add(id(number), 1)));
        references
    }

    #[test]
    fn an_object_is_held_from_its_first_reference_to_its_last() {
        let mut references = References::default();
        assert!(!references.add(id(1), 0));
        assert!(references.add(id(1), 2));
        assert!(!references.add(id(1), u64::MAX));
        assert_eq!((references.count(&id(1)), references.objects()), (u64::MAX, 1));
        assert!(!references.remove(&id(1), u64::MAX - 1));
        assert!(!references.remove(&id(2), 1));
        assert!(references.remove(&id(1), 5));
        assert_eq!(references.objects(), 0);
    }

    #[test]
    fn what_is_handed_over_is_moved_in_steps_and_counted_at_every_moment() {
        const EACH: u32 = 5000;
        let mut handed_over = HandedOver::default();
        let mut fewer = 0;
        for session in 0..4 {
            // The first half of each is of objects that all of them have.
            let mut set = references(0..EACH / 2);
            let own = (session + 1) * EACH..(session + 1) * EACH + EACH / 2;
            own.for_each(|number| assert!(set.add(id(number), 1)));
            let merged = handed_over.push(set);
            assert!(merged <= MERGED_AT_ONCE);
            fewer += merged;
            assert_eq!(handed_over.objects(), (session as usize + 1) * EACH as usize - fewer);
        }
        assert_eq!(handed_over.take(&id(7), 5), None);
        let entries = handed_over.objects();
        let removed = handed_over.take(&id(7), 4).unwrap();
        assert!((1..=4).contains(&removed));
        assert_eq!(handed_over.objects(), entries - removed);
        assert_eq!(handed_over.take(&id(7), 1), None);
        let mut sum = 0;
        while !handed_over.is_empty() {
            let popped = handed_over.pop(256);
            assert!((1..=256).contains(&popped.len()));
            sum += popped.iter().map(|(_, count)| count).sum::<u64>();
        }
        assert_eq!(sum, 4 * u64::from(EACH) - 4);
    }

    #[test]
    fn many_small_handovers_are_merged_into_one_set() {
        let mut handed_over = HandedOver::default();
        for session in 0..1000 {
            handed_over.push(references(session * 300..(session + 1) * 300));
            assert!(handed_over.0.len() <= 2);
        }
        assert_eq!(handed_over.objects(), 300_000);
        assert_eq!(handed_over.push(References::default()), 0);
    }
}
