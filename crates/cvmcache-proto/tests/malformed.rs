//! Malformed and oversized frames and messages: their envelopes are recovered.

#[expect(dead_code, reason = "the other half serves the property tests")]
mod common;

use bytes::Bytes;
use cvmcache_proto::{
    BadMessage, Breadcrumb, ClientMessage, DecoderLimits, Envelope, Frame, FrameError,
    HashAlgorithm, ObjectId, ObjectInfo, ObjectType, Operation, RawMessage, Reply, ReplyBody,
    Request, RequestKind, ServerMessage, Status, StorePart,
};

use common::{decode, encode_client, encode_server, limits};

#[test]
fn bytes_that_are_no_frame_are_an_error_that_says_why() {
    let error = |bytes: &[u8]| decode(DecoderLimits::default(), bytes).1.unwrap_err();
    for version in [0x00, 0x02, 0x80, 0x82, 0xff] {
        assert_eq!(error(&[version]), FrameError::Version(version));
    }
    assert_eq!(error(&[0x01, 0, 0, 0]), FrameError::Empty);
    assert_eq!(error(&[0x81, 0, 0, 0]), FrameError::Empty);
    assert_eq!(error(&[0x81, 1, 0, 0]), FrameError::Bounds { frame: 1, message: 0 });
    assert_eq!(
        error(&[0x81, 10, 0, 0, 9, 0]),
        FrameError::Bounds { frame: 8, message: 9 },
        "the message is longer than what the inner header leaves of the frame"
    );
    assert!(matches!(error(&[0x01, 1, 0, 0, 0xff]), FrameError::Message(_)));
}

#[test]
fn frames_before_an_error_are_decoded() {
    let detach = encode_server(ServerMessage::Detach);
    let (frames, end) = decode(DecoderLimits::default(), &[&detach[..], &[0x00]].concat());
    assert_eq!(frames.len(), 1);
    assert_eq!(end, Err(FrameError::Version(0)));
}

#[test]
fn a_message_that_is_empty_or_unknown_is_a_frame_without_one() {
    // No message beside an attachment; an undefined field 30.
    for bytes in [&[0x81, 3, 0, 0, 0, 0, b'x'][..], &[0x01, 3, 0, 0, 0xf2, 0x01, 0x00]] {
        let (frames, end) = decode(DecoderLimits::default(), bytes);
        assert_eq!(end, Ok(()));
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].message, None);
        assert_eq!(
            ClientMessage::from_frame(frames[0].clone()),
            Err(BadMessage { envelope: None })
        );
    }
}

