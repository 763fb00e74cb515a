//! What is known of an object besides its data, and how its data is laid out on the server.
//!
//! Data is cut into chunks, each followed by its check; a segment, which is one key on the server,
//! has a number of chunks. So a read is a range of a key, and what it can return has a bound.

use bytes::Bytes;
use cvmcache::plugin::{ObjectId, ObjectInfo, ObjectType};

use crate::seal::{CHECK, Seal, is_same};

/// The facts of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) size: u64,
    pub(crate) object_type: ObjectType,
    pub(crate) shape: Shape,
    pub(crate) description: Option<Bytes>,
}

/// How the data of an object is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes of a chunk, without its check.
    chunk: u32,
    /// Chunks of a segment.
    per_segment: u32,
}

/// What of a segment has to be fetched for a read: bytes `from` to `to`, which begin with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) segment: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The number of its first chunk in the object.
    pub(crate) first: u64,
}

impl Facts {
    pub(crate) fn info(&self) -> ObjectInfo {
        ObjectInfo::new(self.size, self.object_type)
    }

    /// How many bytes they are as they are stored.
    pub(crate) fn encoded_len(&self) -> usize {
        HEADER + self.description.as_deref().map_or(0, <[u8]>::len) + CHECK
    }

    /// The facts as they are stored: with a check.
    pub(crate) fn encode(&self, id: &ObjectId, seal: &Seal) -> Vec<u8> {
        let description = self.description.as_deref();
        let mut bytes = Vec::with_capacity(self.encoded_len());
        bytes.push(seal.format());
        // The numbers of the wire are 0 to 2.
        bytes.push(self.object_type.to_wire() as u8);
        bytes.push(description.is_some().into());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.shape.chunk.to_le_bytes());
        bytes.extend(self.shape.per_segment.to_le_bytes());
        bytes.extend(description.unwrap_or_default());
        let check = seal.facts(id, &bytes);
        bytes.extend(check);
        bytes
    }

    /// Reads facts; `None` if they are not those that were stored.
    pub(crate) fn decode(id: &ObjectId, seal: &Seal, bytes: &[u8]) -> Option<Self> {
        let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK)?)?;
        if !is_same(&seal.facts(id, body), check) {
            return None;
        }
        let (&[format, object_type, described], rest) = body.split_first_chunk()?;
        (format == seal.format()).then_some(())?;
        let (size, rest) = rest.split_first_chunk()?;
        let (chunk, rest) = rest.split_first_chunk()?;
        let (per_segment, description) = rest.split_first_chunk()?;
        let size = u64::from_le_bytes(*size);
        (size <= MAX_SIZE).then_some(())?;
        Some(Self {
            size,
            object_type: ObjectType::from_wire(object_type.into())?,
            shape: Shape::new(u32::from_le_bytes(*chunk), u32::from_le_bytes(*per_segment))?,
            description: (described == 1).then(|| Bytes::copy_from_slice(description)),
        })
    }
}

impl Shape {
    /// How new objects are cut. A segment with its checks fills a size class of the server's
    /// allocator, 512 KiB, to 97 %; a power of two would take the next one.
    pub(crate) const NEW: Self = Self { chunk: 16 * 1024, per_segment: 31 };

    /// A shape of facts, which another version may have stored.
    fn new(chunk: u32, per_segment: u32) -> Option<Self> {
        let is_usable = (1024..=1024 * 1024).contains(&chunk) && (1..=1024).contains(&per_segment);
        is_usable.then_some(Self { chunk, per_segment })
    }

    /// Bytes of data in a full segment.
    pub(crate) fn segment_len(self) -> u64 {
        u64::from(self.chunk) * u64::from(self.per_segment)
    }

    /// How many segments an object of this size has.
    pub(crate) fn segments(self, size: u64) -> u64 {
        size.div_ceil(self.segment_len())
    }

    /// How many chunks so many bytes are.
    pub(crate) fn chunks(self, len: u64) -> u64 {
        len.div_ceil(self.chunk.into())
    }

