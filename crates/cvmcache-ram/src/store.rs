//! The store: objects in the order of their use, and the memory that they take. All decisions about
//! eviction are made here. There is no lock and no thread in this file: see `shared.rs`.
//!
//! An object stays in its slot from commit to eviction; opening and closing only move its rank in
//! and out of `idle`. So no request reorganises a table but one that stores an object.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::mem::{self, size_of};
use std::sync::Arc;

use cvmcache::Watermarks;
use cvmcache::plugin::{CacheInfo, ListEntry, ObjectId, ObjectType, PluginResult, Status};
use slab::Slab;

use crate::object::Object;

/// The objects of a cache, and the accounts of their memory.
///
/// Invariant: `pinned <= used` and `used + uploading <= size`.
#[derive(Debug)]
pub(crate) struct Store {
    size: u64,
    /// The slot of each object, see [`shard`].
    index: Vec<HashMap<ObjectId, usize>>,
    slots: Slab<Entry>,
    /// The slots of the objects without references, least recently used first, volatile ones before all
    /// others. A sorted map does for a list here, and unlike the table of a list by name it never rehashes.
    idle: BTreeMap<Rank, usize>,
    /// Counts uses: the clock of the LRU order.
    lru_tick: u64,
    /// The cost of all objects, and of those with references.
    used: u64,
    pinned: u64,
    /// What uploads have taken so far.
    uploading: u64,
    /// A clean-up is in progress while there is more to evict than the requests up to now had to pay
    /// for.
    marks: Watermarks,
    volatile_objects: usize,
    evicted: Evicted,
    deferred: Deferred,
}

/// What the store holds and has evicted at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) objects: usize,
    pub(crate) pinned_objects: usize,
    pub(crate) volatile_objects: usize,
    /// What uploads have taken so far.
    pub(crate) uploading: u64,
    pub(crate) evicted: Evicted,
}

/// What was evicted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Evicted {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// What is left to do when the store is not locked any more.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    /// Evicted objects, to be dropped.
    pub(crate) evicted: Vec<Arc<Object>>,
    /// What they took.
    pub(crate) evicted_bytes: u64,
    /// A clean-up has begun.
    pub(crate) clean_up: bool,
    /// Clients pin so much that they should close what they can do without.
    pub(crate) ask_detach: bool,
}

#[derive(Debug)]
struct Entry {
    object: Arc<Object>,
    references: i32,
    /// When it was used last; of meaning only without references.
    tick: u64,
}

/// The order of eviction: volatile objects first, and the least recently used first among equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(Class, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Volatile,
    Normal,
}

impl Store {
    /// What a clean-up adds to the work of one request.
    pub(crate) const STEP_OBJECTS: usize = 32;
    const STEP_BYTES: u64 = 1024 * 1024;

    /// How much is done at most in one go, that is under one lock, for a request that takes many.
    const BATCH_OBJECTS: usize = 64;
    const BATCH_SLOTS: usize = 256;

    pub(crate) fn new(size: u64) -> Self {
        Self {
            size,
            index: vec![HashMap::new(); SHARDS],
            slots: Slab::new(),
            idle: BTreeMap::new(),
            lru_tick: 0,
            used: 0,
            pinned: 0,
            uploading: 0,
            marks: Watermarks::new(size),
            volatile_objects: 0,
            evicted: Evicted::default(),
            deferred: Deferred::default(),
        }
    }

    pub(crate) fn get(&self, id: &ObjectId) -> PluginResult<&Arc<Object>> {
        Ok(&self.slots[self.slot(id)?].object)
    }

    /// Opens, closes or, with `by` = 0, checks for an object. All of it counts as use.
    pub(crate) fn change_references(&mut self, id: &ObjectId, by: i32) -> PluginResult<()> {
        self.add_references(self.slot(id)?, by)
    }

    /// Takes what an upload costs before its first byte. If the client expects so many bytes that
    /// nothing could make room for them, they are refused before anything is evicted in vain.
    pub(crate) fn begin(&mut self, cost: u64, expected_size: Option<u64>) -> PluginResult<()> {
        if cost.saturating_add(expected_size.unwrap_or(0)) > self.size - self.pinned {
            return Err(Status::NoSpace);
        }
        self.reserve(cost)
    }

    /// Takes memory for an upload, and evicts what must go for it.
    pub(crate) fn reserve(&mut self, bytes: u64) -> PluginResult<()> {
        if bytes > self.size - self.pinned - self.uploading {
            return Err(Status::NoSpace);
        }
        let lacking = (self.occupied() + bytes).saturating_sub(self.size);
        if lacking > 0 {
            self.deferred.clean_up |= self.marks.begin_clean_up();
            self.evict(lacking, usize::MAX);
        }
        self.uploading += bytes;
        self.clean_up_step();
        Ok(())
    }

    /// Evicts some objects although the accounts have room: what is free is in pieces that are too short.
    /// Returns how many have gone.
    pub(crate) fn evict_for_room(&mut self) -> usize {
        self.evict(u64::MAX, Self::BATCH_OBJECTS)
    }

