//! The metadata of an object, and the layout of its data on the server.
//!
//! Data is cut into chunks, each followed by its tag; a segment, which is one key on the server,
//! has a number of chunks. So a read is a range of a key, and what it can return has a bound.

use bytes::Bytes;
use cvmcache::plugin::{ObjectId, ObjectInfo, ObjectType};

use crate::integrity::{Authenticator, TAG_LEN, matches};

/// What is known of an object besides its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectMetadata {
    pub(crate) size: u64,
    pub(crate) object_type: ObjectType,
    pub(crate) layout: ChunkLayout,
    pub(crate) description: Option<Bytes>,
}

/// How the data of an object is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkLayout {
    /// Bytes of a chunk, without its tag.
    chunk: u32,
    /// Chunks of a segment.
    per_segment: u32,
}

/// The part of a segment that a read fetches: bytes `from` to `to`, which begin with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentRange {
    pub(crate) segment: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The number of its first chunk in the object.
    pub(crate) first: u64,
}

impl ObjectMetadata {
    pub(crate) fn info(&self) -> ObjectInfo {
        ObjectInfo::new(self.size, self.object_type)
    }

    /// The length of the encoding.
    pub(crate) fn encoded_len(&self) -> usize {
        HEADER + self.description.as_deref().map_or(0, <[u8]>::len) + TAG_LEN
    }

    /// Encodes it as it is stored, with its tag.
    pub(crate) fn encode(&self, id: &ObjectId, authenticator: &Authenticator) -> Vec<u8> {
        let description = self.description.as_deref();
        let mut bytes = Vec::with_capacity(self.encoded_len());
        bytes.push(authenticator.format());
        // The numbers of the wire are 0 to 2.
        bytes.push(self.object_type.to_wire() as u8);
        bytes.push(description.is_some().into());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.layout.chunk.to_le_bytes());
        bytes.extend(self.layout.per_segment.to_le_bytes());
        bytes.extend(description.unwrap_or_default());
        let tag = authenticator.metadata(id, &bytes);
        bytes.extend(tag);
        bytes
    }

    /// Decodes what was stored; `None` if it does not verify.
    pub(crate) fn decode(
        id: &ObjectId,
        authenticator: &Authenticator,
        bytes: &[u8],
    ) -> Option<Self> {
        let (body, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_LEN)?)?;
        if !matches(&authenticator.metadata(id, body), tag) {
            return None;
        }
        let (&[format, object_type, described], rest) = body.split_first_chunk()?;
        (format == authenticator.format()).then_some(())?;
        let (size, rest) = rest.split_first_chunk()?;
        let (chunk, rest) = rest.split_first_chunk()?;
        let (per_segment, description) = rest.split_first_chunk()?;
        let size = u64::from_le_bytes(*size);
        (size <= MAX_SIZE).then_some(())?;
        Some(Self {
            size,
            object_type: ObjectType::from_wire(object_type.into())?,
            layout: ChunkLayout::new(u32::from_le_bytes(*chunk), u32::from_le_bytes(*per_segment))?,
            description: (described == 1).then(|| Bytes::copy_from_slice(description)),
        })
    }
}

impl ChunkLayout {
    /// How new objects are cut. A segment with its tags fills a size class of the server's
    /// allocator, 512 KiB, to 97 %; a power of two would take the next one.
    pub(crate) const NEW: Self = Self { chunk: 16 * 1024, per_segment: 31 };

    /// The layout in metadata that another version may have stored.
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

    /// The parts of segments to fetch of an object of this size for the bytes from `offset` to `end`, which
    /// is neither before `offset` nor behind the object's end.
    pub(crate) fn segment_ranges(
        self,
        size: u64,
        offset: u64,
        end: u64,
    ) -> impl Iterator<Item = SegmentRange> {
        let (chunk, chunks) = (u64::from(self.chunk), u64::from(self.per_segment));
        let stride = chunk + TAG_LEN as u64;
        let last_segment = if offset < end { end.div_ceil(self.segment_len()) } else { 0 };
        (offset / self.segment_len()..last_segment).map(move |segment| {
            let first = (offset / chunk).max(segment * chunks);
            let last = end.div_ceil(chunk).min((segment + 1) * chunks);
            // The last chunk may be short, with its tag right behind it.
            let bytes = (last * chunk).min(size) - first * chunk;
            let from = (first - segment * chunks) * stride;
            SegmentRange {
                segment,
                from,
                to: from + bytes + (last - first) * TAG_LEN as u64,
                first,
            }
        })
    }