    /// What has to be fetched of an object of this size for the bytes from `offset` to `end`, which
    /// is neither before `offset` nor behind the object's end.
    pub(crate) fn pieces(self, size: u64, offset: u64, end: u64) -> impl Iterator<Item = Piece> {
        let (chunk, chunks) = (u64::from(self.chunk), u64::from(self.per_segment));
        let stride = chunk + CHECK as u64;
        let last_segment = if offset < end { end.div_ceil(self.segment_len()) } else { 0 };
        (offset / self.segment_len()..last_segment).map(move |segment| {
            let first = (offset / chunk).max(segment * chunks);
            let last = end.div_ceil(chunk).min((segment + 1) * chunks);
            // The last chunk may be short, with its check right behind it.
            let bytes = (last * chunk).min(size) - first * chunk;
            let from = (first - segment * chunks) * stride;
            Piece { segment, from, to: from + bytes + (last - first) * CHECK as u64, first }
        })
    }

    /// Cuts the data of a segment, which is number `segment` and full unless it is the last, into
    /// chunks and puts their checks in. `parts` are its bytes in order.
    pub(crate) fn seal(self, id: &ObjectId, seal: &Seal, segment: u64, parts: &[Bytes]) -> Vec<u8> {
        let len: usize = parts.iter().map(Bytes::len).sum();
        let chunk = self.chunk as usize;
        let mut sealed = Vec::with_capacity(len + len.div_ceil(chunk) * CHECK);
        let mut number = segment * u64::from(self.per_segment);
        let mut begin = 0;
        for mut part in parts.iter().map(|part| &part[..]) {
            while !part.is_empty() {
                let now = part.len().min(chunk - (sealed.len() - begin));
                sealed.extend_from_slice(&part[..now]);
                part = &part[now..];
                if sealed.len() - begin == chunk {
                    sealed.extend(seal.chunk(id, self.chunk, number, &sealed[begin..]));
                    number += 1;
                    begin = sealed.len();
                }
            }
        }
        if begin < sealed.len() {
            sealed.extend(seal.chunk(id, self.chunk, number, &sealed[begin..]));
        }
        sealed
    }

    /// Checks what was fetched for a piece and takes the checks out; `None` if it is not what was
    /// stored.
    pub(crate) fn open(
        self,
        id: &ObjectId,
        seal: &Seal,
        piece: &Piece,
        fetched: &Bytes,
    ) -> Option<Vec<Bytes>> {
        if fetched.len() as u64 != piece.to - piece.from {
            return None;
        }
        let stride = self.chunk as usize + CHECK;
        let begins = (0..fetched.len()).step_by(stride);
        let chunks = begins.zip(piece.first..).map(|(begin, number)| {
            let end = fetched.len().min(begin + stride) - CHECK;
            let bytes = fetched.slice(begin..end);
            let check = seal.chunk(id, self.chunk, number, &bytes);
            is_same(&check, &fetched[end..end + CHECK]).then_some(bytes)
        });
        chunks.collect()
    }

    /// Where in the object the chunk with this number begins.
    pub(crate) fn offset(self, number: u64) -> u64 {
        number * u64::from(self.chunk)
    }
}

/// No object is larger, so that sums of offsets never overflow, whoever made the facts.
const MAX_SIZE: u64 = 1 << 50;

/// What facts take before the description.
const HEADER: usize = 1 + 1 + 1 + 8 + 4 + 4;

#[cfg(test)]
mod tests {
    use cvmcache::plugin::HashAlgorithm;
    use proptest::prelude::*;

    use super::*;

    const ID: ObjectId = ObjectId::new(HashAlgorithm::Ripemd160, [9; 20]);
    const SMALL: Shape = Shape { chunk: 5, per_segment: 3 };

    fn facts() -> Facts {
        Facts {
            size: 1 << 40,
            object_type: ObjectType::Catalog,
            shape: Shape::NEW,
            description: Some("/a/b".into()),
        }
    }

