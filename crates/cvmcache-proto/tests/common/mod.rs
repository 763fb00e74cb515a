//! What the tests of the codec share: messages of every kind, and their bytes.

use bytes::Bytes;
use cvmcache_proto::{
    Breadcrumb, CacheInfo, Capabilities, ClientMessage, Data, Decoder, DecoderLimits, Frame,
    FrameError, HandshakeAck, HashAlgorithm, ListEntry, ObjectId, ObjectInfo, ObjectType,
    Operation, Reply, ReplyBody, Request, ServerMessage, Status, StorePart, WireMessage, frame,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// The bytes of a frame.
pub(crate) fn encode(message: WireMessage, attachment: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(message, attachment.len(), &mut out).expect("it fits into a frame");
    out.extend_from_slice(attachment);
    out
}

/// The frame that a client sends.
pub(crate) fn encode_client(message: ClientMessage) -> Vec<u8> {
    let (msg, attachment) = message.into_wire();
    encode(msg, &attachment)
}

/// The frame that a plugin sends.
pub(crate) fn encode_server(message: ServerMessage) -> Vec<u8> {
    let (msg, attachment) = message.into_wire();
    encode(msg, &attachment.into_bytes())
}

/// Limits under which everything is cut that can be.
pub(crate) fn limits(
    max_message: usize,
    max_attachment: usize,
    read_ahead: usize,
) -> DecoderLimits {
    let mut limits = DecoderLimits::default();
    limits.max_message = max_message;
    limits.max_attachment = max_attachment;
    limits.read_ahead = read_ahead;
    limits
}

/// All frames in `bytes`, which come at once, and how it ends.
pub(crate) fn decode(limits: DecoderLimits, bytes: &[u8]) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut decoder = Decoder::new(limits);
    decoder.buffer().extend_from_slice(bytes);
    let mut frames = Vec::new();
    let end = take_frames(&mut decoder, &mut frames);
    (frames, end)
}

/// Moves the frames that are complete to `frames`.
pub(crate) fn take_frames(
    decoder: &mut Decoder,
    frames: &mut Vec<Frame>,
) -> Result<(), FrameError> {
    while let Some(frame) = decoder.next_frame()? {
        frames.push(frame);
    }
    Ok(())
}

/// Any message of a client.
pub(crate) fn client_message() -> impl Strategy<Value = ClientMessage> {
    let request = (number(), number(), operation()).prop_map(|(session, id, operation)| Request {
        session,
        id,
        operation,
    });
    prop_oneof![
        1 => (any::<u32>(), option::of(text())).prop_map(|(protocol_version, name)| {
            ClientMessage::Handshake { protocol_version, name }
        }),
        1 => number().prop_map(|session| ClientMessage::Quit { session }),
        1 => (number(), any::<i32>()).prop_map(|(session, connection_change)| {
            ClientMessage::Ioctl { session, connection_change }
        }),
        9 => request.prop_map(ClientMessage::Request),
    ]
}

/// Any message of a plugin.
pub(crate) fn server_message() -> impl Strategy<Value = ServerMessage> {
    prop_oneof![
        1 => handshake_ack().prop_map(ServerMessage::HandshakeAck),
        1 => Just(ServerMessage::Detach),
        8 => (number(), reply_body())
            .prop_map(|(id, body)| ServerMessage::Reply(Reply { id, body })),
    ]
}

/// Any name of an object.
pub(crate) fn object_id() -> impl Strategy<Value = ObjectId> {
    let algorithm = select(&HashAlgorithm::ALL[..]);
    (algorithm, any::<[u8; ObjectId::DIGEST_LEN]>())
        .prop_map(|(algorithm, digest)| ObjectId::new(algorithm, digest))
}

/// Numbers whose varints have every length.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32).prop_map(|(bits, shift)| bits >> shift)
}

/// Names and paths, which need not be UTF-8.
fn text() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

/// Attachments, mostly small ones.
fn data() -> impl Strategy<Value = Bytes> {
    prop_oneof![4 => vec(any::<u8>(), 0..100), 1 => vec(any::<u8>(), 0..40_000)]
        .prop_map(Bytes::from)
}

fn object_type() -> impl Strategy<Value = ObjectType> {
    select(&ObjectType::ALL[..])
}

fn status() -> impl Strategy<Value = Status> {
    select(&Status::ALL[..])
}

