//! An object id in Protobuf. Most requests have one, so it is decoded without allocating, which
//! derived code would.

use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint};
use prost::encoding::{int32, key_len, skip_field};
use prost::{DecodeError, Message, decode_length_delimiter};

use crate::ObjectId;

const ALGORITHM: u32 = 1;
const DIGEST: u32 = 2;

/// The name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct MsgHash {
    /// 1 SHA-1, 2 RIPEMD-160, 3 SHAKE-128.
    pub(crate) algorithm: Option<i32>,
    /// `None` if it is missing, or of another length: then it names nothing.
    pub(crate) digest: Option<[u8; ObjectId::DIGEST_LEN]>,
}

impl Message for MsgHash {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if let Some(algorithm) = &self.algorithm {
            int32::encode(ALGORITHM, algorithm, buf);
        }
        if let Some(digest) = &self.digest {
            encode_key(DIGEST, WireType::LengthDelimited, buf);
            encode_varint(digest.len() as u64, buf);
            buf.put_slice(digest);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            ALGORITHM => int32::merge(wire_type, self.algorithm.get_or_insert_default(), buf, ctx),
            DIGEST if wire_type == WireType::LengthDelimited => {
                // Read ahead, and then skipped, so that prost decides what is an error.
                // Messages are decoded from one piece.
                let mut ahead = buf.chunk();
                let len = decode_length_delimiter(&mut ahead)?;
                self.digest = ahead.get(..len).and_then(|digest| digest.try_into().ok());
                skip_field(wire_type, tag, buf, ctx)
            }
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let algorithm = self.algorithm.map_or(0, |number| int32::encoded_len(ALGORITHM, &number));
        let digest = self.digest.as_ref().map_or(0, |digest| {
            key_len(DIGEST) + encoded_len_varint(digest.len() as u64) + digest.len()
        });
        algorithm + digest
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What prost derives for the same message.
    #[derive(Clone, PartialEq, Message)]
    struct Derived {
        #[prost(int32, optional, tag = "1")]
        algorithm: Option<i32>,
        #[prost(bytes, optional, tag = "2")]
        digest: Option<Vec<u8>>,
    }

    fn derived(algorithm: Option<i32>, digest: Option<usize>) -> Derived {
        Derived { algorithm, digest: digest.map(|len| vec![7; len]) }
    }

    #[test]
    fn an_id_is_encoded_and_decoded_as_derived_code_does() {
        for algorithm in [None, Some(1), Some(-1), Some(i32::MAX)] {
            for digest in [None, Some([7; 20])] {
                let own = MsgHash { algorithm, digest };
                let bytes = derived(algorithm, digest.map(|digest| digest.len())).encode_to_vec();
                assert_eq!(own.encode_to_vec(), bytes);
                assert_eq!(own.encoded_len(), bytes.len());
                assert_eq!(MsgHash::decode(&bytes[..]), Ok(own));
            }
            for len in [0, 19, 21, 300] {
                let bytes = derived(algorithm, Some(len)).encode_to_vec();
                assert_eq!(MsgHash::decode(&bytes[..]), Ok(MsgHash { algorithm, digest: None }));
            }
        }
    }

    #[test]
    fn a_cut_or_repeated_id_is_decoded_as_derived_code_does() {
        let bytes = derived(Some(1), Some(20)).encode_to_vec();
        for end in 0..bytes.len() {
            let (own, other) = (MsgHash::decode(&bytes[..end]), Derived::decode(&bytes[..end]));
            assert_eq!(own.is_ok(), other.is_ok(), "{end} bytes");
        }
        let repeated = [bytes, derived(None, Some(3)).encode_to_vec(), vec![0x18, 0x05]].concat();
        let own = MsgHash::decode(&repeated[..]).unwrap();
        assert_eq!(own, MsgHash { algorithm: Some(1), digest: None });
    }
}
