//! The messages that a mount consists of, in canonical form: the fields in their order, each once, as every
//! Protobuf library writes them. Coding them without prost takes a third of the instructions.

use prost::encoding::decode_varint;

use super::{
    Msg, MsgHash, MsgObjectInfoReply, MsgObjectInfoReq, MsgReadReply, MsgReadReq, MsgRefcountReply,
    MsgRefcountReq, MsgStoreReply,
};
use crate::ObjectId;

/// The most that [`encode_canonical`] writes: key and length of a read, which has an object id and four numbers.
pub(crate) const MAX_CANONICAL_LEN: usize = 2 + OBJECT_ID_LEN + 4 * MAX_NUMBER_LEN;
const OBJECT_ID_LEN: usize = 2 + HASH_LEN as usize;
const MAX_NUMBER_LEN: usize = 11;

// The length of a message is one byte.
const _: () = assert!(MAX_CANONICAL_LEN < 0x80);

/// The keys of messages in [`MsgRpc`](super::MsgRpc): their tags, with a length.
const REFCOUNT_REQ: u8 = 1 << 3 | 2;
const REFCOUNT_REPLY: u8 = 2 << 3 | 2;
const READ_REQ: u8 = 3 << 3 | 2;
const READ_REPLY: u8 = 4 << 3 | 2;
const OBJECT_INFO_REQ: u8 = 5 << 3 | 2;
const OBJECT_INFO_REPLY: u8 = 6 << 3 | 2;
const STORE_REPLY: u8 = 9 << 3 | 2;

/// The key of an object id in a request, its length, and that of the digest.
const OBJECT_ID: u8 = 3 << 3 | 2;
const HASH_LEN: u8 = 4 + DIGEST_LEN;
const DIGEST_LEN: u8 = ObjectId::DIGEST_LEN as u8;
/// The keys of its fields.
const ALGORITHM: u8 = 1 << 3;
const DIGEST: u8 = 2 << 3 | 2;

/// Decodes a message in canonical form; `None` for all else, which is prost's to decode, or to refuse.
pub(crate) fn decode_canonical(bytes: &[u8]) -> Option<Msg> {
    let [key, len, fields @ ..] = bytes else { return None };
    let mut fields = Fields(fields);
    if usize::from(*len) != fields.0.len() || *len >= 0x80 {
        return None;
    }
    let msg = match *key {
        REFCOUNT_REQ => Msg::RefcountReq(MsgRefcountReq {
            session_id: Some(fields.number(1)?),
            req_id: Some(fields.number(2)?),
            object_id: Some(fields.object_id()?),
            change_by: Some(from_zigzag(fields.number(4)? as u32)),
        }),
        READ_REQ => Msg::ReadReq(MsgReadReq {
            session_id: Some(fields.number(1)?),
            req_id: Some(fields.number(2)?),
            object_id: Some(fields.object_id()?),
            offset: Some(fields.number(4)?),
            size: Some(fields.number(5)? as u32),
        }),
        OBJECT_INFO_REQ => Msg::ObjectInfoReq(MsgObjectInfoReq {
            session_id: Some(fields.number(1)?),
            req_id: Some(fields.number(2)?),
            object_id: Some(fields.object_id()?),
        }),
        REFCOUNT_REPLY => Msg::RefcountReply(MsgRefcountReply {
            req_id: Some(fields.number(1)?),
            status: Some(fields.number(2)? as i32),
        }),
        READ_REPLY => Msg::ReadReply(MsgReadReply {
            req_id: Some(fields.number(1)?),
            status: Some(fields.number(2)? as i32),
            data_crc32: None,
        }),
        OBJECT_INFO_REPLY => Msg::ObjectInfoReply(MsgObjectInfoReply {
            req_id: Some(fields.number(1)?),
            status: Some(fields.number(2)? as i32),
            object_type: Some(fields.number(3)? as i32),
            size: Some(fields.number(4)?),
        }),
        STORE_REPLY => Msg::StoreReply(MsgStoreReply {
            req_id: Some(fields.number(1)?),
            status: Some(fields.number(2)? as i32),
            part_nr: Some(fields.number(3)?),
        }),
        _ => return None,
    };
    fields.0.is_empty().then_some(msg)
}

