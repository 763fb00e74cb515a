//! The messages of a plugin, parsed: a value of these types is well-formed.

use bytes::Bytes;

use crate::client_message::parse_hash;
use crate::wire::{self, Msg};
use crate::{
    BadMessage, Breadcrumb, CacheInfo, Capabilities, Data, Frame, ListEntry, MIN_MAX_OBJECT_SIZE,
    ObjectInfo, ObjectType, PROTOCOL_VERSION, Status, WireMessage,
};

/// A message from a plugin to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerMessage {
    /// Answers a handshake.
    HandshakeAck(HandshakeAck),
    /// Answers a request.
    Reply(Reply),
    /// Asks the client, unrequested, to close the file catalogs it can do without.
    Detach,
}

/// The acknowledgement of a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeAck {
    /// Whether there is a session now. The client of the 2.12 line ignores it.
    pub result: Result<(), Status>,
    /// The plugin's name. It need not be UTF-8.
    pub name: Bytes,
    /// The version of the protocol that the plugin supports.
    pub protocol_version: u32,
    /// Names the session; to be sent with every request.
    pub session: u64,
    /// The largest part of an upload and the largest read, in bytes. The client takes
    /// [`MIN_MAX_OBJECT_SIZE`] to [`MAX_MAX_OBJECT_SIZE`](crate::MAX_MAX_OBJECT_SIZE).
    pub max_object_size: u32,
    /// What the plugin can do.
    pub capabilities: Capabilities,
    /// The plugin's process id; only sent to clients on the same machine.
    pub pid: Option<u64>,
}

impl HandshakeAck {
    /// Says that there is no session: it names session 0, which no plugin hands out.
    pub fn refused(status: Status) -> Self {
        Self {
            result: Err(status),
            name: Bytes::new(),
            protocol_version: PROTOCOL_VERSION,
            session: 0,
            max_object_size: MIN_MAX_OBJECT_SIZE,
            capabilities: Capabilities::NONE,
            pid: None,
        }
    }
}

/// The reply to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The number of the request.
    pub id: u64,
    /// Its result.
    pub body: ReplyBody,
}

/// The replies, by kind of request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyBody {
    /// To a change of a reference count.
    Refcount(Result<(), Status>),
    /// To a read.
    Read {
        /// The bytes read: as many as requested, or fewer at the end of the object.
        result: Result<Data, Status>,
        /// The CRC-32 of the bytes, if the plugin makes one.
        data_crc32: Option<u32>,
    },
    /// To a request for type and size.
    ObjectInfo(Result<ObjectInfo, Status>),
    /// To a part of an upload, or to its abort.
    Store {
        /// How it went.
        result: Result<(), Status>,
        /// The part; 0 in the reply to an abort.
        part: u64,
    },
    /// To a request for the fill level.
    Info(Result<CacheInfo, Status>),
    /// To a request to evict.
    Shrink {
        /// `Err(Status::Partial)` if more than the target is still in use.
        result: Result<(), Status>,
        /// What is in use afterwards, in bytes.
        used_bytes: u64,
    },
    /// To a request for a listing.
    List {
        /// How it went.
        result: Result<(), Status>,
        /// The id to request the next part with ([`Operation::List`](crate::Operation::List)).
        listing: u64,
        /// True if there is no more.
        last: bool,
        /// The objects.
        entries: Vec<ListEntry>,
    },
    /// To storing a breadcrumb, where it carries none, and to looking for one, where it carries
    /// the repository's name and what was kept for it.
    Breadcrumb(Result<Option<(Bytes, Breadcrumb)>, Status>),
}

impl ReplyBody {
    /// The status of the request, of whatever kind.
    ///
    /// ```
    /// use cvmcache_proto::{ReplyBody, Status};
    ///
    /// let reply = ReplyBody::Shrink { result: Err(Status::Partial), used_bytes: 3 };
    /// assert_eq!(Status::label(reply.status()), "PARTIAL");
    /// ```
    pub fn status(&self) -> Result<(), Status> {
        fn status<T>(result: &Result<T, Status>) -> Result<(), Status> {
            result.as_ref().map(drop).map_err(|status| *status)
        }
        match self {
            Self::Refcount(result)
            | Self::Store { result, .. }
            | Self::Shrink { result, .. }
            | Self::List { result, .. } => *result,
            Self::Read { result, .. } => status(result),
            Self::ObjectInfo(result) => status(result),
            Self::Info(result) => status(result),
            Self::Breadcrumb(result) => status(result),
        }
    }