    /// Gives back what an upload has taken.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.uploading -= bytes;
    }

    /// Makes an object appear with one reference, and takes its cost over from the upload. If it
    /// has appeared already, that one gains a reference, and the answer is false.
    pub(crate) fn commit(&mut self, object: &Arc<Object>) -> PluginResult<bool> {
        let index = &mut self.index[shard(object.id())];
        index.try_reserve(1).map_err(|_| Status::NoSpace)?;
        let vacant = match index.entry(*object.id()) {
            hash_map::Entry::Occupied(slot) => {
                let slot = *slot.get();
                return self.add_references(slot, 1).map(|()| false);
            }
            hash_map::Entry::Vacant(vacant) => vacant,
        };
        let entry = Entry { object: Arc::clone(object), references: 1, tick: 0 };
        // The table of slots doubles when it is full. If there is no memory for that now, there is none then.
        if self.slots.len() == self.slots.capacity() {
            let mut grown = Vec::<(Entry, usize)>::new();
            grown.try_reserve_exact(2 * self.slots.len()).map_err(|_| Status::NoSpace)?;
        }
        vacant.insert(self.slots.insert(entry));
        self.volatile_objects += usize::from(object.object_type() == ObjectType::Volatile);
        let cost = Self::cost(object);
        self.uploading -= cost;
        self.used += cost;
        self.pinned += cost;
        self.update_pin_pressure();
        self.clean_up_step();
        Ok(true)
    }

    /// What an object costs with all that it takes to find it.
    pub(crate) fn cost(object: &Object) -> u64 {
        ENTRY_COST + object.cost()
    }

    pub(crate) fn info(&self) -> CacheInfo {
        CacheInfo::new(self.size, self.used, self.pinned).with_shrink_count(self.marks.clean_ups())
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            objects: self.slots.len(),
            pinned_objects: self.slots.len() - self.idle.len(),
            volatile_objects: self.volatile_objects,
            uploading: self.uploading,
            evicted: self.evicted,
        }
    }

    /// How many objects could be evicted.
    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Evicts up to `objects` objects, but no more than a batch of them, to bring what is used
    /// down to `target`. Returns how many have gone.
    pub(crate) fn shrink(&mut self, target: u64, objects: usize) -> usize {
        self.evict(self.used.saturating_sub(target), objects.min(Self::BATCH_OBJECTS))
    }

    /// Counts a clean-up on request.
    pub(crate) fn count_clean_up(&mut self) {
        self.marks.count_clean_up();
    }

    /// The objects of a type in a range of slots that begins with `slot`, and where to continue.
    ///
    /// It gives no more than the listing needs: a listing that is not continued must not keep
    /// objects in memory.
    pub(crate) fn page(&self, wanted: ObjectType, slot: usize) -> (Vec<ListEntry>, Option<usize>) {
        let end = self.slots.capacity().min(slot + Self::BATCH_SLOTS);
        let entries = (slot..end).filter_map(|slot| self.slots.get(slot));
        let page = entries
            .filter(|entry| entry.object.object_type() == wanted)
            .map(|entry| {
                ListEntry::new(*entry.object.id(), entry.references > 0, entry.object.description())
            })
            .collect();
        (page, (end < self.slots.capacity()).then_some(end))
    }

    /// How many uses there were: the clock of the order of use.
    pub(crate) fn uses(&self) -> u64 {
        self.lru_tick
    }

    /// A batch of objects without references whose last use was at `until` or earlier, in the order of eviction,
    /// from `from` on; and where to continue.
    pub(crate) fn idle_batch(&self, until: u64, from: Rank) -> (Vec<&Object>, Option<Rank>) {
        let mut batch = Vec::with_capacity(Self::BATCH_OBJECTS);
        let mut from = Some(from);
        while batch.len() < Self::BATCH_OBJECTS
            && let Some(at) = from
        {
            from = match self.idle.range(at..).next() {
                Some((&Rank(class, tick), &slot)) if tick <= until => {
                    batch.push(&*self.slots[slot].object);
                    Some(Rank(class, tick + 1))
                }
                // The rest of its class was used later.
                Some((&Rank(Class::Volatile, _), _)) => Some(Rank(Class::Normal, 0)),
                _ => None,
            };
        }
        (batch, from)
    }

    pub(crate) fn take_deferred(&mut self) -> Deferred {
        mem::take(&mut self.deferred)
    }

    fn slot(&self, id: &ObjectId) -> PluginResult<usize> {
        self.index[shard(id)].get(id).copied().ok_or(Status::NoEntry)
    }

    /// What objects and uploads cost.
    pub(crate) fn occupied(&self) -> u64 {
        self.used + self.uploading
    }

    fn add_references(&mut self, slot: usize, by: i32) -> PluginResult<()> {
        let entry = &mut self.slots[slot];
        let references = entry.references.checked_add(by).filter(|&count| count >= 0);
        let references = references.ok_or(Status::BadCount)?;
        if entry.references == 0 {
            self.idle.remove(&entry.rank());
            self.pinned += Self::cost(&entry.object);
        }
        entry.references = references;
        if references == 0 {
            self.lru_tick += 1;
            entry.tick = self.lru_tick;
            self.idle.insert(entry.rank(), slot);
            self.pinned -= Self::cost(&entry.object);
        }
        self.update_pin_pressure();
        Ok(())
    }

    /// Asks for a detach when too much becomes pinned, and not again until less has been.
    fn update_pin_pressure(&mut self) {
        self.deferred.ask_detach |= self.marks.update_pinned(self.pinned);
    }

    fn clean_up_step(&mut self) {
        if self.marks.is_cleaning_up() {
            self.evict(self.excess().min(Self::STEP_BYTES), Self::STEP_OBJECTS);
            if self.excess() == 0 || self.idle.is_empty() {
                self.marks.end_clean_up();
            }
        }
    }

    /// By how much a clean-up has not reached its end.
    fn excess(&self) -> u64 {
        self.marks.excess(self.occupied())
    }

    /// Evicts objects until `bytes` are free, `objects` have gone, or there are no more.
    fn evict(&mut self, bytes: u64, objects: usize) -> usize {
        let (mut freed, mut evicted) = (0, 0);
        while freed < bytes && evicted < objects {
            let Some((_, slot)) = self.idle.pop_first() else { break };
            freed += self.remove(slot);
            evicted += 1;
        }
        evicted
    }

    /// Evicts this object; false if it has references or is not there.
    pub(crate) fn evict_one(&mut self, id: &ObjectId) -> bool {
        let Ok(slot) = self.slot(id) else { return false };
        if self.idle.remove(&self.slots[slot].rank()).is_none() {
            return false;
        }
        self.remove(slot);
        true
    }

    /// Takes an object out that has left `idle`, and returns what it cost.
    fn remove(&mut self, slot: usize) -> u64 {
        let object = self.slots.remove(slot).object;
        self.index[shard(object.id())].remove(object.id());
        let cost = Self::cost(&object);
        self.volatile_objects -= usize::from(object.object_type() == ObjectType::Volatile);
        self.used -= cost;
        self.evicted.objects += 1;
        self.evicted.bytes += cost;
        self.deferred.evicted.push(object);
        self.deferred.evicted_bytes += cost;
        cost
    }
}

