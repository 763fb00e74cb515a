//! Arbitrary requests, for the model.

use cvmcache::plugin::ObjectType;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// How many objects the requests are about.
pub(super) const OBJECTS: u32 = 16;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Begin {
        number: u32,
        object_type: ObjectType,
        expected_size: Option<u64>,
    },
    Write {
        upload: Index,
        len: usize,
    },
    Commit {
        upload: Index,
    },
    GiveUp {
        upload: Index,
    },
    /// An upload from beginning to end, closed at once.
    Store {
        number: u32,
        object_type: ObjectType,
        parts: Vec<usize>,
    },
    Refer {
        number: u32,
        by: i32,
    },
    Read {
        number: u32,
        offset: u64,
        len: u32,
    },
    Shrink {
        target: u64,
    },
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let number = || 0..OBJECTS;
    let object_type = || prop::sample::select(&ObjectType::ALL[..]);
    let expected_size = prop_oneof![
        2 => Just(None),
        4 => (0..20_000u64).prop_map(Some),
        1 => prop::sample::select(&[u64::MAX, u64::MAX - 1, 1 << 63][..]).prop_map(Some),
    ];
    let by = prop_oneof![
        8 => -1..=1i32,
        2 => -3..=3i32,
        1 => prop::sample::select(&[i32::MIN, i32::MIN + 1, i32::MAX - 1, i32::MAX][..]),
    ];
    // Mostly parts of one size and a shorter one, as clients send them.
    let parts = prop_oneof![
        (0..5usize, 0..500usize)
            .prop_map(|(full, last)| { std::iter::repeat_n(500, full).chain([last]).collect() }),
        vec(0..900usize, 0..5),
    ];
    prop_oneof![
        2 => (number(), object_type(), expected_size).prop_map(
            |(number, object_type, expected_size)| Step::Begin { number, object_type, expected_size }
        ),
        4 => (any::<Index>(), 0..1500usize).prop_map(|(upload, len)| Step::Write { upload, len }),
        2 => any::<Index>().prop_map(|upload| Step::Commit { upload }),
        1 => any::<Index>().prop_map(|upload| Step::GiveUp { upload }),
        6 => (number(), object_type(), parts).prop_map(
            |(number, object_type, parts)| Step::Store { number, object_type, parts }
        ),
        6 => (number(), by).prop_map(|(number, by)| Step::Refer { number, by }),
        3 => (number(), prop_oneof![0..3000u64, any::<u64>()], prop_oneof![0..3000u32, any::<u32>()])
            .prop_map(|(number, offset, len)| Step::Read { number, offset, len }),
        1 => prop_oneof![Just(0), 0..30_000u64].prop_map(|target| Step::Shrink { target }),
    ]
}