    /// A listing that is over because it failed.
    pub(crate) const fn failed_list(status: Status) -> Self {
        Self::List { result: Err(status), listing: 0, last: true, entries: Vec::new() }
    }
}

impl ServerMessage {
    /// The status of the request that the message answers; `None` for a message that answers none.
    pub fn status(&self) -> Option<Result<(), Status>> {
        match self {
            ServerMessage::HandshakeAck(ack) => Some(ack.result),
            ServerMessage::Reply(reply) => Some(reply.body.status()),
            ServerMessage::Detach => None,
        }
    }

    /// Parses a frame.
    ///
    /// # Errors
    ///
    /// [`BadMessage`] if the frame was cut, if it misses a field that the protocol requires, if a
    /// digest, algorithm or object type is none, and if it is not a message that a plugin sends.
    /// None of them expects a reply.
    pub fn from_frame(frame: Frame) -> Result<Self, BadMessage> {
        let parsed = match frame.message {
            Some(message) if !frame.cut => parse(message.0, frame.attachment),
            _ => None,
        };
        parsed.ok_or(BadMessage { envelope: None })
    }

    /// The message as it stands on the wire, and the attachment that goes with it, which follows the
    /// [encoded](crate::frame::encode) frame.
    pub fn into_wire(self) -> (WireMessage, Data) {
        let Reply { id, body } = match self {
            ServerMessage::HandshakeAck(ack) => return (WireMessage(ack.into_wire()), Data::new()),
            ServerMessage::Detach => {
                return (WireMessage(Msg::Detach(wire::MsgDetach {})), Data::new());
            }
            ServerMessage::Reply(reply) => reply,
        };
        let req_id = Some(id);
        let mut attachment = Data::new();
        let msg = match body {
            ReplyBody::Refcount(result) => {
                Msg::RefcountReply(wire::MsgRefcountReply { req_id, status: status(result) })
            }
            ReplyBody::Read { result, data_crc32 } => {
                let result = result.map(|data| attachment = data);
                Msg::ReadReply(wire::MsgReadReply { req_id, status: status(result), data_crc32 })
            }
            ReplyBody::ObjectInfo(result) => Msg::ObjectInfoReply(wire::MsgObjectInfoReply {
                req_id,
                status: status(result.map(|_| ())),
                object_type: result.ok().map(|info| info.object_type.to_wire()),
                size: result.ok().map(|info| info.size),
            }),
            ReplyBody::Store { result, part } => Msg::StoreReply(wire::MsgStoreReply {
                req_id,
                status: status(result),
                part_nr: Some(part),
            }),
            ReplyBody::Info(result) => {
                let info = result.unwrap_or_default();
                Msg::InfoReply(wire::MsgInfoReply {
                    req_id,
                    status: status(result.map(|_| ())),
                    size_bytes: Some(info.size_bytes),
                    used_bytes: Some(info.used_bytes),
                    pinned_bytes: Some(info.pinned_bytes),
                    no_shrink: Some(
                        info.shrink_count.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)),
                    ),
                })
            }
            ReplyBody::Shrink { result, used_bytes } => Msg::ShrinkReply(wire::MsgShrinkReply {
                req_id,
                status: status(result),
                used_bytes: Some(used_bytes),
            }),
            ReplyBody::List { result, listing, last, entries } => {
                Msg::ListReply(wire::MsgListReply {
                    req_id,
                    status: status(result),
                    listing_id: Some(listing),
                    is_last_part: Some(last),
                    list_record: entries.into_iter().map(Into::into).collect(),
                })
            }
            ReplyBody::Breadcrumb(result) => {
                let breadcrumb = result.as_ref().ok().cloned().flatten();
                Msg::BreadcrumbReply(Box::new(wire::MsgBreadcrumbReply {
                    req_id,
                    status: status(result.map(|_| ())),
                    breadcrumb: breadcrumb.map(|(name, breadcrumb)| breadcrumb.into_wire(name)),
                }))
            }
        };
        (WireMessage(msg), attachment)
    }
}

