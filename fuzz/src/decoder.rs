//! Bytes of a stream, however they are cut: the decoder keeps to its limits and finds the same
//! frames and the same end, and what parses survives another trip over the wire.
//!
//! The first byte of an input picks limits, the second says how many of the following describe
//! chunks, and the rest is the stream.

use cvmcache_proto::frame::{HEADER_LEN, MAX_LEN, MAX_MESSAGE_WITH_ATTACHMENT, encode};
use cvmcache_proto::{
    ClientMessage, Decoder, DecoderLimits, Frame, FrameError, ServerMessage, Status, WireMessage,
};

/// Longer streams are not read byte by byte as well.
const BYTEWISE: usize = 1024;

/// Decodes an input in several ways.
///
/// # Panics
///
/// If a rule is broken.
pub fn run(input: &[u8]) {
    let Some((limits, chunks, stream)) = split(input) else { return };
    let whole = decode(
        limits,
        stream,
        &[Chunk { len: usize::MAX, respects_capacity: false, takes_frames: true }],
    );
    assert_eq!(decode(limits, stream, &chunks), whole, "cut by {chunks:?} under {limits:?}");
    if stream.len() <= BYTEWISE {
        let bytewise = decode(
            limits,
            stream,
            &[Chunk { len: 1, respects_capacity: true, takes_frames: true }],
        );
        assert_eq!(bytewise, whole, "byte by byte under {limits:?}");
    }
    for frame in whole.0 {
        check_size(&frame, limits);
        understand(frame);
    }
}

/// How some bytes reach a decoder.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    len: usize,
    /// Whether the reader stops at the buffer's capacity, or makes it grow.
    respects_capacity: bool,
    /// Whether frames are taken out before the next bytes come.
    takes_frames: bool,
}

fn split(input: &[u8]) -> Option<(DecoderLimits, Vec<Chunk>, &[u8])> {
    let (&[limits, count], rest) = input.split_first_chunk()?;
    let (chunks, stream) = rest.split_at_checked(usize::from(count & 15))?;
    let chunk = |&byte: &u8| {
        let len = usize::from(byte & 0x1f) + 1;
        Chunk {
            len: if byte & 0x20 == 0 { len } else { len * 64 },
            respects_capacity: byte & 0x40 == 0,
            takes_frames: byte & 0x80 == 0,
        }
    };
    let mut chunks: Vec<_> = chunks.iter().map(chunk).collect();
    if chunks.is_empty() {
        chunks.push(Chunk { len: usize::MAX, respects_capacity: true, takes_frames: true });
    }
    Some((pick_limits(limits), chunks, stream))
}

fn pick_limits(choice: u8) -> DecoderLimits {
    let mut limits = DecoderLimits::default();
    let picked = match choice & 3 {
        0 => return limits,
        1 => (100, 50, 32),
        2 => (8, 4, 16),
        _ => (48, 1000, 0),
    };
    (limits.max_message, limits.max_attachment, limits.read_ahead) = picked;
    limits
}

/// All frames of a stream, and how it ends.
fn decode(
    limits: DecoderLimits,
    stream: &[u8],
    chunks: &[Chunk],
) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut decoder = Decoder::new(limits);
    let mut frames = Vec::new();
    let mut rest = stream;
    let mut kept_to_limits = true;
    let held = (limits.read_ahead.max(limits.max_message) + HEADER_LEN).max(limits.max_attachment);
    for chunk in chunks.iter().cycle() {
        let buffer = decoder.buffer();
        let free = buffer.capacity() - buffer.len();
        assert!(free > 0, "a reader that stops at the capacity would wait for ever");
        assert!(!kept_to_limits || buffer.capacity() <= held, "{} bytes held", buffer.capacity());
        let most = if chunk.respects_capacity { free } else { usize::MAX };
        let (now, later) = rest.split_at(chunk.len.min(most).min(rest.len()));
        buffer.extend_from_slice(now);
        rest = later;
        kept_to_limits &= chunk.respects_capacity && chunk.takes_frames;
        if chunk.takes_frames || rest.is_empty() {
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Err(error)),
                }
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    (frames, Ok(()))
}

fn check_size(frame: &Frame, limits: DecoderLimits) {
    assert!(frame.attachment.len() <= limits.max_attachment, "an attachment is over the limit");
    assert!(!frame.cut || frame.attachment.is_empty(), "an attachment of a cut frame was kept");
}

/// A parsed frame means the same after another trip, and a malformed one with an envelope is answered.
fn understand(frame: Frame) {
    match ClientMessage::from_frame(frame.clone()) {
        Ok(message) => {
            let (msg, attachment) = message.clone().into_wire();
            if let Some(frame) = trip(msg, &attachment) {
                assert_eq!(ClientMessage::from_frame(frame), Ok(message));
            }
        }
        Err(bad) => {
            if let Some(envelope) = bad.envelope {
                assert_survives(envelope.fail(Status::Malformed));
            }
        }
    }
    if let Ok(message) = ServerMessage::from_frame(frame) {
        assert_survives(message);
    }
}

fn assert_survives(message: ServerMessage) {
    let (msg, attachment) = message.clone().into_wire();
    if let Some(frame) = trip(msg, &attachment.into_bytes()) {
        assert_eq!(ServerMessage::from_frame(frame), Ok(message));
    }
}

/// The frame that a message and its attachment arrive in, unless they fit into none.
fn trip(msg: WireMessage, attachment: &[u8]) -> Option<Frame> {
    let mut bytes = Vec::new();
    if let Err(error) = encode(msg, attachment.len(), &mut bytes) {
        // Optional fields that were left out are written out, which takes a few bytes more.
        let at_least = MAX_MESSAGE_WITH_ATTACHMENT - 100;
        assert!(error.message > at_least, "what came in a frame fits into none: {error}");
        return None;
    }
    bytes.extend_from_slice(attachment);
    let mut limits = DecoderLimits::default();
    (limits.max_message, limits.max_attachment) = (MAX_LEN, MAX_LEN);
    let mut decoder = Decoder::new(limits);
    decoder.buffer().extend_from_slice(&bytes);
    let frame = decoder.next_frame().expect("what was encoded is a frame");
    assert!(decoder.is_between_frames(), "what was encoded is one frame");
    Some(frame.expect("what was encoded is whole"))
}
