//! The cost of an object: the memory that it takes on the server, by which `SIZE` is charged.

use crate::integrity::TAG_LEN;
use crate::metadata::{ChunkLayout, ObjectMetadata};

/// The cost of an object, with its index entries. Measured by the memory that a
/// million objects take; see docs/redis.md.
pub(crate) fn cost(metadata: &ObjectMetadata) -> u64 {
    let segments = metadata.layout.segments(metadata.size);
    let full = metadata.layout.segment_len();
    let data = match segments.checked_sub(1) {
        None => 0,
        Some(before) => {
            let last = metadata.size - before * full;
            before * segment_cost(metadata.layout, full) + segment_cost(metadata.layout, last)
        }
    };
    OBJECT_COST + allocation(metadata.encoded_len() as u64) + data
}

fn segment_cost(layout: ChunkLayout, len: u64) -> u64 {
    SEGMENT_COST + allocation(len + layout.chunks(len) * TAG_LEN as u64)
}

/// A hash with its key, an entry of a sorted set, and one of the set of pins.
const OBJECT_COST: u64 = 640;

/// A key.
const SEGMENT_COST: u64 = 160;

/// What jemalloc takes for a string of this length: sizes are in steps of a quarter of a power of two.
fn allocation(len: u64) -> u64 {
    // The header of a string, and a zero behind it.
    let len = len + 10;
    if len <= 64 {
        return len.next_multiple_of(8);
    }
    let step = len.next_power_of_two() / 8;
    len.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_those_of_the_server() {
        for (len, allocated) in [
            (1, 16),
            (54, 64),
            (55, 80),
            (16 * 1024, 20 * 1024),
            (31 * (16 * 1024 + 16), 512 * 1024),
        ] {
            assert_eq!(allocation(len), allocated, "{len}");
        }
    }
}
