//! The RAM cache against a naive model, under arbitrary sequences of requests. The model does not
//! predict evictions; it checks that each was allowed and in the order of use.

use std::collections::BTreeMap;

use bytes::Bytes;
use cvmcache::plugin::{ListEntry, ObjectId, ObjectInfo, ObjectType, PluginResult, Status};
use cvmcache::{CachePlugin, Transaction, Watermarks};
use proptest::collection::vec;
use proptest::prelude::*;

use super::steps::{OBJECTS, Step, step};
use super::{begin, id, object, ram_cache, session};
use crate::object::Object;
use crate::plugin::RamCache;
use crate::store::Store;

/// What the model knows of an object.
#[derive(Debug, Clone)]
struct Known {
    object_type: ObjectType,
    data: Vec<u8>,
    cost: u64,
    references: i64,
    last_use: u64,
}

impl Known {
    fn new(number: u32, object_type: ObjectType) -> Self {
        let cost = Store::cost(&object(number, object_type, 0));
        Self { object_type, data: Vec::new(), cost, references: 0, last_use: 0 }
    }

    fn rank(&self) -> (bool, u64) {
        (self.object_type != ObjectType::Volatile, self.last_use)
    }
}

struct Model {
    cache: RamCache,
    size: u64,
    objects: BTreeMap<ObjectId, (u32, Known)>,
    uploads: Vec<(Box<dyn Transaction>, u32, Known)>,
    clock: u64,
    clean_ups: u64,
}

impl Model {
    fn new(size: u64) -> Self {
        let (objects, uploads) = (BTreeMap::new(), Vec::new());
        Self { cache: ram_cache(size), size, objects, uploads, clock: 0, clean_ups: 0 }
    }

    fn used(&self) -> u64 {
        self.objects.values().map(|(_, known)| known.cost).sum()
    }

    fn pinned(&self) -> u64 {
        let open = self.objects.values().filter(|(_, known)| known.references > 0);
        open.map(|(_, known)| known.cost).sum()
    }

