//! The envelope of a request: what its reply repeats, even if the request is malformed or too large to
//! keep.

use crate::wire::Msg;
use crate::{HandshakeAck, Reply, ReplyBody, ServerMessage, Status, WireMessage};

/// The kinds of messages of a client that are replied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestKind {
    /// Opens a session.
    Handshake,
    /// Changes a reference count, or checks whether an object exists.
    Refcount,
    /// Reads from an object.
    Read,
    /// Asks for the size of an object.
    ObjectInfo,
    /// Uploads a part of an object.
    Store,
    /// Aborts an upload.
    StoreAbort,
    /// Asks how full the cache is.
    Info,
    /// Asks to evict.
    Shrink,
    /// Asks for a listing.
    List,
    /// Stores a breadcrumb.
    BreadcrumbStore,
    /// Loads a breadcrumb.
    BreadcrumbLoad,
}

/// What a reply repeats of its request: the kind, the number and, for an upload, the part.
///
/// A client matches a reply by these three and waits for ever if none comes, so they are recovered
/// even from a request that is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The kind of request, hence of reply.
    pub kind: RequestKind,
    /// The request's number; 0 for a handshake, and if it is missing.
    pub id: u64,
    /// The part of the upload; 0 where there is none.
    pub part: u64,
}

impl Envelope {
    /// The envelope of a message, or `None` if it expects no reply.
    pub fn of(message: &WireMessage) -> Option<Self> {
        use RequestKind as Kind;
        let (kind, id, part) = match &message.0 {
            Msg::Handshake(_) => (Kind::Handshake, None, None),
            Msg::RefcountReq(m) => (Kind::Refcount, m.req_id, None),
            Msg::ReadReq(m) => (Kind::Read, m.req_id, None),
            Msg::ObjectInfoReq(m) => (Kind::ObjectInfo, m.req_id, None),
            Msg::StoreReq(m) => (Kind::Store, m.req_id, m.part_nr),
            Msg::StoreAbortReq(m) => (Kind::StoreAbort, m.req_id, None),
            Msg::InfoReq(m) => (Kind::Info, m.req_id, None),
            Msg::ShrinkReq(m) => (Kind::Shrink, m.req_id, None),
            Msg::ListReq(m) => (Kind::List, m.req_id, None),
            Msg::BreadcrumbStoreReq(m) => (Kind::BreadcrumbStore, m.req_id, None),
            Msg::BreadcrumbLoadReq(m) => (Kind::BreadcrumbLoad, m.req_id, None),
            _ => return None,
        };
        Some(Self { kind, id: id.unwrap_or(0), part: part.unwrap_or(0) })
    }

    /// The reply that fails the request.
    ///
    /// A failed handshake names session 0, which no plugin hands out.
    pub fn fail(self, status: Status) -> ServerMessage {
        match self.kind.refusal(self.part, status) {
            None => ServerMessage::HandshakeAck(HandshakeAck::refused(status)),
            Some(body) => ServerMessage::Reply(Reply { id: self.id, body }),
        }
    }
}

impl RequestKind {
    /// The body of the reply that fails a request of this kind; `None` for a handshake. `part` is the
    /// number of the part of an upload, else 0.
    pub(crate) fn refusal(self, part: u64, status: Status) -> Option<ReplyBody> {
        Some(match self {
            RequestKind::Handshake => return None,
            RequestKind::Refcount => ReplyBody::Refcount(Err(status)),
            RequestKind::Read => ReplyBody::Read { result: Err(status), data_crc32: None },
            RequestKind::ObjectInfo => ReplyBody::ObjectInfo(Err(status)),
            RequestKind::Store | RequestKind::StoreAbort => {
                ReplyBody::Store { result: Err(status), part }
            }
            RequestKind::Info => ReplyBody::Info(Err(status)),
            RequestKind::Shrink => ReplyBody::Shrink { result: Err(status), used_bytes: 0 },
            RequestKind::List => ReplyBody::failed_list(status),
            RequestKind::BreadcrumbStore | RequestKind::BreadcrumbLoad => {
                ReplyBody::Breadcrumb(Err(status))
            }
        })
    }
}