/// A request of every kind, with the numbers of the fields that the protocol requires.
fn requests() -> [(Operation, &'static [u32]); 10] {
    let object = ObjectId::new(HashAlgorithm::Sha1, [0; ObjectId::DIGEST_LEN]);
    let breadcrumb = Breadcrumb { catalog: object, timestamp: 0, revision: None };
    [
        (Operation::Refcount { object, change_by: 1 }, &[1, 2, 3, 4]),
        (Operation::Read { object, offset: 0, size: 1 }, &[1, 2, 3, 4, 5]),
        (Operation::ObjectInfo { object }, &[1, 2, 3]),
        (Operation::Store(part(Bytes::new())), &[1, 2, 3, 4, 5]),
        (Operation::StoreAbort { object }, &[1, 2, 3]),
        (Operation::Info, &[1, 2]),
        (Operation::Shrink { target: 0 }, &[1, 2, 3]),
        (Operation::List { listing: 0, object_type: ObjectType::Regular }, &[1, 2, 3, 4]),
        (Operation::BreadcrumbStore { repository: Bytes::new(), breadcrumb }, &[1, 2, 3]),
        (Operation::BreadcrumbLoad { repository: Bytes::new() }, &[1, 2, 3]),
    ]
}

/// The message of session 1, number 7, to be spoilt.
fn raw(operation: Operation) -> RawMessage {
    raw_message(ClientMessage::Request(Request { session: 1, id: 7, operation }))
}

fn raw_message(message: ClientMessage) -> RawMessage {
    message.into_wire().0.into()
}

#[test]
fn a_request_without_a_required_field_keeps_its_envelope() {
    for (operation, required) in requests() {
        assert!(parse(&raw(operation.clone())).is_ok(), "{operation:?}");
        let kind = operation.kind().request();
        let number = if kind == RequestKind::Store { 3 } else { 0 };
        for &missing in required {
            // Field 2 is the number of the request, field 4 of an upload the part's.
            let id = if missing == 2 { 0 } else { 7 };
            let part = if missing == 4 { 0 } else { number };
            let envelope = Some(Envelope { kind, id, part });
            let message = raw(operation.clone()).without(missing);
            assert_eq!(parse(&message), Err(BadMessage { envelope }), "{message:?}");
        }
    }
    let (store, _) = requests()[8].clone();
    let envelope = Some(Envelope { kind: RequestKind::BreadcrumbStore, id: 7, part: 0 });
    for missing in 1..=3 {
        let message = raw(store.clone()).within(3, |breadcrumb| breadcrumb.without(missing));
        assert_eq!(parse(&message), Err(BadMessage { envelope }), "{message:?}");
    }
}

#[test]
fn of_other_messages_without_a_required_field_only_the_handshake_has_an_envelope() {
    let handshake = ClientMessage::Handshake { protocol_version: 1, name: None };
    let envelope = Some(Envelope { kind: RequestKind::Handshake, id: 0, part: 0 });
    assert_eq!(parse(&raw_message(handshake).without(1)), Err(BadMessage { envelope }));
    for message in [
        ClientMessage::Quit { session: 1 },
        ClientMessage::Ioctl { session: 1, connection_change: 1 },
    ] {
        assert_eq!(parse(&raw_message(message).without(1)), Err(BadMessage { envelope: None }));
    }
}

#[test]
fn a_request_with_an_invalid_id_or_type_keeps_its_envelope() {
    let object = ObjectId::new(HashAlgorithm::Sha1, [0; ObjectId::DIGEST_LEN]);
    let kind = RequestKind::ObjectInfo;
    let envelope = Envelope { kind, id: 7, part: 0 };
    type Spoil = fn(RawMessage) -> RawMessage;
    let spoilt: [Spoil; 8] = [
        |hash| hash.bytes(2, &[0; ObjectId::DIGEST_LEN - 1]),
        |hash| hash.bytes(2, &[0; ObjectId::DIGEST_LEN + 1]),
        |hash| hash.bytes(2, &[]),
        |hash| hash.without(2),
        |hash| hash.number(1, 0),
        |hash| hash.number(1, 4),
        |hash| hash.number(1, -1_i64 as u64),
        |hash| hash.without(1),
    ];
    for spoil in spoilt {
        let message = raw(Operation::ObjectInfo { object }).within(3, spoil);
        let bad = BadMessage { envelope: Some(envelope) };
        assert_eq!(parse(&message), Err(bad), "{message:?}");
    }
    for object_type in [3, -1, i64::from(i32::MAX)] {
        let object_type = object_type as u64;
        let list = Operation::List { listing: 0, object_type: ObjectType::Regular };
        let envelope = Some(Envelope { kind: RequestKind::List, ..envelope });
        assert_eq!(parse(&raw(list).number(4, object_type)), Err(BadMessage { envelope }));
        let store = Operation::Store(part(Bytes::new()));
        let envelope = Some(Envelope { kind: RequestKind::Store, id: 7, part: 3 });
        assert_eq!(parse(&raw(store).number(7, object_type)), Err(BadMessage { envelope }));
    }
}

#[test]
fn names_and_descriptions_need_not_be_utf8() {
    let latin1 = Bytes::from_static(b"/caf\xe9\0\xff");
    let store = ClientMessage::Request(Request {
        session: 1,
        id: 7,
        operation: Operation::Store(StorePart {
            description: Some(latin1.clone()),
            ..part(Bytes::new())
        }),
    });
    let handshake = ClientMessage::Handshake { protocol_version: 1, name: Some(latin1.clone()) };
    let load = ClientMessage::Request(Request {
        session: 1,
        id: 8,
        operation: Operation::BreadcrumbLoad { repository: latin1 },
    });
    for message in [store, handshake, load] {
        assert_eq!(parse(&raw_message(message.clone())), Ok(message));
    }
}

#[test]
fn a_message_over_the_limit_keeps_its_envelope() {
    let long = Bytes::from(vec![b'x'; 5000]);
    let limits = limits(1000, 1000, 64);
    let request = |operation| {
        ClientMessage::Request(Request { session: u64::MAX, id: u64::MAX - 1, operation })
    };
    let crumb = cvmcache_proto::Breadcrumb {
        catalog: part(Bytes::new()).object,
        timestamp: 0,
        revision: None,
    };
    let repository = long.clone();
    let id = u64::MAX - 1;
    use RequestKind as Kind;
    for (message, kind, id, number) in [
        (request(Operation::Store(part(long.clone()))), Kind::Store, id, 3),
        (
            request(Operation::BreadcrumbStore {
                repository: repository.clone(),
                breadcrumb: crumb,
            }),
            Kind::BreadcrumbStore,
            id,
            0,
        ),
        (request(Operation::BreadcrumbLoad { repository }), Kind::BreadcrumbLoad, id, 0),
    ] {
        let (frames, end) = decode(limits, &encode_client(message));
        assert_eq!(end, Ok(()));
        let [frame] = <[Frame; 1]>::try_from(frames).unwrap();
        assert!(frame.cut);
        assert_eq!(frame.attachment, "");
        let envelope = Some(Envelope { kind, id, part: number });
        assert_eq!(ClientMessage::from_frame(frame), Err(BadMessage { envelope }));
    }
}

#[test]
fn a_text_over_the_limit_is_cut_where_nothing_depends_on_it() {
    let long = Bytes::from(vec![b'x'; 5000]);
    let store = |description, data: &[u8]| {
        let part = StorePart { description, ..part(Bytes::copy_from_slice(data)) };
        let operation = Operation::Store(StorePart { data_crc32: None, ..part });
        ClientMessage::Request(Request { session: u64::MAX, id: 7, operation })
    };
    let handshake = |name| ClientMessage::Handshake { protocol_version: 1, name };
    for (data, ahead) in [(&b""[..], 64), (b"data", 64), (b"data", 0), (&[7; 900], 5000)] {
        for message in [store(Some(long.clone()), data), handshake(Some(long.clone()))] {
            let stream = [encode_client(message), encode_client(handshake(None))].concat();
            let (frames, end) = decode(limits(1000, 1000, ahead), &stream);
            assert_eq!((frames.len(), end), (2, Ok(())));
            let [text, next] = <[Frame; 2]>::try_from(frames).unwrap();
            assert_eq!(ClientMessage::from_frame(next), Ok(handshake(None)));
            let text = ClientMessage::from_frame(text).unwrap();
            let cut = match &text {
                ClientMessage::Handshake { name, .. } => name.clone(),
                ClientMessage::Request(Request { operation: Operation::Store(part), .. }) => {
                    part.description.clone()
                }
                other => panic!("{other:?}"),
            };
            let len = cut.as_ref().unwrap().len();
            assert!((900..1000).contains(&len), "{len}");
            assert!([store(cut.clone(), data), handshake(cut)].contains(&text));
        }
    }
}

#[test]
fn a_message_just_within_the_limit_is_whole() {
    let name = Some(Bytes::from(vec![b'x'; 100]));
    let handshake = ClientMessage::Handshake { protocol_version: 1, name };
    let bytes = encode_client(handshake.clone());
    let message = bytes.len() - 4;
    let (frames, _) = decode(limits(message, 0, 64), &bytes);
    assert_eq!(ClientMessage::from_frame(frames[0].clone()), Ok(handshake));
    let (frames, _) = decode(limits(message - 1, 0, 64), &bytes);
    let name = Some(Bytes::from(vec![b'x'; 99]));
    let cut = ClientMessage::Handshake { protocol_version: 1, name };
    assert_eq!(ClientMessage::from_frame(frames[0].clone()), Ok(cut));
}

#[test]
fn after_an_attachment_that_is_too_large_the_stream_goes_on() {
    let store = |data: &[u8]| {
        ClientMessage::Request(Request {
            session: 1,
            id: 7,
            operation: Operation::Store(part(Bytes::copy_from_slice(data))),
        })
    };
    let (large, fits) = (store(&[b'x'; 1001]), store(&[b'x'; 1000]));
    let stream = [encode_client(large), encode_client(fits.clone())].concat();
    let (frames, end) = decode(limits(1000, 1000, 64), &stream);
    assert_eq!(end, Ok(()));
    let messages: Vec<_> = frames.into_iter().map(ClientMessage::from_frame).collect();
    let envelope = Some(Envelope { kind: RequestKind::Store, id: 7, part: 3 });
    assert_eq!(messages, [Err(BadMessage { envelope }), Ok(fits)]);
}

#[test]
fn an_object_info_reply_without_a_size_is_malformed() {
    let info = ObjectInfo::new(0, ObjectType::Regular);
    let reply = |result| {
        let reply = Reply { id: 7, body: ReplyBody::ObjectInfo(result) };
        RawMessage::from(ServerMessage::Reply(reply).into_wire().0)
    };
    let parse = |raw: &RawMessage| ServerMessage::from_frame(frame(raw));
    // Field 4 is the size.
    assert!(parse(&reply(Ok(info)).without(4)).is_err());
    assert!(parse(&reply(Ok(info))).is_ok());
    assert!(parse(&reply(Err(Status::NoEntry)).without(4)).is_ok(), "an absent object has none");
}

fn parse(message: &RawMessage) -> Result<ClientMessage, BadMessage> {
    ClientMessage::from_frame(frame(message))
}

fn frame(message: &RawMessage) -> Frame {
    let bytes = message.to_frame().expect("it fits into a frame");
    let (frames, end) = decode(DecoderLimits::default(), &bytes);
    assert_eq!(end, Ok(()));
    let [frame] = <[Frame; 1]>::try_from(frames).expect("one frame");
    frame
}

fn part(data: Bytes) -> StorePart {
    StorePart::new(ObjectId::new(HashAlgorithm::Sha1, [0; 20]), 3, false, data)
}