fn breadcrumb() -> impl Strategy<Value = Breadcrumb> {
    (object_id(), number(), option::of(number()))
        .prop_map(|(catalog, timestamp, revision)| Breadcrumb { catalog, timestamp, revision })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (object_id(), any::<i32>())
            .prop_map(|(object, change_by)| Operation::Refcount { object, change_by }),
        (object_id(), number(), any::<u32>()).prop_map(|(object, offset, size)| Operation::Read {
            object,
            offset,
            size
        }),
        object_id().prop_map(|object| Operation::ObjectInfo { object }),
        store_part().prop_map(Operation::Store),
        object_id().prop_map(|object| Operation::StoreAbort { object }),
        Just(Operation::Info),
        number().prop_map(|target| Operation::Shrink { target }),
        (number(), object_type())
            .prop_map(|(listing, object_type)| Operation::List { listing, object_type }),
        (text(), breadcrumb()).prop_map(|(repository, breadcrumb)| {
            Operation::BreadcrumbStore { repository, breadcrumb }
        }),
        text().prop_map(|repository| Operation::BreadcrumbLoad { repository }),
    ]
}

fn store_part() -> impl Strategy<Value = StorePart> {
    // 2^64-1 bytes is how the wire says that the size is not known.
    let expected_size = option::of(number().prop_map(|size| size.min(u64::MAX - 1)));
    let description = option::of(text());
    let crc = option::of(any::<u32>());
    (object_id(), number(), any::<bool>(), expected_size, object_type(), description, crc, data())
        .prop_map(
            |(object, number, last, expected_size, object_type, description, data_crc32, data)| {
                StorePart {
                    object,
                    number,
                    last,
                    expected_size,
                    object_type,
                    description,
                    data_crc32,
                    data,
                }
            },
        )
}

fn handshake_ack() -> impl Strategy<Value = HandshakeAck> {
    let result = result(Just(()));
    let pid = option::of(number());
    (result, text(), any::<u32>(), number(), any::<u32>(), number(), pid).prop_map(
        |(result, name, protocol_version, session, max_object_size, capabilities, pid)| {
            HandshakeAck {
                result,
                name,
                protocol_version,
                session,
                max_object_size,
                capabilities: Capabilities::from_bits_retain(capabilities),
                pid,
            }
        },
    )
}

fn reply_body() -> impl Strategy<Value = ReplyBody> {
    let info = (number(), object_type())
        .prop_map(|(size, object_type)| ObjectInfo::new(size, object_type));
    let pieces = vec(data(), 0..3).prop_map(|pieces| pieces.into_iter().collect::<Data>());
    prop_oneof![
        result(Just(())).prop_map(ReplyBody::Refcount),
        (result(pieces), option::of(any::<u32>()))
            .prop_map(|(result, data_crc32)| ReplyBody::Read { result, data_crc32 }),
        result(info).prop_map(ReplyBody::ObjectInfo),
        (result(Just(())), number()).prop_map(|(result, part)| ReplyBody::Store { result, part }),
        result(cache_info()).prop_map(ReplyBody::Info),
        (result(Just(())), number())
            .prop_map(|(result, used_bytes)| ReplyBody::Shrink { result, used_bytes }),
        (result(Just(())), number(), any::<bool>(), vec(list_entry(), 0..8)).prop_map(
            |(result, listing, last, entries)| ReplyBody::List { result, listing, last, entries }
        ),
        result(option::of((text(), breadcrumb()))).prop_map(ReplyBody::Breadcrumb),
    ]
}

fn cache_info() -> impl Strategy<Value = CacheInfo> {
    // The wire counts clean-ups in a signed number.
    let shrink_count = option::of(0..=i64::MAX as u64);
    (number(), number(), number(), shrink_count).prop_map(
        |(size_bytes, used_bytes, pinned_bytes, shrink_count)| {
            CacheInfo::new(size_bytes, used_bytes, pinned_bytes).with_shrink_count(shrink_count)
        },
    )
}

fn list_entry() -> impl Strategy<Value = ListEntry> {
    (object_id(), any::<bool>(), option::of(text()))
        .prop_map(|(id, pinned, description)| ListEntry::new(id, pinned, description))
}

fn result<T: std::fmt::Debug>(
    ok: impl Strategy<Value = T>,
) -> impl Strategy<Value = Result<T, Status>> {
    prop_oneof![3 => ok.prop_map(Ok), 1 => status().prop_map(Err)]
}
