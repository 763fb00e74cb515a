//! Protobuf fields without their types: checked before a message is decoded, and recovered if it
//! cannot be.

use bytes::Buf;
use prost::{DecodeError, Message};

use crate::wire::{MsgRpc, decode_canonical};
use crate::{ObjectId, WireMessage};

/// The key of a listing in [`MsgRpc`]: field 24, with a length.
const LIST_REPLY: usize = 24 << 3 | 2;
/// The first byte of that key, however it is written. Few other messages have it.
const LIST_REPLY_BEGINS: u8 = LIST_REPLY as u8 & 0x7f | 0x80;
/// The key of one of its records: field 5, with a length.
const LIST_RECORD: usize = 5 << 3 | 2;
/// The keys of the number of a request, and of the part of an upload.
const REQUEST_ID: usize = 2 << 3;
const PART_NUMBER: usize = 4 << 3;
/// The texts that may be cut, as keys of message and field: the name of a client, and the description of
/// an object. They name nothing that would be another thing then, and no field that is required follows.
const CUT_TEXTS: [(usize, usize); 2] = [(16 << 3 | 2, 2 << 3 | 2), (7 << 3 | 2, 8 << 3 | 2)];
/// The length of a record with an object id and nothing else, in bytes.
const SHORTEST_RECORD: usize = ObjectId::DIGEST_LEN + 6;

/// Decodes a message; `None` if it is empty, unknown, or a listing with an undersized record.
///
/// The records of a listing are all that makes a decoded message much larger than its bytes: an
/// empty one takes two bytes on the wire, and thirty times as many in memory. A listing with a
/// record that is too short to name an object means nothing, so it is not decoded.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<WireMessage>, DecodeError> {
    if let Some(msg) = decode_canonical(bytes) {
        return Ok(Some(WireMessage(msg)));
    }
    if bytes.contains(&LIST_REPLY_BEGINS) && has_undersized_record(bytes) {
        return Ok(None);
    }
    Ok(MsgRpc::decode(bytes)?.msg.map(WireMessage))
}

fn has_undersized_record(bytes: &[u8]) -> bool {
    let listings = Fields(bytes).filter(|&(key, _)| key == LIST_REPLY);
    let mut records = listings.flat_map(|(_, listing)| Fields(listing));
    records.any(|(key, record)| key == LIST_RECORD && record.len() < SHORTEST_RECORD)
}

/// Recovers the envelope of a message that cannot be decoded, or of which only the beginning is at hand:
/// the numbers that a reply repeats.
///
/// Protobuf libraries write fields in order, and in every request these come before the texts that
/// make it long, and before what else can be wrong with it.
pub(crate) fn recover_envelope(beginning: &[u8]) -> Option<WireMessage> {
    let mut rest = beginning;
    let key = varint(&mut rest)?;
    varint(&mut rest)?;
    let mut numbers = Vec::new();
    let mut fields = Fields(rest);
    let mut before = rest;
    while let Some((key, _)) = fields.next() {
        if key == REQUEST_ID || key == PART_NUMBER {
            numbers.extend_from_slice(&before[..before.len() - fields.0.len()]);
        }
        before = fields.0;
    }
    let mut message = Vec::with_capacity(numbers.len() + 16);
    prost::encode_length_delimiter(key, &mut message).ok()?;
    prost::encode_length_delimiter(numbers.len(), &mut message).ok()?;
    message.extend_from_slice(&numbers);
    MsgRpc::decode(&message[..]).ok()?.msg.map(WireMessage)
}

/// Decodes a message of which only the beginning is at hand, if what is missing is the end of a text that
/// may be cut, and optional fields behind it; `None` if it is another message.
pub(crate) fn decode_cut_text(beginning: &[u8]) -> Option<WireMessage> {
    let mut message = beginning;
    let key = varint(&mut message)?;
    varint(&mut message)?;
    let mut fields = Fields(message);
    let mut before = message;
    while fields.next().is_some() {
        before = fields.0;
    }
    let mut text = before;
    let text_key = varint(&mut text)?;
    varint(&mut text)?;
    if !CUT_TEXTS.contains(&(key, text_key)) {
        return None;
    }
    let whole = &message[..message.len() - before.len()];
    let mut fields = Vec::with_capacity(message.len());
    fields.extend_from_slice(whole);
    prost::encode_length_delimiter(text_key, &mut fields).ok()?;
    prost::encode_length_delimiter(text.len(), &mut fields).ok()?;
    fields.extend_from_slice(text);
    let mut envelope = Vec::with_capacity(fields.len() + 16);
    prost::encode_length_delimiter(key, &mut envelope).ok()?;
    prost::encode_length_delimiter(fields.len(), &mut envelope).ok()?;
    envelope.extend_from_slice(&fields);
    MsgRpc::decode(&envelope[..]).ok()?.msg.map(WireMessage)
}

/// The fields of a message, up to the first that is not whole: key, and value if it has a length.
///
/// Groups, which no message has, count as fields without value, followed by what is in them.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &mut self.0;
        let key = varint(rest)?;
        let (skipped, len) = match key & 7 {
            0 => (rest.iter().position(|byte| byte & 0x80 == 0)? + 1, 0),
            1 => (8, 0),
            2 => (0, varint(rest)?),
            3 | 4 => (0, 0),
            5 => (4, 0),
            _ => return None,
        };
        let (value, behind) = rest.get(skipped..)?.split_at_checked(len)?;
        *rest = behind;
        Some((key, value))
    }
}

/// Keys and lengths are varints, and so is a delimiter, which prost has a public reader for.
pub(crate) fn varint(bytes: &mut impl Buf) -> Option<usize> {
    prost::decode_length_delimiter(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Msg, MsgHash, MsgListRecord, MsgListReply};

    fn listing(records: Vec<MsgListRecord>) -> Vec<u8> {
        let listing = MsgListReply { list_record: records, ..Default::default() };
        MsgRpc::from(Msg::ListReply(listing)).encode_to_vec()
    }

    fn record() -> MsgListRecord {
        let hash = MsgHash { algorithm: Some(1), digest: Some([0; ObjectId::DIGEST_LEN]) };
        MsgListRecord { hash: Some(hash), ..Default::default() }
    }

    #[test]
    fn the_shortest_record_is_as_long_as_it_says() {
        assert_eq!(record().encoded_len(), SHORTEST_RECORD);
        assert!(decode(&listing(vec![record()])).unwrap().is_some());
        assert!(decode(&listing(Vec::new())).unwrap().is_some());
    }

    #[test]
    fn a_listing_with_an_undersized_record_is_not_decoded() {
        let undersized = listing(vec![record(), MsgListRecord::default()]);
        assert_eq!(decode(&undersized), Ok(None));
        let description = Some(vec![0; SHORTEST_RECORD - 3]);
        let one_byte_less = MsgListRecord { description, ..Default::default() };
        assert_eq!(one_byte_less.encoded_len(), SHORTEST_RECORD - 1);
        assert_eq!(decode(&listing(vec![one_byte_less])), Ok(None));
        // However it is hidden: behind numbers of every kind, a group, another message.
        for before in [
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..],
            &[0x09, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x0d, 0, 0, 0, 0],
            &[0xf3, 0x07, 0xf4, 0x07],
            &[0xca, 0x01, 0x00],
            &listing(vec![record()]),
        ] {
            assert_eq!(decode(&[before, &undersized[..]].concat()), Ok(None), "{before:?}");
        }
    }
}