impl HandshakeAck {
    fn into_wire(self) -> Msg {
        Msg::HandshakeAck(Box::new(wire::MsgHandshakeAck {
            status: status(self.result),
            name: Some(self.name.into()),
            protocol_version: Some(self.protocol_version),
            session_id: Some(self.session),
            max_object_size: Some(self.max_object_size),
            capabilities: Some(self.capabilities.bits()),
            flags: None,
            pid: self.pid,
        }))
    }
}

fn status(result: Result<(), Status>) -> Option<i32> {
    Some(Status::to_wire(result))
}

/// `None` if a required field is missing or makes no sense.
fn parse(msg: Msg, attachment: Bytes) -> Option<ServerMessage> {
    let (id, body) = match msg {
        Msg::Detach(_) => return Some(ServerMessage::Detach),
        Msg::HandshakeAck(m) => {
            return Some(ServerMessage::HandshakeAck(HandshakeAck {
                result: Status::from_wire(m.status?),
                name: m.name?.into(),
                protocol_version: m.protocol_version?,
                session: m.session_id?,
                max_object_size: m.max_object_size?,
                capabilities: Capabilities::from_bits_retain(m.capabilities?),
                pid: m.pid,
            }));
        }
        Msg::RefcountReply(m) => (m.req_id, ReplyBody::Refcount(Status::from_wire(m.status?))),
        Msg::ReadReply(m) => {
            let result = Status::from_wire(m.status?).map(|()| Data::from(attachment));
            (m.req_id, ReplyBody::Read { result, data_crc32: m.data_crc32 })
        }
        Msg::ObjectInfoReply(m) => {
            let result = match Status::from_wire(m.status?) {
                Ok(()) => {
                    let object_type = ObjectType::from_wire(m.object_type.unwrap_or(0))?;
                    Ok(ObjectInfo::new(m.size?, object_type))
                }
                Err(status) => Err(status),
            };
            (m.req_id, ReplyBody::ObjectInfo(result))
        }
        Msg::StoreReply(m) => {
            let result = Status::from_wire(m.status?);
            (m.req_id, ReplyBody::Store { result, part: m.part_nr? })
        }
        Msg::InfoReply(m) => {
            let info = CacheInfo::new(m.size_bytes?, m.used_bytes?, m.pinned_bytes?)
                .with_shrink_count(u64::try_from(m.no_shrink?).ok());
            (m.req_id, ReplyBody::Info(Status::from_wire(m.status?).map(|()| info)))
        }
        Msg::ShrinkReply(m) => {
            let result = Status::from_wire(m.status?);
            (m.req_id, ReplyBody::Shrink { result, used_bytes: m.used_bytes? })
        }
        Msg::ListReply(m) => {
            let entries = m.list_record.into_iter().map(parse_entry).collect::<Option<_>>()?;
            let result = Status::from_wire(m.status?);
            let (listing, last) = (m.listing_id?, m.is_last_part?);
            (m.req_id, ReplyBody::List { result, listing, last, entries })
        }
        Msg::BreadcrumbReply(m) => {
            let breadcrumb = match m.breadcrumb {
                Some(breadcrumb) => Some(Breadcrumb::from_wire(breadcrumb)?),
                None => None,
            };
            let result = Status::from_wire(m.status?).map(|()| breadcrumb);
            (m.req_id, ReplyBody::Breadcrumb(result))
        }
        _ => return None,
    };
    Some(ServerMessage::Reply(Reply { id: id?, body }))
}

fn parse_entry(record: wire::MsgListRecord) -> Option<ListEntry> {
    Some(ListEntry::new(
        parse_hash(record.hash?)?,
        record.pinned.unwrap_or(false),
        record.description.map(Bytes::from),
    ))
}

impl From<ListEntry> for wire::MsgListRecord {
    fn from(entry: ListEntry) -> Self {
        Self {
            hash: Some(entry.id.into()),
            pinned: Some(entry.pinned),
            description: entry.description.map(Vec::from),
        }
    }
}
