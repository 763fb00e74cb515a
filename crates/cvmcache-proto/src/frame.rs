//! Frames: a message and its attachment, encoded.
//!
//! ```text
//!                       +------+----------------+-----------------------+
//! without attachment    | 0x01 | length: 3, LE  | MsgRpc                |
//!                       +------+----------------+-----------------------+
//!                                                <------ length ------->
//!                       +------+----------------+---------+--------+------------+
//! with attachment       | 0x81 | length: 3, LE  | m: 2,LE | MsgRpc | attachment |
//!                       +------+----------------+---------+--------+------------+
//!                                                <----------- length ---------->
//!                                                          <- m -->
//! ```
//!
//! A length of zero is invalid. An attachment without bytes is sent as none.

use bytes::BufMut;
use prost::Message;
use thiserror::Error;

use crate::WireMessage;
use crate::wire::{MAX_CANONICAL_LEN, MsgRpc, encode_canonical};

/// The bytes before every message: version and length.
pub const HEADER_LEN: usize = 4;
/// The bytes between header and message if there is an attachment: the length of the message.
pub const INNER_HEADER_LEN: usize = 2;
/// The largest length that a header can announce.
pub const MAX_LEN: usize = (1 << 24) - 1;
/// The largest message that can travel with an attachment, in bytes.
pub const MAX_MESSAGE_WITH_ATTACHMENT: usize = u16::MAX as usize;

/// The only version of the framing there is.
pub(crate) const VERSION: u8 = 1;
/// Set in the version byte if the frame carries an attachment.
pub(crate) const ATTACHMENT_FLAG: u8 = 0x80;

/// A message that fits into no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a message of {message} bytes with an attachment of {attachment} fits into no frame: \
     at most {MAX_LEN} in all, and {MAX_MESSAGE_WITH_ATTACHMENT} for a message with an attachment"
)]
pub struct TooLarge {
    /// The length of the message, in bytes, without headers.
    pub message: usize,
    /// The length of the attachment, in bytes.
    pub attachment: usize,
}

/// Appends to `out` the frame of `message`, up to where its attachment of `attachment_len` bytes
/// belongs. The attachment is for the caller to send: it is not copied.
///
/// ```
/// use cvmcache_proto::{ServerMessage, frame};
///
/// let (message, attachment) = ServerMessage::Detach.into_wire();
/// let mut out = Vec::new();
/// frame::encode(message, attachment.len(), &mut out)?;
/// attachment.pieces().for_each(|piece| out.extend_from_slice(piece));
/// assert_eq!(out, [0x01, 0x03, 0x00, 0x00, 0xca, 0x01, 0x00]);
/// # Ok::<(), frame::TooLarge>(())
/// ```
///
/// # Errors
///
/// [`TooLarge`], and `out` is unchanged.
///
/// # Panics
///
/// If `out` has no room: a `Vec` or `BytesMut` grows.
pub fn encode(
    message: WireMessage,
    attachment_len: usize,
    out: &mut impl BufMut,
) -> Result<(), TooLarge> {
    let headers_len = HEADER_LEN + if attachment_len > 0 { INNER_HEADER_LEN } else { 0 };
    let mut short = [0; HEADER_LEN + INNER_HEADER_LEN + MAX_CANONICAL_LEN];
    if let Some(message_len) = encode_canonical(&message.0, &mut short[headers_len..]) {
        Headers::new(message_len, attachment_len)?.put(&mut &mut short[..]);
        out.put_slice(&short[..headers_len + message_len]);
        return Ok(());
    }
    let rpc = MsgRpc::from(message.0);
    Headers::new(rpc.encoded_len(), attachment_len)?.put(out);
    rpc.encode_raw(out);
    Ok(())
}

/// What comes before a message.
struct Headers {
    /// The length in the header.
    len: usize,
    /// That in the inner header, if there is an attachment.
    message_len: Option<usize>,
}

impl Headers {
    fn new(message_len: usize, attachment_len: usize) -> Result<Self, TooLarge> {
        let has_attachment = attachment_len > 0;
        let inner = if has_attachment { INNER_HEADER_LEN } else { 0 };
        let len = inner.saturating_add(message_len).saturating_add(attachment_len);
        let too_long = has_attachment && message_len > MAX_MESSAGE_WITH_ATTACHMENT;
        if too_long || len > MAX_LEN {
            return Err(TooLarge { message: message_len, attachment: attachment_len });
        }
        Ok(Self { len, message_len: has_attachment.then_some(message_len) })
    }

    fn put(&self, out: &mut impl BufMut) {
        let flag = if self.message_len.is_some() { ATTACHMENT_FLAG } else { 0 };
        out.put_u8(VERSION | flag);
        out.put_uint_le(self.len as u64, 3);
        if let Some(message_len) = self.message_len {
            out.put_u16_le(message_len as u16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Msg, MsgDetach, MsgHandshake};

    #[test]
    fn a_detach_is_encoded_as_the_seven_bytes_of_the_protocol() {
        let mut out = Vec::new();
        encode(WireMessage(Msg::Detach(MsgDetach {})), 0, &mut out).unwrap();
        assert_eq!(out, [0x01, 0x03, 0x00, 0x00, 0xca, 0x01, 0x00]);
    }

    #[test]
    fn a_message_too_large_for_a_frame_is_an_error_and_leaves_the_buffer_unchanged() {
        let of_name = |len| {
            let name = Some(vec![b'x'; len]);
            WireMessage(Msg::Handshake(MsgHandshake { name, ..Default::default() }))
        };
        let mut out = Vec::new();
        assert!(encode(of_name(MAX_LEN), 0, &mut out).is_err());
        assert!(encode(of_name(1 << 16), 1, &mut out).is_err());
        assert!(encode(of_name(1), MAX_LEN, &mut out).is_err());
        assert!(encode(of_name(1), usize::MAX, &mut out).is_err());
        assert_eq!(out, []);
        assert!(encode(of_name(1 << 16), 0, &mut out).is_ok());
    }
}