impl Rank {
    pub(crate) const FIRST: Self = Self(Class::Volatile, 0);
}

impl Entry {
    fn rank(&self) -> Rank {
        let class = match self.object.object_type() {
            ObjectType::Volatile => Class::Volatile,
            _ => Class::Normal,
        };
        Rank(class, self.tick)
    }
}

/// The index is in many small tables, because a table that grows stops all requests until its
/// entries have moved: for one table of a million objects, that is a tenth of a second. They grow
/// one by one, since digests are random; were they not, it would be like having one table.
const SHARDS: usize = 256;

fn shard(id: &ObjectId) -> usize {
    usize::from(id.digest()[0]) % SHARDS
}

/// What the store needs for an object, at the worst.
const ENTRY_COST: u64 = {
    // A hash table that has just grown is 7/16 full, and has one more byte for each place.
    let index = (size_of::<(ObjectId, usize)>() + 1) * 16 / 7;
    // A vector that has just grown is half full; a slot also records whether it is free.
    let slot = (size_of::<Entry>() + size_of::<usize>()) * 2;
    // The nodes of a B-tree are at least 5/11 full, and inner nodes and headers come on top.
    let rank = size_of::<(Rank, usize)>() * 3;
    (index + slot + rank) as u64
};

#[cfg(test)]
impl Store {
    /// Panics if the accounts or the structures contradict each other.
    pub(crate) fn assert_consistent(&self) {
        let cost = |filter: fn(&Entry) -> bool| -> u64 {
            let entries = self.slots.iter().map(|(_, entry)| entry);
            entries.filter(|entry| filter(entry)).map(|entry| Self::cost(&entry.object)).sum()
        };
        assert_eq!(self.used, cost(|_| true));
        assert_eq!(self.pinned, cost(|entry| entry.references > 0));
        assert!(self.occupied() <= self.size, "{} of {}", self.occupied(), self.size);
        assert_eq!(self.index.iter().map(HashMap::len).sum::<usize>(), self.slots.len());
        for (slot, entry) in &self.slots {
            assert_eq!(self.slot(entry.object.id()), Ok(slot));
            let idle = self.idle.get(&entry.rank()) == Some(&slot);
            assert_eq!(idle, entry.references == 0);
        }
        let unreferenced = self.slots.iter().filter(|(_, entry)| entry.references == 0);
        assert_eq!(self.idle.len(), unreferenced.count());
        assert!(self.deferred.evicted.is_empty());
        let is_volatile = |entry: &Entry| entry.object.object_type() == ObjectType::Volatile;
        let volatile = self.slots.iter().filter(|(_, entry)| is_volatile(entry));
        assert_eq!(self.volatile_objects, volatile.count());
    }

    pub(crate) fn uploading(&self) -> u64 {
        self.uploading
    }
}
