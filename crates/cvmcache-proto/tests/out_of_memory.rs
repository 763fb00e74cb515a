//! What is received while memory cannot be had.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use cvmcache_proto::{
    ClientMessage, Decoder, DecoderLimits, Frame, ObjectType, Operation, Request, StorePart, frame,
};

/// An allocator that refuses what is larger than the thread may have.
struct Refusing;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(usize::MAX) };
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

// SAFETY: it refuses, or does what the system's allocator does.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST.get() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(start, layout) }
    }
}

fn encoded(number: u64, description: usize, data: usize) -> Vec<u8> {
    let part = StorePart {
        object: "da39a3ee5e6b4b0d3255bfef95601890afd80709".parse().expect("an id"),
        number,
        last: false,
        expected_size: None,
        object_type: ObjectType::Regular,
        description: Some(vec![b'x'; description].into()),
        data_crc32: None,
        data: vec![7; data].into(),
    };
    let request = Request { session: 1, id: number, operation: Operation::Store(part) };
    let (message, attachment) = ClientMessage::Request(request).into_wire();
    let mut bytes = Vec::new();
    frame::encode(message, attachment.len(), &mut bytes).expect("it fits into a frame");
    bytes.extend_from_slice(&attachment);
    bytes
}

/// Feeds bytes as a socket does, while nothing larger than `largest` can be allocated.
fn decode(bytes: &[u8], largest: usize) -> Vec<Frame> {
    let mut frames = Vec::with_capacity(16);
    let mut decoder = Decoder::new(DecoderLimits::default());
    LARGEST.set(largest);
    let mut rest = bytes;
    loop {
        while let Some(frame) = decoder.next_frame().expect("frames") {
            frames.push(frame);
        }
        let buffer = decoder.buffer();
        let (here, more) = rest.split_at(rest.len().min(buffer.capacity() - buffer.len()));
        buffer.extend_from_slice(here);
        rest = more;
        if here.is_empty() {
            break;
        }
    }
    LARGEST.set(usize::MAX);
    assert!(decoder.is_between_frames());
    frames
}

#[test]
fn an_attachment_without_memory_is_skipped_and_its_message_is_known() {
    let bytes = [encoded(1, 10, 200_000), encoded(2, 10, 4000), encoded(3, 10, 500_000)].concat();
    let frames = decode(&bytes, 100_000);
    let refused: Vec<_> = frames.iter().map(|frame| frame.out_of_memory).collect();
    assert_eq!(refused, [true, false, true]);
    assert!(frames.iter().all(|frame| frame.message.is_some() && !frame.cut));
    assert_eq!(frames[0].attachment, Bytes::new());
    assert_eq!(frames[1].attachment, vec![7; 4000]);
}

#[test]
fn the_stream_goes_on_when_there_is_no_memory_to_read_ahead() {
    let messages = [(1, 10, 3000), (2, 3000, 0), (3, 10, 1000), (4, 30_000, 100), (5, 10, 0)];
    let bytes = messages.map(|(number, text, data)| encoded(number, text, data)).concat();
    let frames = decode(&bytes, 8000);
    assert_eq!(frames.len(), 5);
    assert_eq!(frames[0].attachment.len(), 3000);
    assert_eq!(frames[2].attachment.len(), 1000);
    assert!(frames[4].message.is_some() && !frames[4].cut);
}