    /// An object as the server has it: its segments.
    fn store(data: &Bytes, seal: &Seal) -> Vec<Bytes> {
        let len = SMALL.segment_len() as usize;
        let segments = data.chunks(len).enumerate();
        segments
            .map(|(number, part)| {
                let part = Bytes::copy_from_slice(part);
                // In whatever parts it came.
                let middle = part.len() / 2;
                let parts = [part.slice(..middle), part.slice(middle..)];
                SMALL.seal(&ID, seal, number as u64, &parts).into()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn every_range_is_read_as_it_was_stored(
            data in proptest::collection::vec(any::<u8>(), 0..100),
            range in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let seal = Seal::new(None);
            let data = Bytes::from(data);
            let segments = store(&data, &seal);
            prop_assert_eq!(segments.len() as u64, SMALL.segments(data.len() as u64));
            let (a, b) = (range.0.index(data.len() + 1), range.1.index(data.len() + 1));
            let (offset, end) = (a.min(b), a.max(b));
            let mut read = Vec::new();
            let mut begin = None;
            for piece in SMALL.pieces(data.len() as u64, offset as u64, end as u64) {
                let stored = &segments[piece.segment as usize];
                let fetched = stored.slice(piece.from as usize..piece.to as usize);
                begin.get_or_insert(SMALL.offset(piece.first) as usize);
                read.extend(SMALL.open(&ID, &seal, &piece, &fetched).unwrap().concat());
            }
            let begin = begin.unwrap_or(offset);
            prop_assert_eq!(&read[offset - begin..end - begin], &data[offset..end]);
            prop_assert!(read.len() < end - offset + 2 * 5, "no more than the chunks it touches");
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            prop_assert_eq!(Facts::decode(&ID, &Seal::new(None), &bytes), None);
        }
    }

    #[test]
    fn data_that_is_not_where_it_was_stored_is_noticed() {
        let seal = Seal::new(None);
        let data = Bytes::from_iter(0..40u8);
        let segments = store(&data, &seal);
        let piece = SMALL.pieces(40, 15, 30).next().unwrap();
        assert_eq!(piece, Piece { segment: 1, from: 0, to: 3 * (5 + 16), first: 3 });
        assert!(SMALL.open(&ID, &seal, &piece, &segments[1]).is_some());
        assert!(SMALL.open(&ID, &seal, &piece, &segments[0]).is_none());
        let mut swapped = segments[1].to_vec();
        swapped.rotate_left(21);
        assert!(SMALL.open(&ID, &seal, &piece, &swapped.into()).is_none());
        assert!(SMALL.open(&ID, &seal, &piece, &segments[1].slice(..62)).is_none());
        assert!(SMALL.open(&ID, &seal, &piece, &Bytes::new()).is_none());
        let other = ObjectId::new(HashAlgorithm::Sha1, [9; 20]);
        assert!(SMALL.open(&other, &seal, &piece, &segments[1]).is_none());
        for byte in 0..segments[1].len() {
            let mut flipped = segments[1].to_vec();
            flipped[byte] ^= 4;
            assert!(SMALL.open(&ID, &seal, &piece, &flipped.into()).is_none(), "{byte}");
        }
    }

    #[test]
    fn facts_are_read_as_they_were_stored() {
        let seal = Seal::new(None);
        let plain = Facts { description: None, ..facts() };
        let empty = Facts { description: Some(Bytes::new()), ..facts() };
        for facts in [facts(), plain, empty] {
            let bytes = facts.encode(&ID, &seal);
            assert_eq!(Facts::decode(&ID, &seal, &bytes), Some(facts));
        }
    }

    #[test]
    fn forged_facts_are_none() {
        let seal = Seal::new(Some(&[1; 32]));
        let bytes = facts().encode(&ID, &seal);
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Facts::decode(&ID, &seal, &flipped), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Facts::decode(&ID, &seal, &bytes[..len]), None);
        }
        let other = ObjectId::new(HashAlgorithm::Sha1, [9; 20]);
        assert_eq!(Facts::decode(&other, &seal, &bytes), None);
        assert_eq!(Facts::decode(&ID, &Seal::new(None), &bytes), None);
    }

    #[test]
    fn a_shape_that_could_not_be_read_is_none() {
        let seal = Seal::new(None);
        for (chunk, per_segment) in [(0, 1), (1024, 0), (u32::MAX, 1), (1024, u32::MAX)] {
            let facts = Facts { shape: Shape { chunk, per_segment }, ..facts() };
            assert_eq!(Facts::decode(&ID, &seal, &facts.encode(&ID, &seal)), None);
        }
    }
}
