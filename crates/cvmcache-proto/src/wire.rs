//! The messages in Protobuf, one struct for each.
//!
//! They do not define what is valid: every field is optional, because prost does not
//! enforce what the protocol requires, and every enumeration is a plain number.
//! [`ClientMessage`](crate::ClientMessage) and [`ServerMessage`](crate::ServerMessage) check them. They
//! are private, because prost's traits are implemented for them.
//!
//! The structs keep the names of the protocol, with its field numbers as tags. There is no
//! `.proto` file and no generated code: a build needs neither protoc nor the network.

use prost::{Message, Oneof};

mod canonical;
mod from_client;
mod from_plugin;
mod hash;

pub(crate) use canonical::{MAX_CANONICAL_LEN, decode_canonical, encode_canonical};
pub(crate) use from_client::*;
pub(crate) use from_plugin::*;
pub(crate) use hash::MsgHash;

/// The envelope of every message.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgRpc {
    /// The message; `None` if it is missing or unknown. A tag that is missing in this list is unknown,
    /// which no compiler notices: the tests of the codec send every message.
    #[prost(
        oneof = "Msg",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29"
    )]
    pub(crate) msg: Option<Msg>,
}

/// Any message. The large ones are boxed: all others are moved several times before they are answered.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Msg {
    /// See [`MsgRefcountReq`].
    #[prost(message, tag = "1")]
    RefcountReq(MsgRefcountReq),
    /// See [`MsgRefcountReply`].
    #[prost(message, tag = "2")]
    RefcountReply(MsgRefcountReply),
    /// See [`MsgReadReq`].
    #[prost(message, tag = "3")]
    ReadReq(MsgReadReq),
    /// See [`MsgReadReply`].
    #[prost(message, tag = "4")]
    ReadReply(MsgReadReply),
    /// See [`MsgObjectInfoReq`].
    #[prost(message, tag = "5")]
    ObjectInfoReq(MsgObjectInfoReq),
    /// See [`MsgObjectInfoReply`].
    #[prost(message, tag = "6")]
    ObjectInfoReply(MsgObjectInfoReply),
    /// See [`MsgStoreReq`].
    #[prost(message, boxed, tag = "7")]
    StoreReq(Box<MsgStoreReq>),
    /// See [`MsgStoreAbortReq`].
    #[prost(message, tag = "8")]
    StoreAbortReq(MsgStoreAbortReq),
    /// See [`MsgStoreReply`].
    #[prost(message, tag = "9")]
    StoreReply(MsgStoreReply),
    /// See [`MsgHandshake`].
    #[prost(message, tag = "16")]
    Handshake(MsgHandshake),
    /// See [`MsgHandshakeAck`].
    #[prost(message, boxed, tag = "17")]
    HandshakeAck(Box<MsgHandshakeAck>),
    /// See [`MsgQuit`].
    #[prost(message, tag = "18")]
    Quit(MsgQuit),
    /// See [`MsgInfoReq`].
    #[prost(message, tag = "19")]
    InfoReq(MsgInfoReq),
    /// See [`MsgInfoReply`].
    #[prost(message, tag = "20")]
    InfoReply(MsgInfoReply),
    /// See [`MsgShrinkReq`].
    #[prost(message, tag = "21")]
    ShrinkReq(MsgShrinkReq),
    /// See [`MsgShrinkReply`].
    #[prost(message, tag = "22")]
    ShrinkReply(MsgShrinkReply),
    /// See [`MsgListReq`].
    #[prost(message, tag = "23")]
    ListReq(MsgListReq),
    /// See [`MsgListReply`].
    #[prost(message, tag = "24")]
    ListReply(MsgListReply),
    /// See [`MsgDetach`].
    #[prost(message, tag = "25")]
    Detach(MsgDetach),
    /// See [`MsgIoctl`].
    #[prost(message, tag = "26")]
    Ioctl(MsgIoctl),
    /// See [`MsgBreadcrumbStoreReq`].
    #[prost(message, boxed, tag = "27")]
    BreadcrumbStoreReq(Box<MsgBreadcrumbStoreReq>),
    /// See [`MsgBreadcrumbLoadReq`].
    #[prost(message, tag = "28")]
    BreadcrumbLoadReq(MsgBreadcrumbLoadReq),
    /// See [`MsgBreadcrumbReply`].
    #[prost(message, boxed, tag = "29")]
    BreadcrumbReply(Box<MsgBreadcrumbReply>),
}

impl From<Msg> for MsgRpc {
    fn from(msg: Msg) -> Self {
        Self { msg: Some(msg) }
    }
}

/// One object in a listing.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgListRecord {
    /// The object.
    #[prost(message, optional, tag = "1")]
    pub(crate) hash: Option<MsgHash>,
    /// It has references.
    #[prost(bool, optional, tag = "2")]
    pub(crate) pinned: Option<bool>,
    /// What it was stored with; need not be UTF-8.
    #[prost(bytes, optional, tag = "3")]
    pub(crate) description: Option<Vec<u8>>,
}

/// The last known root catalog of a repository.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MsgBreadcrumb {
    /// The repository's fully qualified name; need not be UTF-8.
    #[prost(bytes, optional, tag = "1")]
    pub(crate) fqrn: Option<Vec<u8>>,
    /// The root catalog.
    #[prost(message, optional, tag = "2")]
    pub(crate) hash: Option<MsgHash>,
    /// Publication time, in seconds since 1970.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) timestamp: Option<u64>,
    /// The repository's revision.
    #[prost(uint64, optional, tag = "4")]
    pub(crate) revision: Option<u64>,
}
