//! The messages of a client, parsed: a value of these types is well-formed.

use bytes::Bytes;
use thiserror::Error;

use crate::wire::{self, Msg};
use crate::{
    Breadcrumb, Envelope, Frame, HashAlgorithm, ObjectId, ObjectType, ReplyBody, Status,
    WireMessage,
};

/// A message from a client to a plugin. One more of them would be another protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// Opens a session.
    Handshake {
        /// The newest version of the protocol that the client supports; 1 so far.
        protocol_version: u32,
        /// The client's name, as `repository:instance`; absent for anonymous clients.
        name: Option<Bytes>,
    },
    /// Ends a session. The plugin closes the connection without a reply.
    Quit {
        /// The session.
        session: u64,
    },
    /// Announces a reload (+1) or reports that it is done (-1). Has no reply.
    Ioctl {
        /// The session.
        session: u64,
        /// Added to the number of clients that are about to come back.
        connection_change: i32,
    },
    /// Anything that is answered by a [`Reply`](crate::Reply).
    Request(Request),
}

/// A request: its session, its number, and its operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The session, from the handshake.
    pub session: u64,
    /// The number that the reply repeats. It names an upload in all of its parts, and in its abort.
    pub id: u64,
    /// The operation.
    pub operation: Operation,
}

impl Request {
    /// What a reply to the request repeats of it.
    pub fn envelope(&self) -> Envelope {
        let kind = self.operation.kind().request();
        Envelope { kind, id: self.id, part: self.operation.part() }
    }
}

impl Operation {
    /// The body of the reply that fails the operation.
    pub fn refusal(&self, status: Status) -> ReplyBody {
        let body = self.kind().request().refusal(self.part(), status);
        // Only a handshake has no such body, and no operation is one.
        body.unwrap_or(ReplyBody::Info(Err(status)))
    }

    /// The object that the operation is about, if it is about one.
    pub const fn object(&self) -> Option<&ObjectId> {
        match self {
            Operation::Refcount { object, .. }
            | Operation::Read { object, .. }
            | Operation::ObjectInfo { object }
            | Operation::StoreAbort { object } => Some(object),
            Operation::Store(part) => Some(&part.object),
            Operation::Info
            | Operation::Shrink { .. }
            | Operation::List { .. }
            | Operation::BreadcrumbStore { .. }
            | Operation::BreadcrumbLoad { .. } => None,
        }
    }

    /// The number of the part of an upload, else 0.
    fn part(&self) -> u64 {
        match self {
            Operation::Store(part) => part.number,
            _ => 0,
        }
    }
}

/// The operations of a client. A later revision of the protocol may add to them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Opens an object (+1), closes it (-1) or checks whether it exists (0).
    Refcount {
        /// The object.
        object: ObjectId,
        /// Added to the reference count.
        change_by: i32,
    },
    /// Reads from an object.
    Read {
        /// The object.
        object: ObjectId,
        /// Where to begin, in bytes; 0 is the first.
        offset: u64,
        /// How many bytes; the reply may be shorter at the end of the object.
        size: u32,
    },
    /// Asks for type and size.
    ObjectInfo {
        /// The object.
        object: ObjectId,
    },
    /// Uploads a part of an object.
    Store(StorePart),
    /// Aborts an upload.
    StoreAbort {
        /// The object.
        object: ObjectId,
    },
    /// Asks how full the cache is.
    Info,
    /// Asks to evict until at most `target` bytes are in use.
    Shrink {
        /// In bytes.
        target: u64,
    },
    /// Starts a listing, or requests its next part.
    List {
        /// 0 to start one, then the id of the reply
        /// ([`ReplyBody::List`](crate::ReplyBody::List)).
        listing: u64,
        /// Which objects.
        object_type: ObjectType,
    },
    /// Stores a breadcrumb.
    BreadcrumbStore {
        /// The repository's fully qualified name.
        repository: Bytes,
        /// What to keep.
        breadcrumb: Breadcrumb,
    },
    /// Loads a breadcrumb.
    BreadcrumbLoad {
        /// The repository's fully qualified name.
        repository: Bytes,
    },
}

/// One part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePart {
    /// The object.
    pub object: ObjectId,
    /// The part's number, from 1.
    pub number: u64,
    /// True if it commits the object.
    pub last: bool,
    /// The size of the whole object in bytes, if the client knows it. On the wire, `None` and
    /// `u64::MAX` are the same.
    pub expected_size: Option<u64>,
    /// The object's type; counts in the first part.
    pub object_type: ObjectType,
    /// Usually the object's path; counts in the first part. Need not be UTF-8.
    pub description: Option<Bytes>,
    /// The CRC-32 of `data`, if the client made one.
    pub data_crc32: Option<u32>,
    /// The bytes: `max_object_size` many, or fewer in the last part, which may have none.
    pub data: Bytes,
}

