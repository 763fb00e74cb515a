//! The wire protocol between CernVM-FS clients and cache plugins.
//!
//! This crate turns bytes into frames and messages, and back. It opens no socket, starts no
//! thread and reads no clock: its user brings the bytes. The SDK for plugin authors is the
//! crate `cvmcache`; use this one to write another end of the wire, a proxy, or a test tool.
//!
//! # From bytes to a request and back
//!
//! ```
//! use cvmcache_proto::{ClientMessage, Decoder, DecoderLimits, Operation, Request, frame};
//!
//! // A client checks whether an object exists.
//! let object = "da39a3ee5e6b4b0d3255bfef95601890afd80709".parse()?;
//! let operation = Operation::ObjectInfo { object };
//! let request = ClientMessage::Request(Request { session: 1, id: 7, operation });
//! let (message, attachment) = request.clone().into_wire();
//! let mut bytes = Vec::new();
//! frame::encode(message, attachment.len(), &mut bytes)?;
//!
//! // The plugin reads it, in whatever pieces the socket delivers.
//! let mut decoder = Decoder::new(DecoderLimits::default());
//! decoder.buffer().extend_from_slice(&bytes);
//! let frame = decoder.next_frame()?.expect("the frame is complete");
//! assert_eq!(ClientMessage::from_frame(frame)?, request);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//!
//! - No input makes it panic.
//! - No input makes it allocate more than [`DecoderLimits`] announces.
//! - Text from a peer (names, descriptions, repositories) is carried as bytes: paths need not be
//!   UTF-8, and the reference implementation does not check.
//!
//! # What it leaves to others
//!
//! It does not know sessions, uploads or reference counts: any sequence of well-formed messages
//! is fine with it. See `service` in the crate `cvmcache` for what a plugin does with them.
//!
//! Facts about the protocol come from the CernVM-FS client of the 2.12 line. The framing is described
//! in [`frame`]; messages are protobuf, and what they mean is in [`ClientMessage`] and
//! [`ServerMessage`].

#![forbid(unsafe_code)]

pub mod frame;

mod capabilities;
mod client_message;
mod data;
mod decoder;
mod envelope;
mod fields;
mod object;
mod object_id;
mod operation_kind;
mod server_message;
mod status;
mod wire;
mod wire_message;

pub use capabilities::Capabilities;
pub use client_message::{BadMessage, ClientMessage, Operation, Request, StorePart};
pub use data::Data;
pub use decoder::{Decoder, DecoderLimits, Frame, FrameError, InvalidProtobuf};
pub use envelope::{Envelope, RequestKind};
pub use object::{Breadcrumb, CacheInfo, ListEntry, ObjectInfo, ObjectType};
pub use object_id::{HashAlgorithm, ObjectId, ParseObjectIdError};
pub use operation_kind::OperationKind;
pub use server_message::{HandshakeAck, Reply, ReplyBody, ServerMessage};
pub use status::Status;
pub use wire_message::{RawMessage, WireMessage};

/// The protocol version that this crate supports and that a handshake carries.
pub const PROTOCOL_VERSION: u32 = 1;

/// The smallest `max_object_size` that the client accepts in a handshake, in bytes.
pub const MIN_MAX_OBJECT_SIZE: u32 = 4 * 1024;

/// The largest `max_object_size` that the client accepts in a handshake, in bytes.
pub const MAX_MAX_OBJECT_SIZE: u32 = 512 * 1024;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
