//! The index: which objects there are, their references, their order of use, and what they take. All decisions
//! about eviction are made here. There is no lock, no clock and no I/O in this file: see `store.rs`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;

use cvmcache::Watermarks;
use cvmcache::plugin::{
    CacheInfo, ListEntry, ObjectId, ObjectInfo, ObjectType, PluginResult, Status,
};
use slab::Slab;

use crate::entry::{Entry, Evicted, NewEntry, Place};

/// Invariant: `pinned <= used`, and `used + uploading <= quota` unless files that other programs have stored
/// are found.
#[derive(Debug)]
pub(crate) struct Index {
    quota: u64,
    marks: Watermarks,
    /// The slot of each object, in a table for each first byte of a digest: a table of a million objects that
    /// grows would stop all requests for a tenth of a second.
    tables: Vec<HashMap<ObjectId, usize>>,
    slots: Slab<Entry>,
    /// The objects that can be evicted, in the order in which they are.
    idle: BTreeMap<Rank, usize>,
    /// The time of the last use, in nanoseconds since 1970; each use has a later one.
    clock: u64,
    used: u64,
    pinned: u64,
    uploading: u64,
    ask_detach: bool,
    /// The objects whose files are being changed or looked for. They are not evicted.
    changing: HashSet<ObjectId>,
    /// What the database has not been told.
    dirty: HashMap<ObjectId, Dirty>,
}

/// What the database does not know of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dirty {
    /// That it was used.
    Used,
    /// That it was stored, or removed.
    Changed,
}

/// The order of eviction: volatile objects first, and the least recently used first among equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    is_kept: bool,
    last_use: u64,
    slot: usize,
}

impl Rank {
    pub(crate) const FIRST: Self = Self { is_kept: false, last_use: 0, slot: 0 };
    const FIRST_KEPT: Self = Self { is_kept: true, ..Self::FIRST };
}

const SHARDS: usize = 256;

impl Index {
    /// How many objects are evicted, or listed, in one go: under one lock.
    pub(crate) const BATCH: usize = 64;
    const PAGE: usize = 256;

    /// An empty index; `now` is in nanoseconds since 1970, and later than any use before.
    pub(crate) fn new(quota: u64, now: u64) -> Self {
        Self {
            quota,
            marks: Watermarks::new(quota),
            tables: vec![HashMap::new(); SHARDS],
            slots: Slab::new(),
            idle: BTreeMap::new(),
            clock: now,
            used: 0,
            pinned: 0,
            uploading: 0,
            ask_detach: false,
            changing: HashSet::new(),
            dirty: HashMap::new(),
        }
    }

    /// An object that can be opened and read.
    pub(crate) fn get(&self, id: &ObjectId) -> Option<&Entry> {
        self.entry(id).filter(|entry| !entry.lost)
    }

    /// The size and type of an object.
    pub(crate) fn info_of(&self, id: &ObjectId) -> PluginResult<ObjectInfo> {
        self.get(id).map(Entry::info).ok_or(Status::NoEntry)
    }

    /// Takes in the objects of a former run, with the times of their last use: all of them at once, because
    /// the order of use is made several times faster so.
    pub(crate) fn restore(&mut self, objects: impl FnOnce(&mut dyn FnMut(NewEntry, u64))) {
        objects(&mut |new, last_use| {
            if self.slot(&new.id).is_none() {
                let last_use = last_use.min(self.clock);
                self.put(new, 0, last_use);
            }
        });
        let ranked = self.slots.iter().filter_map(|(slot, _)| Some((self.rank(slot)?, slot)));
        self.idle = ranked.collect();
    }

    /// Takes in an object that was used last at `last_use`, or now. One that was lost while sessions have it
    /// open is there again, and keeps its references.
    ///
    /// Invariant: the index does not have the object.
    pub(crate) fn insert(&mut self, new: NewEntry, references: i32, last_use: Option<u64>) {
        let last_use = last_use.unwrap_or_else(|| self.tick());
        self.clock = self.clock.max(last_use);
        let slot = self.put(new, references, last_use);
        self.set_idle(slot);
        self.update_pin_pressure();
    }