impl StorePart {
    /// A part of a regular object of unknown size, without description and CRC-32.
    ///
    /// ```
    /// use cvmcache_proto::{HashAlgorithm, ObjectId, StorePart};
    ///
    /// let object = ObjectId::new(HashAlgorithm::Sha1, [0; 20]);
    /// let last = StorePart { expected_size: Some(3), ..StorePart::new(object, 1, true, "abc") };
    /// assert_eq!(last.data, "abc");
    /// ```
    pub fn new(object: ObjectId, number: u64, last: bool, data: impl Into<Bytes>) -> Self {
        Self {
            object,
            number,
            last,
            expected_size: None,
            object_type: ObjectType::Regular,
            description: None,
            data_crc32: None,
            data: data.into(),
        }
    }
}

/// A frame that is not a message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a message that a client sends")]
pub struct BadMessage {
    /// How to reply to it; `None` if the message expects no reply, as far as is known, and always for
    /// a message of a plugin.
    pub envelope: Option<Envelope>,
}

impl ClientMessage {
    /// Parses a frame.
    ///
    /// # Errors
    ///
    /// [`BadMessage`] if the frame was cut, if it misses a field that the protocol requires, if
    /// a digest, algorithm or object type is none, and if it is not a client's message at all.
    pub fn from_frame(frame: Frame) -> Result<Self, BadMessage> {
        let Some(message) = frame.message else { return Err(BadMessage { envelope: None }) };
        let envelope = Envelope::of(&message);
        let parsed = if frame.cut { None } else { parse(message.0, frame.attachment) };
        parsed.ok_or(BadMessage { envelope })
    }

    /// The message as it stands on the wire, and the attachment that goes with it, which follows the
    /// [encoded](crate::frame::encode) frame.
    pub fn into_wire(self) -> (WireMessage, Bytes) {
        let (msg, attachment) = match self {
            ClientMessage::Handshake { protocol_version, name } => (
                Msg::Handshake(wire::MsgHandshake {
                    protocol_version: Some(protocol_version),
                    name: name.map(Vec::from),
                    flags: None,
                }),
                Bytes::new(),
            ),
            ClientMessage::Quit { session } => {
                (Msg::Quit(wire::MsgQuit { session_id: Some(session) }), Bytes::new())
            }
            ClientMessage::Ioctl { session, connection_change } => (
                Msg::Ioctl(wire::MsgIoctl {
                    session_id: Some(session),
                    conncnt_change_by: Some(connection_change),
                }),
                Bytes::new(),
            ),
            ClientMessage::Request(request) => request.into_wire(),
        };
        (WireMessage(msg), attachment)
    }
}

impl Request {
    fn into_wire(self) -> (Msg, Bytes) {
        let (session_id, req_id) = (Some(self.session), Some(self.id));
        let mut attachment = Bytes::new();
        let msg = match self.operation {
            Operation::Refcount { object, change_by } => Msg::RefcountReq(wire::MsgRefcountReq {
                session_id,
                req_id,
                object_id: Some(object.into()),
                change_by: Some(change_by),
            }),
            Operation::Read { object, offset, size } => Msg::ReadReq(wire::MsgReadReq {
                session_id,
                req_id,
                object_id: Some(object.into()),
                offset: Some(offset),
                size: Some(size),
            }),
            Operation::ObjectInfo { object } => Msg::ObjectInfoReq(wire::MsgObjectInfoReq {
                session_id,
                req_id,
                object_id: Some(object.into()),
            }),
            Operation::Store(part) => {
                attachment = part.data;
                Msg::StoreReq(Box::new(wire::MsgStoreReq {
                    session_id,
                    req_id,
                    object_id: Some(part.object.into()),
                    part_nr: Some(part.number),
                    last_part: Some(part.last),
                    expected_size: Some(part.expected_size.unwrap_or(SIZE_UNKNOWN)),
                    object_type: Some(part.object_type.to_wire()),
                    description: part.description.map(Vec::from),
                    data_crc32: part.data_crc32,
                }))
            }
            Operation::StoreAbort { object } => Msg::StoreAbortReq(wire::MsgStoreAbortReq {
                session_id,
                req_id,
                object_id: Some(object.into()),
            }),
            Operation::Info => {
                Msg::InfoReq(wire::MsgInfoReq { session_id, req_id, no_shrink_in_period: None })
            }
            Operation::Shrink { target } => {
                Msg::ShrinkReq(wire::MsgShrinkReq { session_id, req_id, shrink_to: Some(target) })
            }
            Operation::List { listing, object_type } => Msg::ListReq(wire::MsgListReq {
                session_id,
                req_id,
                listing_id: Some(listing),
                object_type: Some(object_type.to_wire()),
            }),
            Operation::BreadcrumbStore { repository, breadcrumb } => {
                Msg::BreadcrumbStoreReq(Box::new(wire::MsgBreadcrumbStoreReq {
                    session_id,
                    req_id,
                    breadcrumb: Some(breadcrumb.into_wire(repository)),
                }))
            }
            Operation::BreadcrumbLoad { repository } => {
                Msg::BreadcrumbLoadReq(wire::MsgBreadcrumbLoadReq {
                    session_id,
                    req_id,
                    fqrn: Some(repository.into()),
                })
            }
        };
        (msg, attachment)
    }
}