    fn uploading(&self) -> u64 {
        self.uploads.iter().map(|(_, _, known)| known.cost).sum()
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Begin { number, object_type, expected_size } => {
                let _ = self.begin(number, object_type, expected_size);
            }
            Step::Write { upload, len } => {
                if !self.uploads.is_empty() {
                    let _ = self.write(upload.index(self.uploads.len()), len);
                }
            }
            Step::Commit { upload } => {
                if !self.uploads.is_empty() {
                    self.commit(upload.index(self.uploads.len()));
                }
            }
            Step::GiveUp { upload } => {
                if !self.uploads.is_empty() {
                    self.uploads.remove(upload.index(self.uploads.len()));
                    self.nothing_was_evicted();
                }
            }
            Step::Store { number, object_type, parts } => self.store(number, object_type, &parts),
            Step::Refer { number, by } => self.refer(number, by),
            Step::Read { number, offset, len } => self.read(number, offset, len),
            Step::Shrink { target } => self.shrink(target),
        }
        self.check();
    }

    fn begin(
        &mut self,
        number: u32,
        object_type: ObjectType,
        expected: Option<u64>,
    ) -> PluginResult<()> {
        let known = Known::new(number, object_type);
        let fits = u128::from(known.cost) + u128::from(expected.unwrap_or(0))
            <= u128::from(self.size - self.pinned())
            && known.cost <= self.size - self.pinned() - self.uploading();
        let cost = known.cost;
        match begin(&self.cache, number, object_type, expected) {
            Ok(upload) => {
                assert!(fits);
                self.uploads.push((upload, number, known));
                self.what_was_evicted_had_to_go(cost);
                Ok(())
            }
            Err(status) => {
                assert!(!fits && status == Status::NoSpace, "{status}");
                self.nothing_was_evicted();
                Err(status)
            }
        }
    }

    fn write(&mut self, position: usize, len: usize) -> PluginResult<()> {
        self.clock += 1;
        let part: Vec<u8> = (0..len).map(|n| (n as u64 + self.clock) as u8).collect();
        let cost = Object::part_cost(part.len());
        let fits = cost <= self.size - self.pinned() - self.uploading();
        let (upload, _, known) = &mut self.uploads[position];
        let result = upload.write(Bytes::from(part.clone()));
        assert_eq!(result, if fits { Ok(()) } else { Err(Status::NoSpace) });
        if result.is_err() {
            // As the SDK does.
            self.uploads.remove(position);
            self.nothing_was_evicted();
        } else {
            known.data.extend(part);
            known.cost += cost;
            self.what_was_evicted_had_to_go(cost);
        }
        result
    }

    fn commit(&mut self, position: usize) {
        let (upload, number, mut known) = self.uploads.remove(position);
        let result = upload.commit();
        self.clock += 1;
        if let Some((_, existing)) = self.objects.get_mut(&id(number)) {
            let counts = existing.references < i64::from(i32::MAX);
            assert_eq!(result, if counts { Ok(()) } else { Err(Status::BadCount) });
            existing.references += i64::from(counts);
            self.nothing_was_evicted();
        } else {
            assert_eq!(result, Ok(()));
            known.references = 1;
            self.objects.insert(id(number), (number, known));
            self.what_was_evicted_had_to_go(0);
        }
    }

    fn store(&mut self, number: u32, object_type: ObjectType, parts: &[usize]) {
        if self.begin(number, object_type, Some(parts.iter().sum::<usize>() as u64)).is_err() {
            return;
        }
        let position = self.uploads.len() - 1;
        for part in parts {
            if self.write(position, *part).is_err() {
                return;
            }
        }
        self.commit(position);
        self.refer(number, -1);
    }

    fn refer(&mut self, number: u32, by: i32) {
        let result = self.cache.change_refcount(&session(), &id(number), by);
        self.clock += 1;
        let Some((_, known)) = self.objects.get_mut(&id(number)) else {
            return assert_eq!(result, Err(Status::NoEntry));
        };
        let references = known.references + i64::from(by);
        if (0..=i64::from(i32::MAX)).contains(&references) {
            assert_eq!(result, Ok(()));
            (known.references, known.last_use) = (references, self.clock);
        } else {
            assert_eq!(result, Err(Status::BadCount));
        }
        self.nothing_was_evicted();
    }

    fn read(&self, number: u32, offset: u64, len: u32) {
        let read = self.cache.read(&session(), &id(number), offset, len);
        let expected = match self.objects.get(&id(number)) {
            None => Err(Status::NoEntry),
            Some((_, known)) => match known.data.get(offset.min(usize::MAX as u64) as usize..) {
                None => Err(Status::OutOfBounds),
                Some(rest) => Ok(&rest[..rest.len().min(len as usize)]),
            },
        };
        assert_eq!(read.map(|data| data.into_bytes()).as_deref(), expected.as_deref());
        self.nothing_was_evicted();
    }

    fn shrink(&mut self, target: u64) {
        let used = self.cache.shrink(&session(), target).unwrap();
        let last = self.forget_evicted();
        assert_eq!(used, self.used());
        assert!(used <= target || used == self.pinned());
        if let Some((last, _)) = last {
            assert!(used + last.cost > target, "evicted more than was asked for");
            self.clean_ups += 1;
        }
        let shrink_count = self.cache.info(Some(&session())).unwrap().shrink_count;
        assert_eq!(shrink_count, Some(self.clean_ups));
    }

    fn present(&self, id: &ObjectId) -> bool {
        self.cache.object_info(&session(), id).is_ok()
    }

    fn nothing_was_evicted(&self) {
        assert!(self.objects.keys().all(|id| self.present(id)));
    }

    /// A request that took `bytes` evicts what it lacks and a step of a clean-up, no more.
    fn what_was_evicted_had_to_go(&mut self, bytes: u64) {
        let lacking = (self.used() + self.uploading()).saturating_sub(self.size);
        assert!(lacking <= bytes);
        let costs = self.objects.values().filter(|(_, known)| known.references == 0);
        let mut ranked: Vec<_> = costs.map(|(_, known)| (known.rank(), known.cost)).collect();
        ranked.sort_unstable();
        let mut freed = 0;
        let needed = ranked.iter().take_while(|(_, cost)| {
            let needed = freed < lacking;
            freed += cost;
            needed
        });
        let most = needed.count() + Store::STEP_OBJECTS;
        if let Some((last, evicted)) = self.forget_evicted() {
            assert!(evicted <= most);
            let target = Watermarks::new(self.size).low();
            assert!(self.used() + self.uploading() + last.cost > target);
        }
    }

    /// Takes out of the model what is not in the cache any more; returns the last in the order of
    /// eviction, and how many they are.
    fn forget_evicted(&mut self) -> Option<(Known, usize)> {
        let gone: Vec<_> = self.objects.keys().filter(|id| !self.present(id)).copied().collect();
        let gone: Vec<_> = gone.iter().filter_map(|id| self.objects.remove(id)).collect();
        assert!(gone.iter().all(|(_, known)| known.references == 0), "evicted a pinned object");
        let last = gone.iter().map(|(_, known)| known).max_by_key(|known| known.rank())?;
        let idle = self.objects.values().filter(|(_, known)| known.references == 0);
        let next = idle.map(|(_, known)| known.rank()).min();
        assert!(next.is_none_or(|next| last.rank() < next), "evicted out of order");
        Some((last.clone(), gone.len()))
    }

    /// The cache and the model agree on the replies to all requests.
    fn check(&mut self) {
        self.cache.shared().locked(|store| {
            store.assert_consistent();
            assert_eq!(store.uploading(), self.uploading());
        });
        let info = self.cache.info(Some(&session())).unwrap();
        assert_eq!(info.size_bytes, self.size);
        assert_eq!((info.used_bytes, info.pinned_bytes), (self.used(), self.pinned()));
        assert!(info.used_bytes + self.uploading() <= self.size);
        let clean_ups = info.shrink_count.unwrap();
        assert!(clean_ups >= self.clean_ups);
        self.clean_ups = clean_ups;
        for (id, (_, known)) in &self.objects {
            let info = ObjectInfo::new(known.data.len() as u64, known.object_type);
            assert_eq!(self.cache.object_info(&session(), id), Ok(info));
            let data = self.cache.read(&session(), id, 0, u32::MAX).unwrap();
            assert_eq!(data.into_bytes(), known.data);
        }
        for object_type in ObjectType::ALL {
            let listing = self.cache.list(&session(), object_type).unwrap();
            let mut listed: Vec<ListEntry> = listing.map(|entry| entry.unwrap()).collect();
            listed.sort_by_key(|entry| entry.id);
            let of_type = self.objects.iter().filter(|(_, (_, o))| o.object_type == object_type);
            let expected: Vec<_> = of_type
                .map(|(id, (number, known))| {
                    ListEntry::new(
                        *id,
                        known.references > 0,
                        Some(format!("/object/{number}").into()),
                    )
                })
                .collect();
            assert_eq!(listed, expected);
        }
    }

    /// All uploads are aborted and all objects closed: no memory may remain in use.
    fn end(mut self) {
        self.uploads.clear();
        for (id, (_, known)) in &self.objects {
            let by = -i32::try_from(known.references).unwrap();
            assert_eq!(self.cache.change_refcount(&session(), id, by), Ok(()));
        }
        assert_eq!(self.cache.shrink(&session(), 0), Ok(0));
        let info = self.cache.info(Some(&session())).unwrap();
        assert_eq!((info.used_bytes, info.pinned_bytes), (0, 0));
        self.cache.shared().locked(|store| {
            store.assert_consistent();
            assert_eq!(store.uploading(), 0);
        });
    }
}

proptest! {
    #[test]
    fn the_cache_behaves_like_the_model(
        size in 1_000..25_000u64,
        steps in vec(step(), 1..120),
    ) {
        let mut model = Model::new(size);
        steps.into_iter().for_each(|step| model.apply(step));
        model.end();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// So many small objects that a clean-up takes several steps.
    #[test]
    fn a_crowded_cache_behaves_like_the_model(
        crowd in 100..250u32,
        slack in 0..5_000u64,
        steps in vec(step(), 1..40),
    ) {
        let mut model = Model::new(u64::from(crowd) * Known::new(0, ObjectType::Regular).cost + slack);
        for number in OBJECTS..OBJECTS + crowd {
            model.store(number, ObjectType::ALL[number as usize % 3], &[]);
        }
        steps.into_iter().for_each(|step| model.apply(step));
        model.end();
    }
}
