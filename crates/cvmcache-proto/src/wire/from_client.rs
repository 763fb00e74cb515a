//! The messages of a client in Protobuf.

use prost::Message;

use super::{MsgBreadcrumb, MsgHash};

/// Opens (`change_by` 1), closes (-1) or checks for (0) an object.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgRefcountReq {
    /// The session, from the handshake.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) session_id: Option<u64>,
    /// Names the request; the reply repeats it.
    #[prost(uint64, optional, tag = "2")]
    pub(crate) req_id: Option<u64>,
    /// The object.
    #[prost(message, optional, tag = "3")]
    pub(crate) object_id: Option<MsgHash>,
    /// Added to the reference count.
    #[prost(sint32, optional, tag = "4")]
    pub(crate) change_by: Option<i32>,
}

/// Asks for bytes of an object.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgReadReq {
    /// The session, from the handshake.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) session_id: Option<u64>,
    /// Names the request; the reply repeats it.
    #[prost(uint64, optional, tag = "2")]
    pub(crate) req_id: Option<u64>,
    /// The object.
    #[prost(message, optional, tag = "3")]
    pub(crate) object_id: Option<MsgHash>,
    /// Where to begin, in bytes.
    #[prost(uint64, optional, tag = "4")]
    pub(crate) offset: Option<u64>,
    /// Number of bytes, at most `max_object_size`.
    #[prost(uint32, optional, tag = "5")]
    pub(crate) size: Option<u32>,
}

/// Asks for type and size of an object.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgObjectInfoReq {
    /// The session, from the handshake.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) session_id: Option<u64>,
    /// Names the request; the reply repeats it.
    #[prost(uint64, optional, tag = "2")]
    pub(crate) req_id: Option<u64>,
    /// The object.
    #[prost(message, optional, tag = "3")]
    pub(crate) object_id: Option<MsgHash>,
}

/// One part of an upload, which is the attachment; `req_id` names the upload in all of its parts.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgStoreReq {
    /// The session, from the handshake.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) session_id: Option<u64>,
    /// Names the request; the reply repeats it.
    #[prost(uint64, optional, tag = "2")]
    pub(crate) req_id: Option<u64>,
    /// The object.
    #[prost(message, optional, tag = "3")]
    pub(crate) object_id: Option<MsgHash>,
    /// Counts from 1.
    #[prost(uint64, optional, tag = "4")]
    pub(crate) part_nr: Option<u64>,
    /// This part commits the object.
    #[prost(bool, optional, tag = "5")]
    pub(crate) last_part: Option<bool>,
    /// Size of the object in bytes; 2^64-1 if not known.
    #[prost(uint64, optional, tag = "6")]
    pub(crate) expected_size: Option<u64>,
    /// 0 regular, 1 catalog, 2 volatile; with part 1.
    #[prost(int32, optional, tag = "7")]
    pub(crate) object_type: Option<i32>,
    /// Usually a path; with part 1; need not be UTF-8.
    #[prost(bytes, optional, tag = "8")]
    pub(crate) description: Option<Vec<u8>>,
    /// CRC-32 of the attachment.
    #[prost(fixed32, optional, tag = "9")]
    pub(crate) data_crc32: Option<u32>,
}

/// Gives an upload up, which `req_id` names.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgStoreAbortReq {
    /// The session, from the handshake.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) session_id: Option<u64>,
    /// Names the request; the reply repeats it.
    #[prost(uint64, optional, tag = "2")]
    pub(crate) req_id: Option<u64>,
    /// The object.
    #[prost(message, optional, tag = "3")]
    pub(crate) object_id: Option<MsgHash>,
}

/// Opens a session.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgHandshake {
    /// 1.
    #[prost(uint32, optional, tag = "1")]
    pub(crate) protocol_version: Option<u32>,
    /// `repository:instance`; need not be UTF-8.
    #[prost(bytes, optional, tag = "2")]
    pub(crate) name: Option<Vec<u8>>,
    /// Not used.
    #[prost(uint32, optional, tag = "3")]
    pub(crate) flags: Option<u32>,
}

/// Ends a session. There is no reply but the end of the connection.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgQuit {
    /// The session, from the handshake.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) session_id: Option<u64>,
}

/// Asks how full the cache is.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgInfoReq {
    /// The session, from the handshake.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) session_id: Option<u64>,
    /// Names the request; the reply repeats it.
    #[prost(uint64, optional, tag = "2")]
    pub(crate) req_id: Option<u64>,
    /// Not used by plugins.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) no_shrink_in_period: Option<u64>,
}

/// Asks to evict until at most `shrink_to` bytes are in use.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgShrinkReq {
    /// The session, from the handshake.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) session_id: Option<u64>,
    /// Names the request; the reply repeats it.
    #[prost(uint64, optional, tag = "2")]
    pub(crate) req_id: Option<u64>,
    /// In bytes.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) shrink_to: Option<u64>,
}

/// Starts a listing, or requests its next part.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgListReq {
    /// The session, from the handshake.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) session_id: Option<u64>,
    /// Names the request; the reply repeats it.
    #[prost(uint64, optional, tag = "2")]
    pub(crate) req_id: Option<u64>,
    /// 0 to start; then the id of the reply.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) listing_id: Option<u64>,
    /// 0 regular, 1 catalog, 2 volatile.
    #[prost(int32, optional, tag = "4")]
    pub(crate) object_type: Option<i32>,
}

/// Announces a reload (1) or reports that it is done (-1). There is no reply.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgIoctl {
    /// The session, from the handshake.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) session_id: Option<u64>,
    /// Added to the number of clients about to come back.
    #[prost(sint32, optional, tag = "2")]
    pub(crate) conncnt_change_by: Option<i32>,
}

/// Leaves a breadcrumb.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgBreadcrumbStoreReq {
    /// The session, from the handshake.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) session_id: Option<u64>,
    /// Names the request; the reply repeats it.
    #[prost(uint64, optional, tag = "2")]
    pub(crate) req_id: Option<u64>,
    /// What to keep.
    #[prost(message, optional, tag = "3")]
    pub(crate) breadcrumb: Option<MsgBreadcrumb>,
}

/// Looks for a breadcrumb.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgBreadcrumbLoadReq {
    /// The session, from the handshake.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) session_id: Option<u64>,
    /// Names the request; the reply repeats it.
    #[prost(uint64, optional, tag = "2")]
    pub(crate) req_id: Option<u64>,
    /// The repository's fully qualified name.
    #[prost(bytes, optional, tag = "3")]
    pub(crate) fqrn: Option<Vec<u8>>,
}
