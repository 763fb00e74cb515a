//! The disk cache against a naive model, under arbitrary sequences of requests and restarts. The model does
//! not predict evictions; it checks that each was allowed and in the order of use.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::files::System;

const QUOTA: u64 = 24 * 4096;

#[derive(Debug, Clone)]
enum Step {
    Store { number: u32, leave_open: bool },
    Refer { number: u32, by: i32 },
    Read { number: u32, offset: u64, len: u32 },
    Shrink { target: u64 },
    Name,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let number = || 0..12u32;
    prop_oneof![
        8 => (number(), any::<bool>())
            .prop_map(|(number, leave_open)| Step::Store { number, leave_open }),
        6 => (number(), -2..=2i32).prop_map(|(number, by)| Step::Refer { number, by }),
        3 => (number(), 0..22_000u64, 0..22_000u32)
            .prop_map(|(number, offset, len)| Step::Read { number, offset, len }),
        1 => (0..30_000u64).prop_map(|target| Step::Shrink { target }),
        2 => Just(Step::Name),
        1 => Just(Step::Restart),
    ]
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    references: i64,
    last_use: u64,
}

fn rank(number: u32, known: Known) -> (bool, u64) {
    (type_of(number) != ObjectType::Volatile, known.last_use)
}

/// The bytes and the type of an object are always the same, as its name says them.
fn len_of(number: u32) -> usize {
    number as usize * 6211 % 20_000
}

fn type_of(number: u32) -> ObjectType {
    ObjectType::ALL[number as usize % 3]
}

struct Model {
    directory: tempfile::TempDir,
    config: Config,
    cache: Option<DiskCache>,
    objects: BTreeMap<u32, Known>,
    clock: u64,
}

impl Model {
    fn new(fsync: Fsync) -> Self {
        let directory = super::directory();
        let config = config(directory.path(), Quota::Bytes(QUOTA), fsync);
        let cache = Some(start(&config, Arc::new(System)));
        Self { directory, config, cache, objects: BTreeMap::new(), clock: 0 }
    }

    fn cache(&self) -> &DiskCache {
        self.cache.as_ref().expect("it runs")
    }

    fn apply(&mut self, step: Step) {
        self.clock += 1;
        // No clean-up goes on in the background then.
        self.finish_clean_up();
        self.evicted();
        match step {
            Step::Store { number, leave_open } => {
                let result = store(self.cache(), number, type_of(number), len_of(number));
                if result.is_err() {
                    assert_eq!(result, Err(Status::NoSpace));
                    assert!(self.pinned() + cost_of(number) > QUOTA);
                } else {
                    let known = self.objects.entry(number).or_default();
                    known.references += 1;
                    known.last_use = self.clock;
                    self.evicted();
                    if !leave_open {
                        close(self.cache(), number);
                        self.objects.get_mut(&number).expect("it is there").references -= 1;
                    }
                }
            }
            Step::Refer { number, by } => {
                let result = self.cache().change_refcount(&session(), &id(number), by);
                match self.objects.get_mut(&number) {
                    None => assert_eq!(result, Err(Status::NoEntry)),
                    Some(known) if known.references + i64::from(by) < 0 => {
                        assert_eq!(result, Err(Status::BadCount));
                    }
                    Some(known) => {
                        assert_eq!(result, Ok(()));
                        known.references += i64::from(by);
                        known.last_use = self.clock;
                    }
                }
            }
            Step::Read { number, offset, len } => {
                let result = self.cache().read(&session(), &id(number), offset, len);
                match self.objects.get(&number) {
                    None => assert_eq!(result.err(), Some(Status::NoEntry)),
                    Some(_) if offset > len_of(number) as u64 => {
                        assert_eq!(result.err(), Some(Status::OutOfBounds));
                    }
                    Some(_) => {
                        let bytes = result.expect("it is there").into_bytes();
                        let data = content(number, len_of(number));
                        let end = data.len().min(offset as usize + len as usize);
                        assert!(bytes == data[offset as usize..end]);
                    }
                }
            }
            Step::Shrink { target } => {
                let used = self.cache().shrink(&session(), target).expect("it can");
                self.evicted();
                let idle = self.objects.values().any(|known| known.references == 0);
                assert!(used <= target || !idle);
            }
            Step::Name => self.cache().store().name_unsynced(),
            Step::Restart => {
                drop(self.cache.take());
                assert_eq!(used_on_disk(&self.directory), self.used());
                self.cache = Some(start(&self.config, Arc::new(System)));
                self.cache().wait_until_checked();
                self.objects.values_mut().for_each(|known| known.references = 0);
            }
        }
        self.check();
    }

    fn finish_clean_up(&self) {
        while self.cache().store().locked(|state| state.index.is_cleaning_up()) {
            self.cache().store().clean_up_step();
        }
    }

    fn used(&self) -> u64 {
        self.objects.keys().map(|number| cost_of(*number)).sum()
    }

    fn pinned(&self) -> u64 {
        let pinned = self.objects.iter().filter(|(_, known)| known.references > 0);
        pinned.map(|(number, _)| cost_of(*number)).sum()
    }

    /// Finds out what has been evicted, and that it was allowed and in order.
    fn evicted(&mut self) {
        let store = self.cache().store();
        // At one moment: a clean-up may go on in the background.
        let there: Vec<bool> = store.locked(|state| {
            self.objects.keys().map(|number| state.index.get(&id(*number)).is_some()).collect()
        });
        let objects = std::mem::take(&mut self.objects);
        let (mut kept, mut gone) = (BTreeMap::new(), Vec::new());
        for ((number, known), is_there) in objects.into_iter().zip(there) {
            if is_there {
                kept.insert(number, known);
            } else {
                gone.push((number, known));
            }
        }
        for (number, known) in gone {
            assert_eq!(known.references, 0, "object {number} was pinned");
            for (other, kept) in kept.iter().filter(|(_, kept)| kept.references == 0) {
                let is_first = rank(number, known) < rank(*other, *kept);
                assert!(is_first, "object {number} went before {other}");
            }
        }
        self.objects = kept;
    }

    fn check(&mut self) {
        self.evicted();
        let cache = self.cache();
        cache.store().assert_consistent();
        assert!(used(cache) <= QUOTA);
        for (number, _) in self.objects.iter().filter(|(_, known)| known.references > 0) {
            let info = cache.object_info(&session(), &id(*number)).expect("it is pinned");
            let expected = (len_of(*number) as u64, type_of(*number));
            assert_eq!((info.size, info.object_type), expected);
        }
    }
}

fn cost_of(number: u32) -> u64 {
    cost(len_of(number) as u64)
}

fn used_on_disk(directory: &tempfile::TempDir) -> u64 {
    du(directory.path())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_does_what_the_model_does(
        fsync in prop::sample::select(&[Fsync::Never, Fsync::Batched][..]),
        steps in vec(step(), 1..60),
    ) {
        let mut model = Model::new(fsync);
        for step in steps {
            model.apply(step);
        }
    }
}
