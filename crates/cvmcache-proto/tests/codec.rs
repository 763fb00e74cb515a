//! Properties of every message, and of every way in which a socket cuts a stream.

mod common;

use bytes::{Bytes, BytesMut};
use cvmcache_proto::{
    ClientMessage, Decoder, DecoderLimits, Frame, FrameError, ServerMessage, WireMessage, frame,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use common::{
    client_message, decode, encode, encode_client, encode_server, limits, server_message,
    take_frames,
};

proptest! {
    #[test]
    fn every_message_of_a_client_survives_the_wire(message in client_message()) {
        let (frames, end) = decode(DecoderLimits::default(), &encode_client(message.clone()));
        prop_assert_eq!(end, Ok(()));
        let messages: Vec<_> = frames.into_iter().map(ClientMessage::from_frame).collect();
        prop_assert_eq!(messages, [Ok(message)]);
    }

    #[test]
    fn every_message_of_a_plugin_survives_the_wire(message in server_message()) {
        let (frames, end) = decode(DecoderLimits::default(), &encode_server(message.clone()));
        prop_assert_eq!(end, Ok(()));
        let messages: Vec<_> = frames.into_iter().map(ServerMessage::from_frame).collect();
        prop_assert_eq!(messages, [Ok(message)]);
    }

    #[test]
    fn a_stream_reads_the_same_however_it_is_cut(
        stream in stream(),
        limits in any_limits(),
        chunks in vec(chunk(), 1..20),
    ) {
        let whole = decode(limits, &stream);
        prop_assert_eq!(&whole.1, &Ok(()));
        prop_assert_eq!(decode_in_chunks(limits, &stream, &chunks), whole);
    }

    #[test]
    fn a_stream_that_ends_early_gives_the_frames_that_are_whole(
        stream in stream(),
        limits in any_limits(),
        end in any::<Index>(),
    ) {
        let (frames, _) = decode(limits, &stream);
        let (some, end) = decode(limits, &stream[..end.index(stream.len())]);
        prop_assert_eq!(end, Ok(()));
        prop_assert!(frames.starts_with(&some));
        prop_assert!(some.len() < frames.len());
    }

    #[test]
    fn arbitrary_bytes_decode_the_same_however_they_are_cut(
        bytes in vec(any::<u8>(), 0..2000),
        limits in any_limits(),
        chunks in vec(chunk(), 1..20),
    ) {
        prop_assert_eq!(decode_in_chunks(limits, &bytes, &chunks), decode(limits, &bytes));
    }

    #[test]
    fn a_frame_around_arbitrary_bytes_causes_no_panic(
        payload in vec(any::<u8>(), 1..200),
        attachment: bool,
        max_message in 0..200usize,
    ) {
        let mut bytes = vec![if attachment { 0x81 } else { 0x01 }];
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes()[..3]);
        bytes.extend_from_slice(&payload);
        for max_message in [max_message, 64 * 1024] {
            understand(decode(limits(max_message, 100, 64), &bytes).0);
        }
    }

    #[test]
    fn a_stream_with_a_few_wrong_bytes_causes_no_panic(
        stream in stream(),
        wrong in vec((any::<Index>(), any::<u8>()), 1..8),
        limits in any_limits(),
        chunks in vec(chunk(), 1..20),
    ) {
        let mut stream = stream;
        for (at, byte) in wrong {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let whole = decode(limits, &stream);
        prop_assert_eq!(&decode_in_chunks(limits, &stream, &chunks), &whole);
        understand(whole.0);
    }

    #[test]
    fn a_message_of_the_other_side_is_malformed(from_client in client_message(), from_plugin in server_message()) {
        let (from_client, _) = decode(DecoderLimits::default(), &encode_client(from_client));
        let (from_plugin, _) = decode(DecoderLimits::default(), &encode_server(from_plugin));
        for frame in from_client {
            prop_assert!(ServerMessage::from_frame(frame).is_err());
        }
        for frame in from_plugin {
            prop_assert!(ClientMessage::from_frame(frame).is_err_and(|bad| bad.envelope.is_none()));
        }
    }
}

/// How some bytes reach a decoder.
#[derive(Debug, Clone)]
struct Chunk {
    len: usize,
    /// Whether the reader stops at the buffer's capacity, or makes it grow.
    respects_capacity: bool,
    /// Whether frames are taken out before the next bytes come.
    takes_frames: bool,
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let len = prop_oneof![1..10usize, 1..1000usize, 1..50_000usize];
    (len, any::<bool>(), any::<bool>()).prop_map(|(len, respects_capacity, takes_frames)| Chunk {
        len,
        respects_capacity,
        takes_frames,
    })
}

/// Decodes `stream` as it comes in `chunks`, over and over again.
fn decode_in_chunks(
    limits: DecoderLimits,
    stream: &[u8],
    chunks: &[Chunk],
) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut decoder = Decoder::new(limits);
    let mut frames = Vec::new();
    let mut rest = stream;
    for chunk in chunks.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let buffer = decoder.buffer();
        let spare = buffer.capacity() - buffer.len();
        assert!(spare > 0, "a reader would take an empty buffer for the end of the stream");
        let len = chunk.len.min(rest.len());
        let len = if chunk.respects_capacity { len.min(spare) } else { len };
        let (now, later) = rest.split_at(len);
        buffer.extend_from_slice(now);
        rest = later;
        if chunk.takes_frames
            && let Err(error) = take_frames(&mut decoder, &mut frames)
        {
            return (frames, Err(error));
        }
    }
    let end = take_frames(&mut decoder, &mut frames);
    (frames, end)
}