/// Encodes a message in canonical form; returns its length. `None` for all else, which is prost's to encode.
///
/// # Panics
///
/// If `out` is shorter than [`MAX_CANONICAL_LEN`].
pub(crate) fn encode_canonical(msg: &Msg, out: &mut [u8]) -> Option<usize> {
    let mut fields = Writer { out, len: 2 };
    let key = match *msg {
        Msg::RefcountReq(ref m) => {
            fields.number(1, m.session_id?);
            fields.number(2, m.req_id?);
            fields.object_id(m.object_id?)?;
            fields.number(4, to_zigzag(m.change_by?).into());
            REFCOUNT_REQ
        }
        Msg::ReadReq(ref m) => {
            fields.number(1, m.session_id?);
            fields.number(2, m.req_id?);
            fields.object_id(m.object_id?)?;
            fields.number(4, m.offset?);
            fields.number(5, m.size?.into());
            READ_REQ
        }
        Msg::ObjectInfoReq(ref m) => {
            fields.number(1, m.session_id?);
            fields.number(2, m.req_id?);
            fields.object_id(m.object_id?)?;
            OBJECT_INFO_REQ
        }
        Msg::RefcountReply(ref m) => {
            fields.number(1, m.req_id?);
            fields.number(2, m.status? as u64);
            REFCOUNT_REPLY
        }
        Msg::ReadReply(MsgReadReply { req_id, status, data_crc32: None }) => {
            fields.number(1, req_id?);
            fields.number(2, status? as u64);
            READ_REPLY
        }
        Msg::ObjectInfoReply(ref m) => {
            fields.number(1, m.req_id?);
            fields.number(2, m.status? as u64);
            fields.number(3, m.object_type? as u64);
            fields.number(4, m.size?);
            OBJECT_INFO_REPLY
        }
        Msg::StoreReply(ref m) => {
            fields.number(1, m.req_id?);
            fields.number(2, m.status? as u64);
            fields.number(3, m.part_nr?);
            STORE_REPLY
        }
        _ => return None,
    };
    let Writer { out, len } = fields;
    out[..2].copy_from_slice(&[key, (len - 2) as u8]);
    Some(len)
}

/// The fields that are not decoded yet.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn number(&mut self, tag: u8) -> Option<u64> {
        let (&key, value) = self.0.split_first()?;
        self.0 = value;
        if key == tag << 3 { decode_varint(&mut self.0).ok() } else { None }
    }

    fn object_id(&mut self) -> Option<MsgHash> {
        let (field, behind) = self.0.split_first_chunk::<OBJECT_ID_LEN>()?;
        self.0 = behind;
        match *field {
            [
                OBJECT_ID,
                HASH_LEN,
                ALGORITHM,
                algorithm @ ..0x80,
                DIGEST,
                DIGEST_LEN,
                ref digest @ ..,
            ] => Some(MsgHash { algorithm: Some(algorithm.into()), digest: Some(*digest) }),
            _ => None,
        }
    }
}

/// A message that is encoded so far.
struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Writer<'_> {
    fn byte(&mut self, byte: u8) {
        self.out[self.len] = byte;
        self.len += 1;
    }

    fn number(&mut self, tag: u8, mut value: u64) {
        self.byte(tag << 3);
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    fn object_id(&mut self, id: MsgHash) -> Option<()> {
        let algorithm = u8::try_from(id.algorithm?).ok().filter(|&algorithm| algorithm < 0x80)?;
        let before_digest = [OBJECT_ID, HASH_LEN, ALGORITHM, algorithm, DIGEST, DIGEST_LEN];
        let field = &mut self.out[self.len..][..OBJECT_ID_LEN];
        let (head, digest) = field.split_at_mut(before_digest.len());
        head.copy_from_slice(&before_digest);
        digest.copy_from_slice(&id.digest?);
        self.len += OBJECT_ID_LEN;
        Some(())
    }
}

