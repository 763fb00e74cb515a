//! The decoder of frames from a stream of bytes.
//!
//! The decoder owns the memory that the next bytes go to, so that an attachment is received
//! straight into a buffer of its own size, which then becomes the object: [`Decoder::buffer`]
//! returns where to read to, [`Decoder::next_frame`] takes out what is complete.

use std::mem;

use bytes::{Buf, Bytes};
use thiserror::Error;

use crate::WireMessage;
use crate::fields;
use crate::frame::{ATTACHMENT_FLAG, HEADER_LEN, INNER_HEADER_LEN, VERSION};

/// What a decoder accepts, and hence the memory it can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecoderLimits {
    /// The longest message that is kept whole, in bytes without the attachment; default 64 KiB. Of
    /// a longer one only the beginning is kept, so that it can be answered (see [`Frame::cut`]). If
    /// that ends in the name of a client or the description of an object, these are cut, and the
    /// message counts as whole.
    /// While it is decoded, a message takes up to three times its length; a listing, which only
    /// plugins send, eleven times.
    pub max_message: usize,
    /// The largest attachment that is kept, in bytes; default 512 KiB, the most that a client
    /// accepts as `max_object_size`.
    pub max_attachment: usize,
    /// How many bytes are read ahead, at most; default 16 KiB. More of them make fewer reads of
    /// many small messages; but of an attachment, the bytes that were read ahead are moved once.
    pub read_ahead: usize,
}

impl Default for DecoderLimits {
    fn default() -> Self {
        Self {
            max_message: 64 * 1024,
            max_attachment: crate::MAX_MAX_OBJECT_SIZE as usize,
            read_ahead: 16 * 1024,
        }
    }
}

/// How much is read at once when there is no memory for more. That much is always there, or the process
/// could not go on.
const SHORT_OF_MEMORY: usize = 512;

/// A message and what was attached to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frame {
    /// The message; `None` if it is empty, unknown, or a listing with a record too short to name an
    /// object, and if it was cut before its kind.
    pub message: Option<WireMessage>,
    /// The attachment; empty if there is none.
    pub attachment: Bytes,
    /// True if the frame was larger than the limits, by more than a text that may be cut, or its
    /// message broken. The attachment is
    /// missing then, and all of the message but its [`Envelope`](crate::Envelope).
    pub cut: bool,
    /// True if there was no memory for the attachment, which is missing then. The frame is to be
    /// [answered](crate::Envelope::fail) with [`Status::NoSpace`](crate::Status::NoSpace).
    pub out_of_memory: bool,
}

/// Bytes that are no frame. There is no way to tell where the next one begins.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first byte, which is this, names a version that does not exist.
    #[error("the frame has version {0:#04x}, not 0x01 or 0x81: the peer speaks another protocol")]
    Version(u8),
    /// The header announces a length of zero.
    #[error("the frame is empty")]
    Empty,
    /// The message of a frame with attachment is longer than the frame.
    #[error("the frame has {frame} bytes, but its message claims {message}")]
    Bounds {
        /// The length of the frame, in bytes, without headers.
        frame: usize,
        /// The length that the inner header claims for the message, in bytes.
        message: usize,
    },
    /// The message is not protobuf, not even in its beginning.
    #[error("the message is not protobuf: {0}")]
    Message(InvalidProtobuf),
}

/// Why a message is not protobuf.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidProtobuf(pub(crate) prost::DecodeError);