/// The number for an unknown size of an upload.
const SIZE_UNKNOWN: u64 = u64::MAX;

/// `None` if a required field is missing or makes no sense.
fn parse(msg: Msg, attachment: Bytes) -> Option<ClientMessage> {
    let (session, id, operation) = match msg {
        Msg::Handshake(m) => {
            return Some(ClientMessage::Handshake {
                protocol_version: m.protocol_version?,
                name: m.name.map(Bytes::from),
            });
        }
        Msg::Quit(m) => return Some(ClientMessage::Quit { session: m.session_id? }),
        Msg::Ioctl(m) => {
            let connection_change = m.conncnt_change_by.unwrap_or(0);
            return Some(ClientMessage::Ioctl { session: m.session_id?, connection_change });
        }
        Msg::RefcountReq(m) => {
            let object = parse_hash(m.object_id?)?;
            (m.session_id, m.req_id, Operation::Refcount { object, change_by: m.change_by? })
        }
        Msg::ReadReq(m) => {
            let object = parse_hash(m.object_id?)?;
            let operation = Operation::Read { object, offset: m.offset?, size: m.size? };
            (m.session_id, m.req_id, operation)
        }
        Msg::ObjectInfoReq(m) => {
            let object = parse_hash(m.object_id?)?;
            (m.session_id, m.req_id, Operation::ObjectInfo { object })
        }
        Msg::StoreReq(m) => {
            let operation = Operation::Store(StorePart {
                object: parse_hash(m.object_id?)?,
                number: m.part_nr?,
                last: m.last_part?,
                expected_size: m.expected_size.filter(|&size| size != SIZE_UNKNOWN),
                object_type: ObjectType::from_wire(m.object_type.unwrap_or(0))?,
                description: m.description.map(Bytes::from),
                data_crc32: m.data_crc32,
                data: attachment,
            });
            (m.session_id, m.req_id, operation)
        }
        Msg::StoreAbortReq(m) => {
            let object = parse_hash(m.object_id?)?;
            (m.session_id, m.req_id, Operation::StoreAbort { object })
        }
        Msg::InfoReq(m) => (m.session_id, m.req_id, Operation::Info),
        Msg::ShrinkReq(m) => (m.session_id, m.req_id, Operation::Shrink { target: m.shrink_to? }),
        Msg::ListReq(m) => {
            let object_type = ObjectType::from_wire(m.object_type?)?;
            (m.session_id, m.req_id, Operation::List { listing: m.listing_id?, object_type })
        }
        Msg::BreadcrumbStoreReq(m) => {
            let (repository, breadcrumb) = Breadcrumb::from_wire(m.breadcrumb?)?;
            (m.session_id, m.req_id, Operation::BreadcrumbStore { repository, breadcrumb })
        }
        Msg::BreadcrumbLoadReq(m) => {
            let repository = Bytes::from(m.fqrn?);
            (m.session_id, m.req_id, Operation::BreadcrumbLoad { repository })
        }
        _ => return None,
    };
    Some(ClientMessage::Request(Request { session: session?, id: id?, operation }))
}

pub(crate) fn parse_hash(hash: wire::MsgHash) -> Option<ObjectId> {
    let algorithm = HashAlgorithm::from_wire(hash.algorithm?)?;
    Some(ObjectId::new(algorithm, hash.digest?))
}

impl From<ObjectId> for wire::MsgHash {
    fn from(id: ObjectId) -> Self {
        Self { algorithm: Some(id.algorithm().to_wire()), digest: Some(*id.digest()) }
    }
}