/// The sign of an sint32 is its last bit.
fn from_zigzag(number: u32) -> i32 {
    (number >> 1) as i32 ^ -((number & 1) as i32)
}

fn to_zigzag(number: i32) -> u32 {
    (number << 1 ^ number >> 31) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;
    use prost::Message;

    use super::*;
    use crate::wire::MsgRpc;

    /// Numbers whose varints have every length.
    fn number() -> impl Strategy<Value = Option<u64>> {
        (any::<u64>(), 0..64u32).prop_map(|(bits, shift)| Some(bits >> shift))
    }

    /// A message that has a canonical form.
    fn message() -> impl Strategy<Value = Msg> {
        let hash = (0..0x80, any::<[u8; ObjectId::DIGEST_LEN]>());
        let fields = (number(), number(), hash, number(), any::<i32>());
        (0..7, fields).prop_map(|(kind, (first, second, (algorithm, digest), size, status))| {
            let (session_id, req_id, part_nr, offset) = (first, second, first, first);
            let object_id = Some(MsgHash { algorithm: Some(algorithm), digest: Some(digest) });
            let (status, object_type) = (Some(status), Some(status >> 20));
            match kind {
                0 => {
                    let change_by = status;
                    Msg::RefcountReq(MsgRefcountReq { session_id, req_id, object_id, change_by })
                }
                1 => {
                    let size = size.map(|size| size as u32);
                    Msg::ReadReq(MsgReadReq { session_id, req_id, object_id, offset, size })
                }
                2 => Msg::ObjectInfoReq(MsgObjectInfoReq { session_id, req_id, object_id }),
                3 => Msg::RefcountReply(MsgRefcountReply { req_id, status }),
                4 => Msg::ReadReply(MsgReadReply { req_id, status, data_crc32: None }),
                5 => {
                    let reply = MsgObjectInfoReply { req_id, status, object_type, size };
                    Msg::ObjectInfoReply(reply)
                }
                _ => Msg::StoreReply(MsgStoreReply { req_id, status, part_nr }),
            }
        })
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_what_prost_encodes(message in message()) {
            let mut encoded = [0; MAX_CANONICAL_LEN];
            let len = encode_canonical(&message, &mut encoded).unwrap();
            prop_assert_eq!(&encoded[..len], MsgRpc::from(message.clone()).encode_to_vec());
            prop_assert_eq!(decode_canonical(&encoded[..len]), Some(message));
        }

        #[test]
        fn whatever_is_decoded_is_what_prost_decodes(
            message in message(),
            changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..3),
            cut in 0..3usize,
        ) {
            let mut bytes = MsgRpc::from(message).encode_to_vec();
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            bytes.truncate(bytes.len() - cut);
            if let Some(message) = decode_canonical(&bytes) {
                prop_assert_eq!(MsgRpc::decode(&bytes[..]), Ok(MsgRpc::from(message)));
            }
        }
    }

    #[test]
    fn a_message_without_a_field_or_with_another_one_has_no_canonical_form() {
        let mut out = [0; MAX_CANONICAL_LEN];
        let reply = MsgReadReply { req_id: Some(1), status: Some(0), data_crc32: Some(7) };
        assert_eq!(encode_canonical(&Msg::ReadReply(reply), &mut out), None);
        let reply = MsgObjectInfoReply { req_id: Some(1), status: Some(8), ..Default::default() };
        assert_eq!(encode_canonical(&Msg::ObjectInfoReply(reply), &mut out), None);
        assert_eq!(decode_canonical(&[]), None);
    }
}