    /// Cuts the data of a segment, which is number `segment` and full unless it is the last, into
    /// chunks and appends a tag to each. `parts` are its bytes in order.
    pub(crate) fn attach_tags(
        self,
        id: &ObjectId,
        authenticator: &Authenticator,
        segment: u64,
        parts: &[Bytes],
    ) -> Vec<u8> {
        let len: usize = parts.iter().map(Bytes::len).sum();
        let chunk = self.chunk as usize;
        let mut tagged = Vec::with_capacity(len + len.div_ceil(chunk) * TAG_LEN);
        let mut number = segment * u64::from(self.per_segment);
        let mut begin = 0;
        for mut part in parts.iter().map(|part| &part[..]) {
            while !part.is_empty() {
                let now = part.len().min(chunk - (tagged.len() - begin));
                tagged.extend_from_slice(&part[..now]);
                part = &part[now..];
                if tagged.len() - begin == chunk {
                    tagged.extend(authenticator.chunk(id, self.chunk, number, &tagged[begin..]));
                    number += 1;
                    begin = tagged.len();
                }
            }
        }
        if begin < tagged.len() {
            tagged.extend(authenticator.chunk(id, self.chunk, number, &tagged[begin..]));
        }
        tagged
    }

    /// Verifies what was fetched for a range and takes the tags out; `None` if a tag does not match.
    pub(crate) fn verify(
        self,
        id: &ObjectId,
        authenticator: &Authenticator,
        range: &SegmentRange,
        fetched: &Bytes,
    ) -> Option<Vec<Bytes>> {
        if fetched.len() as u64 != range.to - range.from {
            return None;
        }
        let stride = self.chunk as usize + TAG_LEN;
        let begins = (0..fetched.len()).step_by(stride);
        let chunks = begins.zip(range.first..).map(|(begin, number)| {
            let end = fetched.len().min(begin + stride) - TAG_LEN;
            let bytes = fetched.slice(begin..end);
            let tag = authenticator.chunk(id, self.chunk, number, &bytes);
            matches(&tag, &fetched[end..end + TAG_LEN]).then_some(bytes)
        });
        chunks.collect()
    }

    /// Where in the object the chunk with this number begins.
    pub(crate) fn offset(self, number: u64) -> u64 {
        number * u64::from(self.chunk)
    }
}

/// No object is larger, so that sums of offsets never overflow, even of forged metadata.
const MAX_SIZE: u64 = 1 << 50;

/// The bytes before the description.
const HEADER: usize = 1 + 1 + 1 + 8 + 4 + 4;

#[cfg(test)]
mod tests {
    use cvmcache::plugin::HashAlgorithm;
    use proptest::prelude::*;

    use super::*;

    const ID: ObjectId = ObjectId::new(HashAlgorithm::Ripemd160, [9; 20]);
    const SMALL: ChunkLayout = ChunkLayout { chunk: 5, per_segment: 3 };

    fn metadata() -> ObjectMetadata {
        ObjectMetadata {
            size: 1 << 40,
            object_type: ObjectType::Catalog,
            layout: ChunkLayout::NEW,
            description: Some("/a/b".into()),
        }
    }