    /// Puts an object into its slot and the accounts, but not into the order of use.
    fn put(&mut self, new: NewEntry, references: i32, last_use: u64) -> usize {
        let mut entry = Entry {
            id: new.id,
            size: new.size,
            object_type: new.object_type,
            description: new.description.map(|text| text.as_ref().into()),
            place: new.place,
            verified: new.verified,
            references,
            lost: false,
            last_use,
        };
        let slot = match self.slot(&new.id) {
            Some(slot) => {
                entry.references = entry.references.saturating_add(self.slots[slot].references);
                self.slots[slot] = entry;
                slot
            }
            None => {
                let slot = self.slots.insert(entry);
                self.tables[shard(&new.id)].insert(new.id, slot);
                slot
            }
        };
        let entry = &self.slots[slot];
        self.used += entry.cost();
        if entry.references > 0 {
            self.pinned += entry.cost();
        }
        slot
    }

    /// Opens, closes or, with `by` = 0, checks for an object. All of it counts as use.
    pub(crate) fn change_references(&mut self, id: &ObjectId, by: i32) -> PluginResult<()> {
        let slot = self.slot(id).ok_or(Status::NoEntry)?;
        let entry = &self.slots[slot];
        if entry.lost && by >= 0 {
            return Err(Status::NoEntry);
        }
        let references = entry.references.checked_add(by).filter(|&count| count >= 0);
        let references = references.ok_or(Status::BadCount)?;
        self.unset_idle(slot);
        let last_use = self.tick();
        let entry = &mut self.slots[slot];
        let (before, cost) = (mem::replace(&mut entry.references, references), entry.cost());
        entry.last_use = last_use;
        match (before, references) {
            (0, 1..) => self.pinned += cost,
            (1.., 0) => self.pinned -= cost,
            _ => {}
        }
        if self.slots[slot].lost && references == 0 {
            self.forget(slot);
            return Ok(());
        }
        self.set_idle(slot);
        // Of one that is opened, too: it may be open when the plugin ends.
        self.mark_dirty(*id, Dirty::Used);
        self.update_pin_pressure();
        Ok(())
    }

    /// The file of an object has gone, or is damaged. Sessions that have it open may close it.
    pub(crate) fn lose(&mut self, id: &ObjectId) {
        let Some(slot) = self.slot(id).filter(|&slot| !self.slots[slot].lost) else { return };
        self.unset_idle(slot);
        let cost = self.slots[slot].cost();
        self.used -= cost;
        if self.slots[slot].references > 0 {
            self.pinned -= cost;
            self.slots[slot].lost = true;
        } else {
            self.forget(slot);
        }
        self.mark_dirty(*id, Dirty::Changed);
        self.update_pin_pressure();
    }

    /// Notes that the file of an object has been seen.
    pub(crate) fn set_verified(&mut self, id: &ObjectId) {
        if let Some(slot) = self.slot(id) {
            self.slots[slot].verified = true;
        }
    }

    /// A regular object is found to be a catalog.
    pub(crate) fn set_catalog(&mut self, id: &ObjectId) {
        if let Some(slot) = self.slot(id)
            && self.slots[slot].object_type == ObjectType::Regular
        {
            self.slots[slot].object_type = ObjectType::Catalog;
            self.mark_dirty(*id, Dirty::Changed);
        }
    }

    /// The file of an object has got its name.
    pub(crate) fn set_named(&mut self, id: &ObjectId) {
        if let Some(slot) = self.slot(id) {
            self.slots[slot].place = Place::Named;
            self.mark_dirty(*id, Dirty::Changed);
        }
    }

    /// Begins a change of the file of an object. False if there is one already.
    pub(crate) fn begin_change(&mut self, id: &ObjectId) -> bool {
        self.changing.insert(*id)
    }

    pub(crate) fn is_changing(&self, id: &ObjectId) -> bool {
        self.changing.contains(id)
    }

    pub(crate) fn end_change(&mut self, id: &ObjectId) {
        self.changing.remove(id);
    }

    /// The time of the last use of any object.
    pub(crate) fn now(&self) -> u64 {
        self.clock
    }

    /// Uses from now on are at `now` or later. A clock that was set back changes nothing.
    pub(crate) fn set_now(&mut self, now: u64) {
        self.clock = self.clock.max(now);
    }

