//! Writes the inputs that fuzzing starts from: requests to an administration socket, every message, as it
//! stands on the wire, and the usual lives of clients.
//!
//! `cargo run -p cvmcache-fuzz --example seeds`

use std::path::Path;
use std::{fs, io};

use bytes::Bytes;
use cvmcache_proto::{
    Breadcrumb, CacheInfo, Capabilities, ClientMessage, Data, HandshakeAck, HashAlgorithm,
    ListEntry, ObjectId, ObjectInfo, ObjectType, Operation, Reply, ReplyBody, Request,
    ServerMessage, Status, StorePart, WireMessage, frame,
};

const OBJECT: ObjectId = ObjectId::new(HashAlgorithm::Shake128, [0xab; 20]);
const CRUMB: Breadcrumb = Breadcrumb { catalog: OBJECT, timestamp: 1 << 30, revision: Some(7) };

fn main() -> io::Result<()> {
    let mut streams: Vec<Vec<u8>> = client_messages().into_iter().map(of_client).collect();
    streams.extend(server_messages().into_iter().map(of_plugin));
    streams.push(streams.concat());
    for (number, stream) in streams.iter().enumerate() {
        // Default limits, and tight ones; at once, and in chunks of 1, 2, 6 and 1984 bytes.
        for (how, beginning) in [&[0, 0][..], &[0, 4, 0, 1, 5, 62], &[1, 0]].iter().enumerate() {
            write(
                "decoder",
                &format!("seed-{number:02}-{how}"),
                &[beginning, &stream[..]].concat(),
            )?;
        }
    }
    for (name, request) in REQUESTS {
        for (how, beginning) in [&[0][..], &[2, 0, 29]].iter().enumerate() {
            let input = [beginning, request.as_bytes()].concat();
            write("admin", &format!("seed-{name}-{how}"), &input)?;
        }
    }
    for (name, steps) in LIVES {
        write("service", &format!("seed-{name}"), &[&[0], steps.as_flattened()].concat())?;
    }
    Ok(())
}