/// An incremental decoder of frames.
///
/// It never holds more than `read_ahead` bytes, plus one message and its attachment within the
/// limits; what is beyond them is skipped as it arrives.
///
/// ```
/// use std::io::Read;
/// use cvmcache_proto::{Decoder, DecoderLimits, Frame, ServerMessage};
///
/// fn next(stream: &mut impl Read, decoder: &mut Decoder) -> std::io::Result<Option<Frame>> {
///     loop {
///         if let Some(frame) = decoder.next_frame().map_err(std::io::Error::other)? {
///             return Ok(Some(frame));
///         }
///         let buffer = decoder.buffer();
///         let room = (buffer.capacity() - buffer.len()) as u64;
///         if stream.by_ref().take(room).read_to_end(buffer)? == 0 {
///             return Ok(None);
///         }
///     }
/// }
///
/// // A plugin asks its clients to detach, twice.
/// let mut stream = &b"\x01\x03\0\0\xca\x01\0\x01\x03\0\0\xca\x01\0"[..];
/// let mut decoder = Decoder::new(DecoderLimits::default());
/// for _ in 0..2 {
///     let frame = next(&mut stream, &mut decoder)?.expect("a frame");
///     assert_eq!(ServerMessage::from_frame(frame), Ok(ServerMessage::Detach));
/// }
/// assert!(next(&mut stream, &mut decoder)?.is_none());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: DecoderLimits,
    /// Bytes that were read and not yet taken: `ahead[taken..]`.
    ahead: Vec<u8>,
    taken: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// At the beginning of a frame.
    Header,
    /// In a message: its first `kept` bytes are waited for, `skipped` more are not kept.
    Message { kept: usize, skipped: usize, attachment: usize },
    /// In an attachment of `len` bytes, which is received into `buffer`.
    Attachment { message: Option<WireMessage>, message_len: usize, buffer: Vec<u8>, len: usize },
    /// In `left` bytes that are not kept, before an attachment of `attachment` bytes, if there is one.
    Skip { message: Option<WireMessage>, left: usize, attachment: usize, cut: bool },
    /// In an attachment that there is no memory for, of which `left` bytes are not received yet.
    Refused { message: Option<WireMessage>, left: usize },
}

impl State {
    /// Before an attachment of `len` bytes.
    fn attachment(message: Option<WireMessage>, message_len: usize, len: usize) -> Self {
        let mut buffer = Vec::new();
        match buffer.try_reserve_exact(len) {
            Ok(()) => State::Attachment { message, message_len, buffer, len },
            Err(_) => State::Refused { message, left: len },
        }
    }
}

impl Decoder {
    /// A decoder at the beginning of a stream. It takes no memory until it is given bytes.
    pub fn new(limits: DecoderLimits) -> Self {
        Self { limits, ahead: Vec::new(), taken: 0, state: State::Header }
    }