/// The bytes of some frames, of either side.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let frame = prop_oneof![
        client_message().prop_map(encode_client),
        server_message().prop_map(encode_server),
    ];
    vec(frame, 1..8).prop_map(|frames| frames.concat())
}

/// The usual limits, and such as cut many a message and attachment.
fn any_limits() -> impl Strategy<Value = DecoderLimits> {
    prop_oneof![
        Just(DecoderLimits::default()),
        (0..200usize, 0..2000usize, 0..100usize)
            .prop_map(|(message, attachment, ahead)| limits(message, attachment, ahead)),
    ]
}

/// Asks both sides for the meaning of frames that may have none.
fn understand(frames: Vec<Frame>) {
    for frame in frames {
        let _ = ClientMessage::from_frame(frame.clone());
        let _ = ServerMessage::from_frame(frame);
    }
}

fn detach() -> WireMessage {
    ServerMessage::Detach.into_wire().0
}

#[test]
fn an_attachment_is_received_into_a_buffer_of_its_own_size() {
    let part = Bytes::from(vec![7; 100_000]);
    let stream = encode(detach(), &part);
    let mut decoder = Decoder::new(DecoderLimits::default());
    decoder.buffer().extend_from_slice(&stream[..stream.len() - part.len()]);
    assert_eq!(decoder.next_frame(), Ok(None));
    let buffer = decoder.buffer();
    assert_eq!((buffer.len(), buffer.capacity()), (0, part.len()));
    let address = buffer.as_ptr();
    buffer.extend_from_slice(&part);
    let frame = decoder.next_frame().unwrap().unwrap();
    assert_eq!(frame.attachment, part);
    assert_eq!(frame.attachment.as_ptr(), address);
    assert!(decoder.is_between_frames());
}

#[test]
fn bytes_stay_in_order_even_if_frames_are_taken_out_late() {
    let plain = encode(detach(), &[]);
    let with_data = encode(detach(), b"data");
    let mut decoder = Decoder::new(DecoderLimits::default());
    decoder.buffer().extend_from_slice(&with_data[..with_data.len() - 2]);
    assert_eq!(decoder.next_frame(), Ok(None));
    // More than the rest of the attachment, cut in the midst of what follows, and then the rest.
    decoder.buffer().extend_from_slice(b"ta\x01");
    decoder.buffer().extend_from_slice(&plain[1..]);
    let mut frames = Vec::new();
    assert_eq!(take_frames(&mut decoder, &mut frames), Ok(()));
    assert_eq!(frames[0].attachment, "data");
    assert_eq!(frames.len(), 2);
}

#[test]
fn a_decoder_gives_the_memory_of_a_long_message_back() {
    let mut limits = DecoderLimits::default();
    limits.max_message = 1 << 20;
    let mut decoder = Decoder::new(limits);
    assert_eq!(decoder.held(), 0);
    let name = Bytes::from(vec![b'a'; 1 << 20 >> 1]);
    let hello = ClientMessage::Handshake { protocol_version: 1, name: Some(name) };
    let mut stream = BytesMut::new();
    frame::encode(hello.into_wire().0, 0, &mut stream).unwrap();
    let mut rest = &stream[..];
    while !rest.is_empty() {
        assert_eq!(decoder.next_frame(), Ok(None));
        let buffer = decoder.buffer();
        let len = rest.len().min(buffer.capacity() - buffer.len());
        buffer.extend_from_slice(&rest[..len]);
        rest = &rest[len..];
    }
    assert!(decoder.held() > 1 << 19);
    assert!(decoder.next_frame().unwrap().is_some());
    decoder.buffer();
    assert!(decoder.held() <= 2 * limits.read_ahead, "{}", decoder.held());
    decoder.release();
    assert_eq!(decoder.held(), 0);
}

#[test]
fn a_released_decoder_keeps_what_it_was_given() {
    let mut stream = BytesMut::new();
    frame::encode(detach(), 0, &mut stream).unwrap();
    let mut decoder = Decoder::new(DecoderLimits::default());
    let (first, rest) = stream.split_at(5);
    decoder.buffer().extend_from_slice(first);
    decoder.release();
    assert_eq!(decoder.held(), 5);
    assert_eq!(decoder.next_frame(), Ok(None));
    decoder.release();
    decoder.buffer().extend_from_slice(rest);
    assert!(decoder.next_frame().unwrap().is_some());
}