/// What administrators ask, and what is none of it.
const REQUESTS: [(&str, &str); 20] = [
    ("index", "GET /v1 HTTP/1.1\r\nHost: plugin\r\n\r\n"),
    ("sessions", "GET /v1/sessions?a=%00 HTTP/1.1\r\n\r\n"),
    ("statistics", "GET /v1/statistics HTTP/1.0\r\n\r\n"),
    ("configuration", "HEAD /v1/configuration HTTP/1.1\r\n\r\n"),
    ("health", "GET /v1/health HTTP/1.1\nAccept: */*\n\n"),
    ("report", "GET /v1/report/ HTTP/1.1\r\n\r\nGET /v1 HTTP/1.1\r\n\r\n"),
    ("level", "POST /v1/log-level HTTP/1.1\r\nContent-Length: 17\r\n\r\n{\"level\":\"debug\"}"),
    ("shrink", "POST /v1/shrink HTTP/1.1\r\ncontent-length: 11\r\n\r\n{\"bytes\":1}"),
    ("twice", "POST /v1/shrink HTTP/1.1\r\nContent-Length: 21\r\n\r\n{\"bytes\":1,\"bytes\":2}"),
    ("echo", "POST /v1/plugin/echo HTTP/1.1\r\nContent-Length: 13\r\n\r\n{\"a\":[[1e9]]}"),
    ("fail", "POST /v1/plugin/echo HTTP/1.1\r\nContent-Length: 10\r\n\r\n{\"fail\":1}"),
    ("detach", "POST /v1/detach HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}"),
    ("method", "BREW /v1/sessions HTTP/1.1\r\n\r\n"),
    ("encoded", "GET /v1/%73essions/../health HTTP/1.1\r\n\r\n"),
    ("url", "GET http://plugin/v1/health HTTP/1.1\r\n\r\n"),
    ("chunked", "POST /v1/zero HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("lengths", "POST /v1/zero HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n"),
    ("too-long", "POST /v1/zero HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"),
    ("http2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0"),
    ("early-end", "POST /v1/shrink HTTP/1.1\r\nContent-Length: 11\r\n\r\n{\"byt"),
];

/// What clients do, in the five bytes of a step: kind, slot and session, object, two operands.
const LIVES: [(&str, &[[u8; 5]]); 6] = [
    (
        "open-read-close",
        &[
            [0, 0, 0, 0, 0],
            [9, 0, 2, 0, 0],
            [14, 0, 2, 0, 0],
            [13, 0, 2, 2, 5],
            [9, 0, 2, 1, 0],
            [4, 0, 0, 0, 0],
        ],
    ),
    (
        "store",
        &[
            [0, 0, 0, 0, 0],
            [15, 0, 0x13, 0x00, 0],
            [15, 0, 0x13, 0x10, 0],
            [15, 0, 0x13, 0x2c, 0],
            [13, 0, 3, 0, 5],
            [15, 0, 0x24, 0x00, 6],
            [18, 0, 0x24, 0, 0],
            [9, 0, 3, 1, 0],
            [4, 0, 0, 0, 0],
        ],
    ),
    (
        "reload",
        &[
            [0, 0, 0, 0, 0],
            [9, 0, 1, 0, 0],
            [9, 0, 2, 3, 0],
            [5, 0, 0, 0, 0],
            [7, 0, 0, 0, 0],
            [2, 0, 0, 0, 0],
            [0, 1, 0, 0, 0],
            [5, 1, 0, 1, 0],
            [4, 0, 0, 0, 0],
            [9, 1, 2, 4, 0],
            [3, 1, 0, 1, 0],
            [3, 1, 0, 1, 0],
        ],
    ),
    (
        "list",
        &[
            [0, 0, 0, 0, 0],
            [21, 0, 0, 0, 0],
            [21, 0, 0, 0, 1],
            [21, 0, 0, 0, 1],
            [21, 0, 0, 0, 0],
            [4, 0, 0, 0, 0],
        ],
    ),
    (
        "others",
        &[
            [0, 0, 0, 0, 0],
            [19, 0, 0, 0, 0],
            [20, 0, 0, 0, 8],
            [20, 0, 0, 0, 0],
            [22, 0, 1, 9, 0],
            [23, 0, 1, 0, 0],
            [23, 0, 2, 0, 0],
            [4, 0, 0, 0, 0],
        ],
    ),
    (
        "faults",
        &[
            [0, 0, 0, 0, 0],
            [8, 0, 0, 4, 0],
            [15, 0, 0x13, 0x00, 0],
            [15, 0, 0x13, 0x00, 0],
            [8, 0, 0, 4, 1],
            [15, 0, 0x13, 0x10, 0],
            [15, 0, 0x13, 0x10, 0],
            [8, 0, 0, 2, 2],
            [13, 0, 2, 0, 2],
            [8, 0, 0, 9, 1],
            [21, 0, 0, 0, 0],
            [4, 0, 0, 0, 0],
        ],
    ),
];

fn client_messages() -> Vec<ClientMessage> {
    let part = StorePart {
        object: OBJECT,
        number: 1,
        last: true,
        expected_size: Some(3),
        object_type: ObjectType::Catalog,
        description: Some("/a".into()),
        data_crc32: Some(1),
        data: "abc".into(),
    };
    let repository = Bytes::from_static(b"repo");
    let operations = [
        Operation::Refcount { object: OBJECT, change_by: -1 },
        Operation::Read { object: OBJECT, offset: 1, size: 4096 },
        Operation::ObjectInfo { object: OBJECT },
        Operation::Store(part.clone()),
        Operation::Store(StorePart { expected_size: None, data: Bytes::new(), ..part }),
        Operation::StoreAbort { object: OBJECT },
        Operation::Info,
        Operation::Shrink { target: u64::MAX },
        Operation::List { listing: 0, object_type: ObjectType::Volatile },
        Operation::BreadcrumbStore { repository: repository.clone(), breadcrumb: CRUMB },
        Operation::BreadcrumbLoad { repository },
    ];
    let request = |operation| ClientMessage::Request(Request { session: 1, id: 300, operation });
    let mut messages = vec![
        ClientMessage::Handshake { protocol_version: 1, name: Some("repo:1".into()) },
        ClientMessage::Ioctl { session: 1, connection_change: 1 },
    ];
    messages.extend(operations.map(request));
    messages.push(ClientMessage::Quit { session: 1 });
    messages
}

fn server_messages() -> Vec<ServerMessage> {
    let entry = ListEntry::new(OBJECT, true, Some("/a".into()));
    let info = CacheInfo::new(9, 8, 7).with_shrink_count(1);
    let object_info = ObjectInfo::new(3, ObjectType::Regular);
    let bodies = [
        ReplyBody::Refcount(Err(Status::BadCount)),
        ReplyBody::Read { result: Ok(Data::from(b"abc".to_vec())), data_crc32: Some(1) },
        ReplyBody::ObjectInfo(Ok(object_info)),
        ReplyBody::Store { result: Ok(()), part: 1 },
        ReplyBody::Info(Ok(info)),
        ReplyBody::Shrink { result: Err(Status::Partial), used_bytes: 8 },
        ReplyBody::List { result: Ok(()), listing: 1, last: false, entries: vec![entry] },
        ReplyBody::Breadcrumb(Ok(Some(("repo".into(), CRUMB)))),
    ];
    let ack = HandshakeAck {
        result: Ok(()),
        name: "plugin".into(),
        session: 1,
        capabilities: Capabilities::ALL,
        pid: Some(1000),
        ..HandshakeAck::refused(Status::Unknown)
    };
    let mut messages = vec![ServerMessage::HandshakeAck(ack), ServerMessage::Detach];
    messages.extend(bodies.map(|body| ServerMessage::Reply(Reply { id: 300, body })));
    messages
}

fn of_client(message: ClientMessage) -> Vec<u8> {
    let (msg, attachment) = message.into_wire();
    encode(msg, &attachment)
}

fn of_plugin(message: ServerMessage) -> Vec<u8> {
    let (msg, attachment) = message.into_wire();
    encode(msg, &attachment.into_bytes())
}

fn encode(msg: WireMessage, attachment: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(msg, attachment.len(), &mut out).expect("it fits into a frame");
    out.extend_from_slice(attachment);
    out
}

fn write(target: &str, name: &str, input: &[u8]) -> io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(name), input)
}
