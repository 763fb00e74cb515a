//! The messages of a plugin in Protobuf.

use prost::Message;

use super::{MsgBreadcrumb, MsgListRecord};

/// Answers [`MsgRefcountReq`](super::MsgRefcountReq).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgRefcountReply {
    /// The request that is answered.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) req_id: Option<u64>,
    /// How it went, see [`Status`](crate::Status).
    #[prost(int32, optional, tag = "2")]
    pub(crate) status: Option<i32>,
}

/// Answers [`MsgReadReq`](super::MsgReadReq); the bytes are the attachment.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgReadReply {
    /// The request that is answered.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) req_id: Option<u64>,
    /// How it went, see [`Status`](crate::Status).
    #[prost(int32, optional, tag = "2")]
    pub(crate) status: Option<i32>,
    /// CRC-32 of the attachment.
    #[prost(fixed32, optional, tag = "3")]
    pub(crate) data_crc32: Option<u32>,
}

/// Answers [`MsgObjectInfoReq`](super::MsgObjectInfoReq). The client aborts on an OK without a size.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgObjectInfoReply {
    /// The request that is answered.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) req_id: Option<u64>,
    /// How it went, see [`Status`](crate::Status).
    #[prost(int32, optional, tag = "2")]
    pub(crate) status: Option<i32>,
    /// 0 regular, 1 catalog, 2 volatile.
    #[prost(int32, optional, tag = "3")]
    pub(crate) object_type: Option<i32>,
    /// Size in bytes.
    #[prost(uint64, optional, tag = "4")]
    pub(crate) size: Option<u64>,
}

/// Answers [`MsgStoreReq`](super::MsgStoreReq) and [`MsgStoreAbortReq`](super::MsgStoreAbortReq).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgStoreReply {
    /// The request that is answered.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) req_id: Option<u64>,
    /// How it went, see [`Status`](crate::Status).
    #[prost(int32, optional, tag = "2")]
    pub(crate) status: Option<i32>,
    /// The part that is answered; 0 for an abort.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) part_nr: Option<u64>,
}

/// Answers [`MsgHandshake`](super::MsgHandshake).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgHandshakeAck {
    /// How it went, see [`Status`](crate::Status).
    #[prost(int32, optional, tag = "1")]
    pub(crate) status: Option<i32>,
    /// The plugin's name.
    #[prost(bytes, optional, tag = "2")]
    pub(crate) name: Option<Vec<u8>>,
    /// 1.
    #[prost(uint32, optional, tag = "3")]
    pub(crate) protocol_version: Option<u32>,
    /// To be sent with every request.
    #[prost(uint64, optional, tag = "4")]
    pub(crate) session_id: Option<u64>,
    /// Largest attachment, in bytes: 4 KiB to 512 KiB.
    #[prost(uint32, optional, tag = "5")]
    pub(crate) max_object_size: Option<u32>,
    /// A bit each, see [`Capabilities`](crate::Capabilities).
    #[prost(uint64, optional, tag = "6")]
    pub(crate) capabilities: Option<u64>,
    /// Not used.
    #[prost(uint32, optional, tag = "7")]
    pub(crate) flags: Option<u32>,
    /// The plugin's process, on unix sockets only.
    #[prost(uint64, optional, tag = "8")]
    pub(crate) pid: Option<u64>,
}

/// Answers [`MsgInfoReq`](super::MsgInfoReq).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgInfoReply {
    /// The request that is answered.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) req_id: Option<u64>,
    /// How it went, see [`Status`](crate::Status).
    #[prost(int32, optional, tag = "2")]
    pub(crate) status: Option<i32>,
    /// What the cache can hold, in bytes.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) size_bytes: Option<u64>,
    /// In use, in bytes.
    #[prost(uint64, optional, tag = "4")]
    pub(crate) used_bytes: Option<u64>,
    /// In objects that are open, in bytes.
    #[prost(uint64, optional, tag = "5")]
    pub(crate) pinned_bytes: Option<u64>,
    /// Number of clean-ups; -1 if not known.
    #[prost(int64, optional, tag = "6")]
    pub(crate) no_shrink: Option<i64>,
}

/// Answers [`MsgShrinkReq`](super::MsgShrinkReq): OK, or PARTIAL if more is still in use.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgShrinkReply {
    /// The request that is answered.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) req_id: Option<u64>,
    /// How it went, see [`Status`](crate::Status).
    #[prost(int32, optional, tag = "2")]
    pub(crate) status: Option<i32>,
    /// In use afterwards, in bytes.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) used_bytes: Option<u64>,
}

/// Answers [`MsgListReq`](super::MsgListReq).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgListReply {
    /// The request that is answered.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) req_id: Option<u64>,
    /// How it went, see [`Status`](crate::Status).
    #[prost(int32, optional, tag = "2")]
    pub(crate) status: Option<i32>,
    /// Names the listing; to be sent for the next part.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) listing_id: Option<u64>,
    /// There is no more.
    #[prost(bool, optional, tag = "4")]
    pub(crate) is_last_part: Option<bool>,
    /// The objects.
    #[prost(message, repeated, tag = "5")]
    pub(crate) list_record: Vec<MsgListRecord>,
}

/// From the plugin, unasked: please close file catalogs that you can do without.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgDetach {}

/// Answers [`MsgBreadcrumbStoreReq`](super::MsgBreadcrumbStoreReq) and
/// [`MsgBreadcrumbLoadReq`](super::MsgBreadcrumbLoadReq).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgBreadcrumbReply {
    /// The request that is answered.
    #[prost(uint64, optional, tag = "1")]
    pub(crate) req_id: Option<u64>,
    /// How it went, see [`Status`](crate::Status).
    #[prost(int32, optional, tag = "2")]
    pub(crate) status: Option<i32>,
    /// What was kept.
    #[prost(message, optional, tag = "3")]
    pub(crate) breadcrumb: Option<MsgBreadcrumb>,
}