    /// An object as the server has it: its segments.
    fn store(data: &Bytes, authenticator: &Authenticator) -> Vec<Bytes> {
        let len = SMALL.segment_len() as usize;
        let segments = data.chunks(len).enumerate();
        segments
            .map(|(number, part)| {
                let part = Bytes::copy_from_slice(part);
                // In whatever parts it came.
                let middle = part.len() / 2;
                let parts = [part.slice(..middle), part.slice(middle..)];
                SMALL.attach_tags(&ID, authenticator, number as u64, &parts).into()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn every_range_is_read_as_it_was_stored(
            data in proptest::collection::vec(any::<u8>(), 0..100),
            range in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let authenticator = Authenticator::new(None);
            let data = Bytes::from(data);
            let segments = store(&data, &authenticator);
            prop_assert_eq!(segments.len() as u64, SMALL.segments(data.len() as u64));
            let (a, b) = (range.0.index(data.len() + 1), range.1.index(data.len() + 1));
            let (offset, end) = (a.min(b), a.max(b));
            let mut read = Vec::new();
            let mut begin = None;
            for range in SMALL.segment_ranges(data.len() as u64, offset as u64, end as u64) {
                let stored = &segments[range.segment as usize];
                let fetched = stored.slice(range.from as usize..range.to as usize);
                begin.get_or_insert(SMALL.offset(range.first) as usize);
                read.extend(SMALL.verify(&ID, &authenticator, &range, &fetched).unwrap().concat());
            }
            let begin = begin.unwrap_or(offset);
            prop_assert_eq!(&read[offset - begin..end - begin], &data[offset..end]);
            prop_assert!(read.len() < end - offset + 2 * 5, "no more than the chunks it touches");
        }

        #[test]
        fn arbitrary_bytes_do_not_panic_the_decoder(bytes: Vec<u8>) {
            prop_assert_eq!(ObjectMetadata::decode(&ID, &Authenticator::new(None), &bytes), None);
        }
    }

    #[test]
    fn data_moved_to_another_place_does_not_verify() {
        let authenticator = Authenticator::new(None);
        let data = Bytes::from_iter(0..40u8);
        let segments = store(&data, &authenticator);
        let range = SMALL.segment_ranges(40, 15, 30).next().unwrap();
        assert_eq!(range, SegmentRange { segment: 1, from: 0, to: 3 * (5 + 16), first: 3 });
        assert!(SMALL.verify(&ID, &authenticator, &range, &segments[1]).is_some());
        assert!(SMALL.verify(&ID, &authenticator, &range, &segments[0]).is_none());
        let mut swapped = segments[1].to_vec();
        swapped.rotate_left(21);
        assert!(SMALL.verify(&ID, &authenticator, &range, &swapped.into()).is_none());
        assert!(SMALL.verify(&ID, &authenticator, &range, &segments[1].slice(..62)).is_none());
        assert!(SMALL.verify(&ID, &authenticator, &range, &Bytes::new()).is_none());
        let other = ObjectId::new(HashAlgorithm::Sha1, [9; 20]);
        assert!(SMALL.verify(&other, &authenticator, &range, &segments[1]).is_none());
        for byte in 0..segments[1].len() {
            let mut flipped = segments[1].to_vec();
            flipped[byte] ^= 4;
            assert!(SMALL.verify(&ID, &authenticator, &range, &flipped.into()).is_none(), "{byte}");
        }
    }

    #[test]
    fn metadata_is_decoded_as_it_was_encoded() {
        let authenticator = Authenticator::new(None);
        let plain = ObjectMetadata { description: None, ..metadata() };
        let empty = ObjectMetadata { description: Some(Bytes::new()), ..metadata() };
        for metadata in [metadata(), plain, empty] {
            let bytes = metadata.encode(&ID, &authenticator);
            assert_eq!(ObjectMetadata::decode(&ID, &authenticator, &bytes), Some(metadata));
        }
    }

    #[test]
    fn forged_metadata_does_not_verify() {
        let authenticator = Authenticator::new(Some(&[1; 32]));
        let bytes = metadata().encode(&ID, &authenticator);
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ObjectMetadata::decode(&ID, &authenticator, &flipped), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(ObjectMetadata::decode(&ID, &authenticator, &bytes[..len]), None);
        }
        let other = ObjectId::new(HashAlgorithm::Sha1, [9; 20]);
        assert_eq!(ObjectMetadata::decode(&other, &authenticator, &bytes), None);
        assert_eq!(ObjectMetadata::decode(&ID, &Authenticator::new(None), &bytes), None);
    }

    #[test]
    fn an_unusable_layout_is_refused() {
        let authenticator = Authenticator::new(None);
        for (chunk, per_segment) in [(0, 1), (1024, 0), (u32::MAX, 1), (1024, u32::MAX)] {
            let metadata =
                ObjectMetadata { layout: ChunkLayout { chunk, per_segment }, ..metadata() };
            assert_eq!(
                ObjectMetadata::decode(&ID, &authenticator, &metadata.encode(&ID, &authenticator)),
                None
            );
        }
    }
}