    /// Where the next bytes of the stream go: append them, as many as there are.
    ///
    /// The buffer has spare capacity, and what is in it stays there. To be called after
    /// [`next_frame`](Self::next_frame) has returned `None`. A reader that fills no more than that
    /// keeps the decoder within its limits, and receives an attachment without moving it again.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.ahead.drain(..self.taken);
        self.taken = 0;
        let read_ahead = self.limits.read_ahead;
        match &mut self.state {
            State::Attachment { buffer, len, .. } => {
                if buffer.len() < *len {
                    debug_assert!(self.ahead.is_empty(), "an attachment takes all that was read");
                    return buffer;
                }
                // What was read beyond the attachment comes before what will be read now.
                self.ahead.extend(buffer.drain(*len..));
                make_room(&mut self.ahead, read_ahead);
            }
            State::Message { kept, skipped, .. } => {
                if !make_room(&mut self.ahead, read_ahead.max(*kept)) {
                    // Of a long message less is kept, then.
                    let room = self.ahead.capacity();
                    *skipped += kept.saturating_sub(room);
                    *kept = (*kept).min(room);
                }
            }
            _ => {
                make_room(&mut self.ahead, read_ahead);
            }
        }
        &mut self.ahead
    }

    /// How much memory it takes, in bytes, be it for what was received or for what comes next. A
    /// message whose attachment is being received counts with its length.
    pub fn held(&self) -> usize {
        let attachment = match &self.state {
            State::Attachment { message_len, buffer, .. } => message_len + buffer.capacity(),
            _ => 0,
        };
        self.ahead.capacity() + attachment
    }

    /// Frees the memory that has nothing in it. The next bytes take some again.
    pub fn release(&mut self) {
        self.ahead.drain(..self.taken);
        self.taken = 0;
        self.ahead.shrink_to_fit();
    }

    /// True if the stream stands between two frames: if it ends here, nothing is cut off.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header) && self.unread().is_empty()
    }

    /// Takes out the next frame, or `None` if it is not complete yet.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the bytes are no frame. The stream cannot be used any further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            match mem::replace(&mut self.state, State::Header) {
                State::Header => match self.header()? {
                    Some(state) => self.state = state,
                    None => return Ok(None),
                },
                State::Message { kept, skipped, attachment } => {
                    let Some(bytes) = self.unread().get(..kept) else {
                        self.state = State::Message { kept, skipped, attachment };
                        return Ok(None);
                    };
                    let (message, cut) = match skipped {
                        0 => match fields::decode(bytes) {
                            Ok(message) => (message, false),
                            Err(error) => match fields::recover_envelope(bytes) {
                                Some(message) => (Some(message), true),
                                None => return Err(FrameError::Message(InvalidProtobuf(error))),
                            },
                        },
                        _ => match fields::decode_cut_text(bytes) {
                            Some(message) => (Some(message), false),
                            None => (fields::recover_envelope(bytes), true),
                        },
                    };
                    self.taken += kept;
                    if cut || attachment > self.limits.max_attachment {
                        let left = skipped + attachment;
                        self.state = State::Skip { message, left, attachment: 0, cut: true };
                    } else if skipped > 0 {
                        self.state = State::Skip { message, left: skipped, attachment, cut };
                    } else if attachment == 0 {
                        return Ok(Some(Frame { message, ..Frame::default() }));
                    } else {
                        self.state = State::attachment(message, kept, attachment);
                    }
                }
                State::Attachment { message, message_len, mut buffer, len } => {
                    let missing = len.saturating_sub(buffer.len());
                    let unread = self.unread();
                    let here = &unread[..unread.len().min(missing)];
                    buffer.extend_from_slice(here);
                    self.taken += here.len();
                    if buffer.len() < len {
                        self.state = State::Attachment { message, message_len, buffer, len };
                        return Ok(None);
                    }
                    // A reader that filled the buffer beyond its capacity has read the next frame, too.
                    self.ahead.extend(buffer.drain(len..));
                    let attachment = Bytes::from(buffer);
                    return Ok(Some(Frame { message, attachment, ..Frame::default() }));
                }
                State::Skip { message, left, attachment, cut } => {
                    let here = left.min(self.unread().len());
                    self.taken += here;
                    if here < left {
                        let left = left - here;
                        self.state = State::Skip { message, left, attachment, cut };
                        return Ok(None);
                    }
                    if attachment == 0 {
                        return Ok(Some(Frame { message, cut, ..Frame::default() }));
                    }
                    // Only a message over the limit is cut, to the limit.
                    self.state = State::attachment(message, self.limits.max_message, attachment);
                }
                State::Refused { message, left } => {
                    let here = left.min(self.unread().len());
                    self.taken += here;
                    if here < left {
                        self.state = State::Refused { message, left: left - here };
                        return Ok(None);
                    }
                    return Ok(Some(Frame { message, out_of_memory: true, ..Frame::default() }));
                }
            }
        }
    }

    /// Reads the header, and the inner one; `None` if they are not complete.
    fn header(&mut self) -> Result<Option<State>, FrameError> {
        let mut bytes = self.unread();
        // A wrong version shows in the first byte: an error need not wait for the rest.
        let Some(&version) = bytes.first() else { return Ok(None) };
        if version & !ATTACHMENT_FLAG != VERSION {
            return Err(FrameError::Version(version));
        }
        if bytes.len() < HEADER_LEN {
            return Ok(None);
        }
        bytes.advance(1);
        let frame = bytes.get_uint_le(3) as usize;
        if frame == 0 {
            return Err(FrameError::Empty);
        }
        let mut headers = HEADER_LEN;
        let (mut message, mut attachment) = (frame, 0);
        if version & ATTACHMENT_FLAG != 0 {
            let payload = frame.checked_sub(INNER_HEADER_LEN);
            let payload = payload.ok_or(FrameError::Bounds { frame, message: 0 })?;
            if bytes.len() < INNER_HEADER_LEN {
                return Ok(None);
            }
            headers += INNER_HEADER_LEN;
            message = usize::from(bytes.get_u16_le());
            attachment = payload
                .checked_sub(message)
                .ok_or(FrameError::Bounds { frame: payload, message })?;
        }
        self.taken += headers;
        let kept = message.min(self.limits.max_message);
        Ok(Some(State::Message { kept, skipped: message - kept, attachment }))
    }

    fn unread(&self) -> &[u8] {
        &self.ahead[self.taken..]
    }
}

/// Makes a buffer that many bytes large. False if there is no memory for that: the stream goes on with less.
fn make_room(buffer: &mut Vec<u8>, wanted: usize) -> bool {
    if buffer.capacity() > 2 * wanted {
        // It was used for a long message.
        buffer.shrink_to(wanted);
    }
    let free = wanted.saturating_sub(buffer.len()).max(HEADER_LEN);
    let has_room = buffer.try_reserve_exact(free).is_ok();
    if !has_room {
        buffer.reserve_exact(SHORT_OF_MEMORY);
    }
    has_room
}
