//! What becomes of frames and messages that are none, or too large: what can be answered still is.

#[expect(dead_code, reason = "the other half serves the property tests")]
mod common;

use bytes::Bytes;
use cvmcache_proto::wire::{self, Msg};
use cvmcache_proto::{
    BadMessage, ClientMessage, DecoderLimits, Envelope, Frame, FrameError, HashAlgorithm, ObjectId,
    Operation, Request, RequestKind, ServerMessage, StorePart,
};

use common::{decode, encode, encode_client, limits};

const SESSION: Option<u64> = Some(1);
const ID: Option<u64> = Some(7);

#[test]
fn bytes_that_are_no_frame_say_what_is_wrong() {
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
fn what_comes_before_an_error_is_still_there() {
    let detach = encode(Msg::Detach(wire::MsgDetach {}), &[]);
    let (frames, end) = decode(DecoderLimits::default(), &[&detach[..], &[0x00]].concat());
    assert_eq!(frames.len(), 1);
    assert_eq!(end, Err(FrameError::Version(0)));
}

#[test]
fn a_message_that_is_empty_or_unknown_is_a_frame_without_one() {
    // No message beside an attachment; a field 30 that nobody has defined.
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

#[test]
fn a_request_without_a_required_field_can_still_be_answered() {
    use RequestKind as Kind;
    let to = |kind, id, part| Some(Envelope { kind, id, part });
    let hash = || wire::MsgHash { algorithm: Some(1), digest: Some((&[0; 20][..]).into()) };
    let object_id = || Some(hash());

    let refcount = || wire::MsgRefcountReq {
        session_id: SESSION,
        req_id: ID,
        object_id: object_id(),
        change_by: Some(1),
    };
    let read = || wire::MsgReadReq {
        session_id: SESSION,
        req_id: ID,
        object_id: object_id(),
        offset: Some(0),
        size: Some(1),
    };
    let object_info =
        || wire::MsgObjectInfoReq { session_id: SESSION, req_id: ID, object_id: object_id() };
    let store = || wire::MsgStoreReq {
        session_id: SESSION,
        req_id: ID,
        object_id: object_id(),
        part_nr: Some(3),
        last_part: Some(false),
        ..Default::default()
    };
    let abort =
        || wire::MsgStoreAbortReq { session_id: SESSION, req_id: ID, object_id: object_id() };
    let info = || wire::MsgInfoReq { session_id: SESSION, req_id: ID, no_shrink_in_period: None };
    let shrink = || wire::MsgShrinkReq { session_id: SESSION, req_id: ID, shrink_to: Some(0) };
    let list = || wire::MsgListReq {
        session_id: SESSION,
        req_id: ID,
        listing_id: Some(0),
        object_type: Some(0),
    };
    let crumb = || wire::MsgBreadcrumb {
        fqrn: Some(Vec::new()),
        hash: object_id(),
        timestamp: Some(0),
        revision: None,
    };
    let crumb_store = |crumb| wire::MsgBreadcrumbStoreReq {
        session_id: SESSION,
        req_id: ID,
        breadcrumb: Some(crumb),
    };
    let crumb_load =
        || wire::MsgBreadcrumbLoadReq { session_id: SESSION, req_id: ID, fqrn: Some(Vec::new()) };

    for complete in [
        Msg::RefcountReq(refcount()),
        Msg::ReadReq(read()),
        Msg::ObjectInfoReq(object_info()),
        Msg::StoreReq(store()),
        Msg::StoreAbortReq(abort()),
        Msg::InfoReq(info()),
        Msg::ShrinkReq(shrink()),
        Msg::ListReq(list()),
        Msg::BreadcrumbStoreReq(crumb_store(crumb())),
        Msg::BreadcrumbLoadReq(crumb_load()),
    ] {
        assert!(parse(complete.clone()).is_ok(), "{complete:?}");
    }

    let refcount_reply = to(Kind::Refcount, 7, 0);
    let read_reply = to(Kind::Read, 7, 0);
    let object_info_reply = to(Kind::ObjectInfo, 7, 0);
    let store_reply = to(Kind::Store, 7, 3);
    let abort_reply = to(Kind::StoreAbort, 7, 0);
    let info_reply = to(Kind::Info, 7, 0);
    let shrink_reply = to(Kind::Shrink, 7, 0);
    let list_reply = to(Kind::List, 7, 0);
    let crumb_store_reply = to(Kind::BreadcrumbStore, 7, 0);
    let crumb_load_reply = to(Kind::BreadcrumbLoad, 7, 0);

    use Msg::*;
    #[rustfmt::skip]
    let incomplete = [
        (Handshake(wire::MsgHandshake::default()), to(Kind::Handshake, 0, 0)),
        (Quit(wire::MsgQuit::default()), None),
        (Ioctl(wire::MsgIoctl { session_id: None, conncnt_change_by: Some(1) }), None),
        (RefcountReq(wire::MsgRefcountReq { session_id: None, ..refcount() }), refcount_reply),
        (RefcountReq(wire::MsgRefcountReq { req_id: None, ..refcount() }), to(Kind::Refcount, 0, 0)),
        (RefcountReq(wire::MsgRefcountReq { object_id: None, ..refcount() }), refcount_reply),
        (RefcountReq(wire::MsgRefcountReq { change_by: None, ..refcount() }), refcount_reply),
        (ReadReq(wire::MsgReadReq { session_id: None, ..read() }), read_reply),
        (ReadReq(wire::MsgReadReq { req_id: None, ..read() }), to(Kind::Read, 0, 0)),
        (ReadReq(wire::MsgReadReq { object_id: None, ..read() }), read_reply),
        (ReadReq(wire::MsgReadReq { offset: None, ..read() }), read_reply),
        (ReadReq(wire::MsgReadReq { size: None, ..read() }), read_reply),
        (ObjectInfoReq(wire::MsgObjectInfoReq { session_id: None, ..object_info() }), object_info_reply),
        (ObjectInfoReq(wire::MsgObjectInfoReq { req_id: None, ..object_info() }), to(Kind::ObjectInfo, 0, 0)),
        (ObjectInfoReq(wire::MsgObjectInfoReq { object_id: None, ..object_info() }), object_info_reply),
        (StoreReq(wire::MsgStoreReq { session_id: None, ..store() }), store_reply),
        (StoreReq(wire::MsgStoreReq { req_id: None, ..store() }), to(Kind::Store, 0, 3)),
        (StoreReq(wire::MsgStoreReq { object_id: None, ..store() }), store_reply),
        (StoreReq(wire::MsgStoreReq { part_nr: None, ..store() }), to(Kind::Store, 7, 0)),
        (StoreReq(wire::MsgStoreReq { last_part: None, ..store() }), store_reply),
        (StoreAbortReq(wire::MsgStoreAbortReq { session_id: None, ..abort() }), abort_reply),
        (StoreAbortReq(wire::MsgStoreAbortReq { req_id: None, ..abort() }), to(Kind::StoreAbort, 0, 0)),
        (StoreAbortReq(wire::MsgStoreAbortReq { object_id: None, ..abort() }), abort_reply),
        (InfoReq(wire::MsgInfoReq { session_id: None, ..info() }), info_reply),
        (InfoReq(wire::MsgInfoReq { req_id: None, ..info() }), to(Kind::Info, 0, 0)),
        (ShrinkReq(wire::MsgShrinkReq { session_id: None, ..shrink() }), shrink_reply),
        (ShrinkReq(wire::MsgShrinkReq { req_id: None, ..shrink() }), to(Kind::Shrink, 0, 0)),
        (ShrinkReq(wire::MsgShrinkReq { shrink_to: None, ..shrink() }), shrink_reply),
        (ListReq(wire::MsgListReq { session_id: None, ..list() }), list_reply),
        (ListReq(wire::MsgListReq { req_id: None, ..list() }), to(Kind::List, 0, 0)),
        (ListReq(wire::MsgListReq { listing_id: None, ..list() }), list_reply),
        (ListReq(wire::MsgListReq { object_type: None, ..list() }), list_reply),
        (BreadcrumbStoreReq(wire::MsgBreadcrumbStoreReq { session_id: None, ..crumb_store(crumb()) }), crumb_store_reply),
        (BreadcrumbStoreReq(wire::MsgBreadcrumbStoreReq { req_id: None, ..crumb_store(crumb()) }), to(Kind::BreadcrumbStore, 0, 0)),
        (BreadcrumbStoreReq(wire::MsgBreadcrumbStoreReq { breadcrumb: None, ..crumb_store(crumb()) }), crumb_store_reply),
        (BreadcrumbStoreReq(crumb_store(wire::MsgBreadcrumb { fqrn: None, ..crumb() })), crumb_store_reply),
        (BreadcrumbStoreReq(crumb_store(wire::MsgBreadcrumb { hash: None, ..crumb() })), crumb_store_reply),
        (BreadcrumbStoreReq(crumb_store(wire::MsgBreadcrumb { timestamp: None, ..crumb() })), crumb_store_reply),
        (BreadcrumbLoadReq(wire::MsgBreadcrumbLoadReq { session_id: None, ..crumb_load() }), crumb_load_reply),
        (BreadcrumbLoadReq(wire::MsgBreadcrumbLoadReq { req_id: None, ..crumb_load() }), to(Kind::BreadcrumbLoad, 0, 0)),
        (BreadcrumbLoadReq(wire::MsgBreadcrumbLoadReq { fqrn: None, ..crumb_load() }), crumb_load_reply),
    ];
    for (msg, envelope) in incomplete {
        assert_eq!(parse(msg.clone()), Err(BadMessage { envelope }), "{msg:?}");
    }
}

#[test]
fn what_names_no_object_or_type_can_still_be_answered() {
    let envelope = Envelope { kind: RequestKind::ObjectInfo, id: 7, part: 0 };
    let good = wire::MsgHash { algorithm: Some(1), digest: Some((&[0; 20][..]).into()) };
    for hash in [
        wire::MsgHash { digest: Some((&[0; 19][..]).into()), ..good.clone() },
        wire::MsgHash { digest: Some((&[0; 21][..]).into()), ..good.clone() },
        wire::MsgHash { digest: Some((&[][..]).into()), ..good.clone() },
        wire::MsgHash { digest: None, ..good.clone() },
        wire::MsgHash { algorithm: Some(0), ..good.clone() },
        wire::MsgHash { algorithm: Some(4), ..good.clone() },
        wire::MsgHash { algorithm: Some(-1), ..good.clone() },
        wire::MsgHash { algorithm: None, ..good.clone() },
    ] {
        let msg = Msg::ObjectInfoReq(wire::MsgObjectInfoReq {
            session_id: SESSION,
            req_id: ID,
            object_id: Some(hash.clone()),
        });
        assert_eq!(parse(msg), Err(BadMessage { envelope: Some(envelope) }), "{hash:?}");
    }
    for object_type in [3, -1, i32::MAX] {
        let list = Msg::ListReq(wire::MsgListReq {
            session_id: SESSION,
            req_id: ID,
            listing_id: Some(0),
            object_type: Some(object_type),
        });
        let envelope = Some(Envelope { kind: RequestKind::List, ..envelope });
        assert_eq!(parse(list), Err(BadMessage { envelope }));
        let store = Msg::StoreReq(wire::MsgStoreReq {
            session_id: SESSION,
            req_id: ID,
            object_id: Some(good.clone()),
            part_nr: Some(1),
            last_part: Some(true),
            object_type: Some(object_type),
            ..Default::default()
        });
        let envelope = Some(Envelope { kind: RequestKind::Store, id: 7, part: 1 });
        assert_eq!(parse(store), Err(BadMessage { envelope }));
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
        let (msg, _) = message.clone().into_wire();
        assert_eq!(parse(msg), Ok(message));
    }
}

#[test]
fn of_a_message_that_is_too_long_enough_is_left_to_answer_it() {
    let long = Bytes::from(vec![b'x'; 5000]);
    let limits = limits(1000, 1000, 64);
    let request = |operation| {
        ClientMessage::Request(Request { session: u64::MAX, id: u64::MAX - 1, operation })
    };
    let store = |data| {
        let description = Some(long.clone());
        request(Operation::Store(StorePart { description, ..part(data) }))
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
        (store(Bytes::new()), Kind::Store, id, 3),
        (store(Bytes::from_static(b"data")), Kind::Store, id, 3),
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
        (
            ClientMessage::Handshake { protocol_version: 1, name: Some(long.clone()) },
            Kind::Handshake,
            0,
            0,
        ),
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
fn a_message_just_within_the_limit_is_whole() {
    let name = Some(Bytes::from(vec![b'x'; 100]));
    let handshake = ClientMessage::Handshake { protocol_version: 1, name };
    let bytes = encode_client(handshake.clone());
    let message = bytes.len() - 4;
    let (frames, _) = decode(limits(message, 0, 64), &bytes);
    assert_eq!(ClientMessage::from_frame(frames[0].clone()), Ok(handshake));
    let (frames, _) = decode(limits(message - 1, 0, 64), &bytes);
    assert!(frames[0].cut);
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
fn an_object_without_a_size_is_no_answer() {
    let reply = |status, size| {
        let message = Some(Msg::ObjectInfoReply(wire::MsgObjectInfoReply {
            req_id: ID,
            status: Some(status),
            object_type: None,
            size,
        }));
        ServerMessage::from_frame(Frame { message, ..Frame::default() })
    };
    assert!(reply(1, None).is_err());
    assert!(reply(1, Some(0)).is_ok());
    assert!(reply(5, None).is_ok(), "an object that is not there has none");
}

fn parse(message: Msg) -> Result<ClientMessage, BadMessage> {
    ClientMessage::from_frame(Frame { message: Some(message), ..Frame::default() })
}

fn part(data: Bytes) -> StorePart {
    StorePart {
        object: ObjectId::new(HashAlgorithm::Sha1, [0; 20]),
        number: 3,
        last: false,
        expected_size: None,
        object_type: Default::default(),
        description: None,
        data_crc32: None,
        data,
    }
}
