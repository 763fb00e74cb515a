//! What can happen to a service, and how bytes say it: five bytes a step, so that what a fuzzer
//! cuts out or puts in leaves the other steps as they are.

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;
use cvmcache::plugin::{Breadcrumb, HashAlgorithm, ObjectId, ObjectType};
use cvmcache_proto::{Operation, StorePart};
use cvmcache_testkit::Callback;

use super::MAX_OBJECT_SIZE;
use super::plugin::Fault;

/// How many bytes say a step.
pub(super) const STEP_LEN: usize = 5;

/// Something that happens.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A client opens a session, on a new connection if it has none.
    Handshake { slot: usize, name: Bytes },
    /// A client asks for something.
    Ask { slot: usize, claim: Claim, id: u64, ask: Ask },
    /// A client says something about a reload.
    Ioctl { slot: usize, claim: Claim, change: i32 },
    /// A client says that it goes. Whatever it claims, the connection is not closed here.
    Quit { slot: usize, claim: Claim },
    /// The server notes that a client asks nothing more, though requests may be under way.
    Retire { slot: usize },
    /// The connection of a client ends, and so many of its references are given back.
    End { slot: usize, at_most: usize },
    /// The next call of a callback goes wrong.
    Upset { callback: Callback, fault: Fault },
}

/// The session that a message names.
#[derive(Debug, Clone, Copy)]
pub(super) enum Claim {
    Own,
    /// Of the client in this slot.
    Of(usize),
    Unknown,
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// Whatever it is, it is known from the start.
    Fixed(Operation),
    /// The part that an upload waits for.
    NextPart(StorePart),
}

const CHANGES: [i32; 16] =
    [1, -1, 0, 2, -2, 3, -3, i32::MAX, -i32::MAX, i32::MIN, 1, -1, 5, 1 << 30, -(1 << 30), 1];

const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    16,
    17,
    40,
    1 << 31,
    u32::MAX as u64,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// The names of clients and repositories; the last one is too long.
const NAMES: [&[u8]; 4] = [b"repo:1", b"repo:2", b"\xe9:\n", b"a name of 17 byte"];

/// One of the objects there can be.
pub(super) fn object(number: u8) -> ObjectId {
    let algorithm = if number & 4 == 0 { HashAlgorithm::Sha1 } else { HashAlgorithm::Shake128 };
    ObjectId::new(algorithm, [number & 3; 20])
}

impl Arbitrary<'_> for Step {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        // Kind, slot and session, object, and two operands.
        let [kind, who, what, a, b] = <[u8; STEP_LEN]>::arbitrary(u)?;
        let slot = usize::from(who & 3);
        let claim = match who >> 2 & 15 {
            0..14 => Claim::Own,
            14 => Claim::Of(usize::from(who >> 6)),
            _ => Claim::Unknown,
        };
        let name = Bytes::from_static(NAMES[usize::from(what & 3)]);
        let number = |choice: u8| NUMBERS[usize::from(choice & 15)];
        let fixed = |operation| Step::Ask { slot, claim, id: id(what), ask: Ask::Fixed(operation) };
        let (object, object_type) = (object(what), object_type(a));
        Ok(match kind % 24 {
            0 | 1 => Step::Handshake { slot, name },
            2 => Step::Retire { slot },
            3 => Step::End { slot, at_most: usize::from(a & 3) },
            4 => Step::End { slot, at_most: usize::MAX },
            5 | 6 => Step::Ioctl { slot, claim, change: CHANGES[usize::from(a & 15)] },
            7 => Step::Quit { slot, claim },
            8 => {
                let fault = [Fault::Fail, Fault::Panic, Fault::TooMuch][usize::from(b % 3)];
                Step::Upset { callback: Callback::ALL[usize::from(a) % Callback::ALL.len()], fault }
            }
            9..=12 => {
                fixed(Operation::Refcount { object, change_by: CHANGES[usize::from(a & 15)] })
            }
            13 => fixed(Operation::Read { object, offset: number(a), size: number(b) as u32 }),
            14 => fixed(Operation::ObjectInfo { object }),
            15..=17 => {
                let part = part(what, a, b);
                let ask = match a >> 4 {
                    0..12 => Ask::NextPart(part),
                    _ => Ask::Fixed(Operation::Store(StorePart { number: number(b >> 4), ..part })),
                };
                Step::Ask { slot, claim, id: id(what), ask }
            }
            18 => fixed(Operation::StoreAbort { object }),
            19 => fixed(Operation::Info),
            20 => fixed(Operation::Shrink { target: number(b) }),
            21 => fixed(Operation::List { listing: number(b & 3), object_type }),
            22 => {
                let breadcrumb =
                    Breadcrumb { catalog: object, timestamp: a.into(), revision: None };
                fixed(Operation::BreadcrumbStore { repository: name, breadcrumb })
            }
            _ => fixed(Operation::BreadcrumbLoad { repository: name }),
        })
    }

    fn size_hint(_: usize) -> (usize, Option<usize>) {
        (STEP_LEN, Some(STEP_LEN))
    }
}

/// The number of a request.
fn id(what: u8) -> u64 {
    [0, 1, 2, 3, u64::MAX - 1, u64::MAX][usize::from(what >> 4) % 6]
}

fn object_type(choice: u8) -> ObjectType {
    ObjectType::ALL[usize::from(choice) % 3]
}

/// A part of an upload, but for its number.
fn part(what: u8, a: u8, b: u8) -> StorePart {
    let max = MAX_OBJECT_SIZE as usize;
    let len = [max, max, max, max, 3, 0, max + 1, 1][usize::from(a & 7)];
    let expected = [None, None, Some(0), Some(8), Some(11), Some(16), Some(24), Some(u64::MAX)];
    let descriptions = [None, Some(""), Some("/a"), Some("a text of 17 byte")];
    StorePart {
        object: object(what),
        number: 1,
        last: a & 8 != 0,
        expected_size: expected[usize::from(b & 7)],
        object_type: object_type(b >> 5),
        description: descriptions[usize::from(b >> 3 & 3)].map(Bytes::from),
        data_crc32: None,
        // Two parts are hardly ever the same.
        data: (0..len as u8).map(|byte| byte ^ a ^ b.rotate_left(4)).collect(),
    }
}
