//! Requests in canonical form: the fields in their order, each once, as every Protobuf library writes them. The
//! three that a mount consists of are decoded without prost, which takes three times as many instructions.

use prost::encoding::decode_varint;

use super::{Msg, MsgHash, MsgObjectInfoReq, MsgReadReq, MsgRefcountReq};
use crate::ObjectId;

/// Decodes an open, close, read or object info in canonical form; `None` for all else, which is prost's to
/// decode, or to refuse.
pub(crate) fn decode_canonical(bytes: &[u8]) -> Option<Msg> {
    let (&key, mut rest) = bytes.split_first()?;
    if !matches!(key, REFCOUNT_REQ | READ_REQ | OBJECT_INFO_REQ) {
        return None;
    }
    if decode_varint(&mut rest).ok()? != rest.len() as u64 {
        return None;
    }
    let session_id = Some(number(1, &mut rest)?);
    let req_id = Some(number(2, &mut rest)?);
    let object_id = Some(object_id(&mut rest)?);
    let msg = match key {
        REFCOUNT_REQ => {
            // An sint32: its sign is the last bit (zigzag).
            let number = number(4, &mut rest)? as u32;
            let change_by = Some((number >> 1) as i32 ^ -((number & 1) as i32));
            Msg::RefcountReq(MsgRefcountReq { session_id, req_id, object_id, change_by })
        }
        READ_REQ => {
            let offset = Some(number(4, &mut rest)?);
            let size = Some(number(5, &mut rest)? as u32);
            Msg::ReadReq(MsgReadReq { session_id, req_id, object_id, offset, size })
        }
        _ => Msg::ObjectInfoReq(MsgObjectInfoReq { session_id, req_id, object_id }),
    };
    rest.is_empty().then_some(msg)
}

/// The keys of the requests in [`MsgRpc`](super::MsgRpc): their tags, with a length.
const REFCOUNT_REQ: u8 = 1 << 3 | 2;
const READ_REQ: u8 = 3 << 3 | 2;
const OBJECT_INFO_REQ: u8 = 5 << 3 | 2;

/// The key of an object id in a request, and its length.
const OBJECT_ID: u8 = 3 << 3 | 2;
const HASH_LEN: u8 = 4 + ObjectId::DIGEST_LEN as u8;

/// A field that is a number.
fn number(tag: u8, rest: &mut &[u8]) -> Option<u64> {
    let (&key, value) = rest.split_first()?;
    *rest = value;
    if key == tag << 3 { decode_varint(rest).ok() } else { None }
}

fn object_id(rest: &mut &[u8]) -> Option<MsgHash> {
    let (field, behind) = rest.split_first_chunk::<{ 2 + HASH_LEN as usize }>()?;
    *rest = behind;
    match *field {
        [OBJECT_ID, HASH_LEN, 0x08, algorithm @ ..0x80, 0x12, DIGEST_LEN, ref digest @ ..] => {
            Some(MsgHash { algorithm: Some(algorithm.into()), digest: Some(*digest) })
        }
        _ => None,
    }
}

const DIGEST_LEN: u8 = ObjectId::DIGEST_LEN as u8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::wire::MsgRpc;

    /// A request of one of the three kinds, whose numbers have varints of every length.
    fn request() -> impl Strategy<Value = Msg> {
        let number = || (any::<u64>(), 0..64u32).prop_map(|(bits, shift)| bits >> shift);
        (0..3, number(), number(), 0..0x80, any::<[u8; 20]>(), number()).prop_map(
            |(kind, session, id, algorithm, digest, last)| {
                let (session_id, req_id) = (Some(session), Some(id));
                let hash = MsgHash { algorithm: Some(algorithm), digest: Some(digest) };
                let object_id = Some(hash);
                match kind {
                    0 => Msg::RefcountReq(MsgRefcountReq {
                        session_id,
                        req_id,
                        object_id,
                        change_by: Some(last as i32),
                    }),
                    1 => Msg::ReadReq(MsgReadReq {
                        session_id,
                        req_id,
                        object_id,
                        offset: Some(last),
                        size: Some(!last as u32),
                    }),
                    _ => Msg::ObjectInfoReq(MsgObjectInfoReq { session_id, req_id, object_id }),
                }
            },
        )
    }

    fn encode(msg: Msg) -> Vec<u8> {
        MsgRpc::from(msg).encode_to_vec()
    }

    proptest! {
        #[test]
        fn a_request_that_prost_encodes_is_in_canonical_form(request in request()) {
            prop_assert_eq!(decode_canonical(&encode(request.clone())), Some(request));
        }

        #[test]
        fn what_is_decoded_is_what_prost_decodes(
            request in request(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cut in 0..3usize,
        ) {
            let mut bytes = encode(request);
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            bytes.truncate(bytes.len() - cut);
            if let Some(msg) = decode_canonical(&bytes) {
                prop_assert_eq!(MsgRpc::decode(&bytes[..]), Ok(MsgRpc::from(msg)));
            }
        }
    }
}
