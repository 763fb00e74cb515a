//! A message in Protobuf, for users of the crate: opaque, or as fields without types.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::fields::{Fields, varint};
use crate::frame::{HEADER_LEN, MAX_LEN, TooLarge, VERSION};
use crate::wire::{Msg, MsgRpc};

/// A message as it stands on the wire.
///
/// [`ClientMessage`](crate::ClientMessage) and [`ServerMessage`](crate::ServerMessage) say what it
/// means. A tool that sends what no client would send makes a [`RawMessage`] of it.
#[derive(Debug, Clone, PartialEq)]
pub struct WireMessage(pub(crate) Msg);

/// A message as mere fields, to be changed into one that no client or plugin would send: for tests of
/// what a peer does with it.
///
/// Fields go by the numbers of the protocol. A field that is set is replaced in its place; a new one
/// is appended.
///
/// ```
/// use cvmcache_proto::{
///     ClientMessage, Decoder, DecoderLimits, Operation, RawMessage, Request, RequestKind,
/// };
///
/// let request = Request { session: 1, id: 7, operation: Operation::Shrink { target: 0 } };
/// let (message, _) = ClientMessage::Request(request).into_wire();
/// // Field 3 is the target.
/// let frame = RawMessage::from(message).without(3).to_frame()?;
///
/// let mut decoder = Decoder::new(DecoderLimits::default());
/// decoder.buffer().extend_from_slice(&frame);
/// let bad = ClientMessage::from_frame(decoder.next_frame()?.expect("a frame")).unwrap_err();
/// assert_eq!(bad.envelope.map(|envelope| envelope.kind), Some(RequestKind::Shrink));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    /// The number of the message in the protocol's envelope.
    number: u32,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    number: u32,
    /// Key and value.
    bytes: Vec<u8>,
}

impl From<WireMessage> for RawMessage {
    fn from(message: WireMessage) -> Self {
        let bytes = MsgRpc::from(message.0).encode_to_vec();
        let [envelope] = <[Field; 1]>::try_from(split(&bytes)).expect("one message");
        Self { number: envelope.number, fields: split(envelope.payload()) }
    }
}

impl RawMessage {
    /// Removes a field.
    #[must_use]
    pub fn without(mut self, field: u32) -> Self {
        self.fields.retain(|other| other.number != field);
        self
    }

    /// Sets a field to a number. A negative one is written as its two's complement.
    #[must_use]
    pub fn number(self, field: u32, value: u64) -> Self {
        let mut bytes = Vec::new();
        encode_key(field, WireType::Varint, &mut bytes);
        encode_varint(value, &mut bytes);
        self.set(Field { number: field, bytes })
    }

    /// Sets a field to bytes.
    #[must_use]
    pub fn bytes(self, field: u32, value: &[u8]) -> Self {
        self.set(Field::of_bytes(field, value))
    }

    /// Changes the message in a field, if there is one.
    #[must_use]
    pub fn within(self, field: u32, change: impl FnOnce(Self) -> Self) -> Self {
        let Some(found) = self.fields.iter().find(|other| other.number == field) else {
            return self;
        };
        let inner = change(Self { number: field, fields: split(found.payload()) });
        self.bytes(field, &inner.payload())
    }

    /// The bytes of the frame, without an attachment.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if the message does not fit into a frame.
    pub fn to_frame(&self) -> Result<Vec<u8>, TooLarge> {
        let message = Field::of_bytes(self.number, &self.payload()).bytes;
        if message.len() > MAX_LEN {
            return Err(TooLarge { message: message.len(), attachment: 0 });
        }
        let mut frame = (message.len() as u32).to_le_bytes();
        frame.rotate_right(1);
        frame[0] = VERSION;
        const { assert!(HEADER_LEN == 4) };
        Ok([&frame[..], &message].concat())
    }

    fn set(mut self, field: Field) -> Self {
        match self.fields.iter_mut().find(|other| other.number == field.number) {
            Some(there) => *there = field,
            None => self.fields.push(field),
        }
        self
    }

    fn payload(&self) -> Vec<u8> {
        self.fields.iter().flat_map(|field| &field.bytes).copied().collect()
    }
}

impl Field {
    fn of_bytes(number: u32, value: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(value.len() + 8);
        encode_key(number, WireType::LengthDelimited, &mut bytes);
        encode_varint(value.len() as u64, &mut bytes);
        bytes.extend_from_slice(value);
        Self { number, bytes }
    }

    /// The value of a field with a length, without that.
    fn payload(&self) -> &[u8] {
        let mut rest = &self.bytes[..];
        varint(&mut rest);
        varint(&mut rest);
        rest
    }
}

/// The fields of a message that was encoded here, hence whole.
fn split(message: &[u8]) -> Vec<Field> {
    let mut fields = Fields(message);
    let mut split = Vec::new();
    loop {
        let before = fields.0;
        let Some((key, _)) = fields.next() else { return split };
        let bytes = before[..before.len() - fields.0.len()].to_vec();
        split.push(Field { number: (key >> 3) as u32, bytes });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{ClientMessage, frame};

    fn handshake() -> WireMessage {
        let name = Some(Bytes::from(vec![b'x'; 300]));
        ClientMessage::Handshake { protocol_version: 1, name }.into_wire().0
    }

    #[test]
    fn a_message_that_is_not_changed_is_framed_as_it_was() {
        let mut encoded = Vec::new();
        frame::encode(handshake(), 0, &mut encoded).unwrap();
        assert_eq!(RawMessage::from(handshake()).to_frame(), Ok(encoded));
    }

    #[test]
    fn a_field_is_replaced_in_its_place_or_appended() {
        let raw = RawMessage::from(handshake()).bytes(2, b"ab").number(1, 300).number(9, 1);
        let message = [0x08, 0xac, 0x02, 0x12, 2, b'a', b'b', 0x48, 1];
        let frame = [&[1, 12, 0, 0, 0x82, 0x01, 9], &message[..]].concat();
        assert_eq!(raw.clone().to_frame(), Ok(frame));
        assert_eq!(raw.without(1).without(2).without(9).payload(), []);
    }
}
