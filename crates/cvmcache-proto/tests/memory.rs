//! A decoder allocates no more than its limits announce, whatever it reads.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cvmcache_proto::{ClientMessage, Decoder, DecoderLimits};
use proptest::collection::vec;
use proptest::prelude::*;

/// Counts what each thread holds, and has held at most.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all of it is the system allocator's work. The counters are plain cells without
// destructors, so they neither allocate nor go away before their thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.get().wrapping_add(layout.size());
        HELD.set(held);
        PEAK.set(PEAK.get().max(held));
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: the pointer comes from `alloc` above, hence from the system allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// How much more than now this thread holds while `work` is done, at most, in bytes.
fn peak(work: impl FnOnce()) -> usize {
    // A base from which frees of older memory cannot take the counter below zero.
    const BASE: usize = 1 << 40;
    HELD.set(BASE);
    PEAK.set(BASE);
    work();
    PEAK.get() - BASE
}

/// Decodes a stream as a socket delivers it, looks for a meaning, and returns what that held.
fn decode(limits: DecoderLimits, stream: impl Iterator<Item = u8>) -> usize {
    peak(|| {
        let mut decoder = Decoder::new(limits);
        let mut stream = stream.peekable();
        while stream.peek().is_some() {
            let buffer = decoder.buffer();
            let spare = buffer.capacity() - buffer.len();
            buffer.extend(stream.by_ref().take(spare));
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => drop(ClientMessage::from_frame(frame)),
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
    })
}

/// What [`DecoderLimits`] announces, and some slack for what small messages take.
fn announced(limits: DecoderLimits) -> usize {
    let ahead = limits.read_ahead + limits.max_message;
    ahead + 2 * limits.max_message + limits.max_attachment + 1024
}

/// A header that announces `len` bytes, then `beginning`, then as many zeros as it takes.
fn frame(version: u8, len: usize, beginning: &[u8]) -> impl Iterator<Item = u8> + use<> {
    let mut header = (len as u32).to_le_bytes();
    header.rotate_right(1);
    header[0] = version;
    let rest = len - beginning.len();
    header.into_iter().chain(beginning.to_vec()).chain(std::iter::repeat_n(0, rest))
}

/// The beginning of a message of `len` bytes in field `tag`, whose field 8 fills it.
fn huge_field(tag: u8, len: usize) -> Vec<u8> {
    let mut message = Vec::new();
    for (key, len) in [(tag << 3 | 2, len - 5), (8 << 3 | 2, len - 10)] {
        message.push(key);
        // Four bytes, whatever the number.
        message.extend((0..3).map(|byte| (len >> (7 * byte)) as u8 & 0x7f | 0x80));
        message.push((len >> 21) as u8);
    }
    message
}

const MAX: usize = (1 << 24) - 1;

#[test]
fn a_decoder_takes_nothing_before_it_is_used() {
    assert_eq!(peak(|| drop(Decoder::new(DecoderLimits::default()))), 0);
}

#[test]
fn memory_is_not_allocated_for_an_announced_length() {
    let limits = DecoderLimits::default();
    let only_header = |version| frame(version, MAX, &[]).take(6);
    let one_message = limits.read_ahead + limits.max_message;
    assert!(decode(limits, only_header(0x01)) <= one_message + 1024);
    assert!(decode(limits, only_header(0x81)) <= limits.read_ahead + 1024);
    assert!(decode(limits, frame(0x01, MAX, &[])) <= announced(limits));
    assert!(decode(limits, frame(0x81, MAX, &[])) <= announced(limits));
}

#[test]
fn a_huge_description_is_not_kept() {
    let limits = DecoderLimits::default();
    for len in [limits.max_message, limits.max_message + 1, MAX] {
        let store = huge_field(7, len);
        let peak = decode(limits, frame(0x01, len, &store));
        assert!(peak <= announced(limits), "{len}: {peak}");
    }
}

#[test]
fn an_attachment_over_the_limit_is_not_kept() {
    let limits = DecoderLimits::default();
    for (over, bound) in [(0, announced(limits)), (1, limits.read_ahead + 1024)] {
        let attachment = limits.max_attachment + over;
        let peak = decode(limits, frame(0x81, attachment + 2, &[]));
        assert!(peak <= bound, "{over}: {peak}");
    }
}

#[test]
fn a_listing_takes_a_few_times_its_length() {
    let limits = DecoderLimits::default();
    // From empty records to such as hold ids: what comes in fewest bytes takes most memory.
    for record in [&[0x2a, 0][..], &[0x2a, 26, 0x1a, 24], &[0x2a, 26, 0x0a, 24, 0x12, 22]] {
        let stride = record.len().max(2 + usize::from(record[1]));
        let count = (limits.max_message - 8) / stride;
        let len = count * stride;
        let mut message = vec![0xc2, 0x01];
        message.extend((0..2).map(|byte| (len >> (7 * byte)) as u8 & 0x7f | 0x80));
        message.push((len >> 14) as u8);
        for _ in 0..count {
            message.extend_from_slice(record);
            message.resize(message.len() + stride - record.len(), 0);
        }
        let peak = decode(limits, frame(0x01, message.len(), &message));
        let bound = announced(limits) + 8 * limits.max_message;
        assert!(peak <= bound, "{count} records like {record:?}: {peak}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_take_no_more_than_announced(
        bytes in vec(any::<u8>(), 0..4000),
        cut: bool,
    ) {
        let mut limits = DecoderLimits::default();
        if cut {
            limits.max_message = 100;
            limits.max_attachment = 1000;
            limits.read_ahead = 64;
        }
        let framed = |version| frame(version, bytes.len().max(1), &bytes);
        let bound = announced(limits) + 8 * limits.max_message.min(bytes.len());
        prop_assert!(decode(limits, bytes.iter().copied()) <= bound);
        prop_assert!(decode(limits, framed(0x01)) <= bound);
        prop_assert!(decode(limits, framed(0x81)) <= bound);
    }
}