    /// Takes room for an upload, and returns what must go for it. If the client expects so much that nothing
    /// could make room for it, it is refused before anything is evicted in vain.
    pub(crate) fn reserve(&mut self, bytes: u64, expected: u64) -> PluginResult<Vec<Evicted>> {
        let most = self.quota.saturating_sub(self.pinned).saturating_sub(self.uploading);
        if bytes.max(expected) > most {
            return Err(Status::NoSpace);
        }
        let lacking = (self.occupied() + bytes).saturating_sub(self.quota);
        let mut evicted = Vec::new();
        if lacking > 0 {
            self.marks.begin_clean_up();
            evicted = self.evict(lacking, usize::MAX);
        }
        self.uploading += bytes;
        Ok(evicted)
    }

    /// Gives back what an upload has taken.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.uploading -= bytes;
    }

    /// Evicts a batch for a clean-up, if one is in progress; nothing if not.
    pub(crate) fn clean_up(&mut self) -> Vec<Evicted> {
        let over = self.occupied() > self.quota;
        if over {
            self.marks.begin_clean_up();
        }
        if !self.marks.is_cleaning_up() {
            return Vec::new();
        }
        let evicted = self.evict(self.marks.excess(self.occupied()), Self::BATCH);
        if self.marks.excess(self.occupied()) == 0 || evicted.is_empty() {
            self.marks.end_clean_up();
        }
        evicted
    }

    pub(crate) fn is_cleaning_up(&self) -> bool {
        self.marks.is_cleaning_up()
    }

    pub(crate) fn count_clean_up(&mut self) {
        self.marks.count_clean_up();
    }

    /// Evicts objects until `bytes` are free, `objects` have gone, or there are no more. Their files are being
    /// changed from now on: the caller removes them, and [ends](Self::end_change) that.
    pub(crate) fn evict(&mut self, bytes: u64, objects: usize) -> Vec<Evicted> {
        let (mut freed, mut evicted, mut passed_over) = (0, Vec::new(), Vec::new());
        while freed < bytes && evicted.len() < objects {
            let Some((rank, slot)) = self.idle.pop_first() else { break };
            let Entry { id, place, .. } = self.slots[slot];
            if !self.begin_change(&id) {
                passed_over.push((rank, slot));
                continue;
            }
            let cost = self.slots[slot].cost();
            self.forget(slot);
            self.mark_dirty(id, Dirty::Changed);
            freed += cost;
            evicted.push(Evicted { id, place, cost });
        }
        self.idle.extend(passed_over);
        self.used -= freed;
        evicted
    }

    pub(crate) fn info(&self) -> CacheInfo {
        CacheInfo::new(self.quota, self.used, self.pinned).with_shrink_count(self.marks.clean_ups())
    }

    pub(crate) fn occupied(&self) -> u64 {
        self.used + self.uploading
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many objects could be evicted.
    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Takes an object out that has no references, as [`evict`](Self::evict) does.
    ///
    /// Invariant: the caller changes its file.
    pub(crate) fn evict_one(&mut self, id: &ObjectId) -> Option<Evicted> {
        let slot = self.slot(id)?;
        let rank = self.rank(slot)?;
        self.idle.remove(&rank);
        let (place, cost) = (self.slots[slot].place, self.slots[slot].cost());
        self.forget(slot);
        self.mark_dirty(*id, Dirty::Changed);
        self.used -= cost;
        Some(Evicted { id: *id, place, cost })
    }

    /// A batch of the objects that can be evicted and were last used at `until` or earlier, in the order of
    /// eviction, from `from` on; and where to continue.
    pub(crate) fn idle_batch(&self, until: u64, mut from: Rank) -> (Vec<&Entry>, Option<Rank>) {
        let mut batch = Vec::with_capacity(Self::BATCH);
        while batch.len() < Self::BATCH {
            let Some((&rank, &slot)) = self.idle.range(from..).next() else { return (batch, None) };
            if rank.last_use <= until {
                batch.push(&self.slots[slot]);
                from = Rank { slot: slot + 1, ..rank };
            } else if rank.is_kept {
                return (batch, None);
            } else {
                from = Rank::FIRST_KEPT;
            }
        }
        (batch, Some(from))
    }

    /// The objects of a type in a range of slots that begins with `slot`, and where to continue. An object
    /// stays in its slot, so one that is there from beginning to end is listed exactly once.
    pub(crate) fn page(&self, wanted: ObjectType, slot: usize) -> (Vec<ListEntry>, Option<usize>) {
        let end = self.slots.capacity().min(slot + Self::PAGE);
        let entries = (slot..end).filter_map(|slot| self.slots.get(slot));
        let page = entries
            .filter(|entry| entry.object_type == wanted && !entry.lost)
            .map(|entry| ListEntry::new(entry.id, entry.references > 0, entry.description()));
        (page.collect(), (end < self.slots.capacity()).then_some(end))
    }

    /// The objects whose digest begins with this byte.
    pub(crate) fn shard(&self, first: u8) -> impl Iterator<Item = &Entry> {
        let slots = self.tables[usize::from(first)].values();
        slots.map(|&slot| &self.slots[slot]).filter(|entry| !entry.lost)
    }

    /// True if there is something that the database is to be told.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What the database is to be told. What cannot be told now is to be put back.
    pub(crate) fn take_dirty(&mut self) -> HashMap<ObjectId, Dirty> {
        mem::take(&mut self.dirty)
    }

    pub(crate) fn mark_dirty(&mut self, id: ObjectId, what: Dirty) {
        let dirty = self.dirty.entry(id).or_insert(what);
        *dirty = (*dirty).max(what);
    }

    /// Marks all objects as unknown to the database.
    pub(crate) fn mark_all_dirty(&mut self) {
        let ids: Vec<_> = self.slots.iter().map(|(_, entry)| entry.id).collect();
        ids.into_iter().for_each(|id| self.mark_dirty(id, Dirty::Changed));
    }

    /// True, once, if clients are to be asked to detach.
    pub(crate) fn take_ask_detach(&mut self) -> bool {
        mem::take(&mut self.ask_detach)
    }

    fn entry(&self, id: &ObjectId) -> Option<&Entry> {
        self.slot(id).map(|slot| &self.slots[slot])
    }

    fn slot(&self, id: &ObjectId) -> Option<usize> {
        self.tables[shard(id)].get(id).copied()
    }

    fn forget(&mut self, slot: usize) {
        let id = self.slots.remove(slot).id;
        self.tables[shard(&id)].remove(&id);
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn set_idle(&mut self, slot: usize) {
        if let Some(rank) = self.rank(slot) {
            self.idle.insert(rank, slot);
        }
    }

    fn unset_idle(&mut self, slot: usize) {
        if let Some(rank) = self.rank(slot) {
            self.idle.remove(&rank);
        }
    }

    /// The place in the order of eviction; `None` if the object cannot be evicted.
    fn rank(&self, slot: usize) -> Option<Rank> {
        let entry = &self.slots[slot];
        let can_go = entry.references == 0 && !entry.lost;
        let is_kept = entry.object_type != ObjectType::Volatile;
        can_go.then_some(Rank { is_kept, last_use: entry.last_use, slot })
    }

    fn update_pin_pressure(&mut self) {
        self.ask_detach |= self.marks.update_pinned(self.pinned);
    }
}

fn shard(id: &ObjectId) -> usize {
    usize::from(id.digest()[0])
}

#[cfg(test)]
impl Index {
    /// Panics if the accounts or the structures contradict each other.
    pub(crate) fn assert_consistent(&self) {
        let cost = |filter: fn(&Entry) -> bool| -> u64 {
            let entries = self.slots.iter().map(|(_, entry)| entry).filter(|entry| !entry.lost);
            entries.filter(|entry| filter(entry)).map(Entry::cost).sum()
        };
        assert_eq!(self.used, cost(|_| true));
        assert_eq!(self.pinned, cost(|entry| entry.references > 0));
        assert_eq!(self.tables.iter().map(HashMap::len).sum::<usize>(), self.slots.len());
        let idle = self.slots.iter().filter_map(|(slot, _)| self.rank(slot)).count();
        assert_eq!(self.idle.len(), idle);
        for (rank, slot) in &self.idle {
            assert_eq!(self.rank(*slot).as_ref(), Some(rank));
        }
    }
}
