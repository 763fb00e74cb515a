//! An object in memory: the extents it lies in, and what it costs to keep them.

use std::mem::size_of;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cvmcache::plugin::{Data, ObjectId, ObjectInfo, ObjectType, PluginResult, Status};
use smallvec::SmallVec;

use crate::arena::{Arena, Extent, Extents};

/// An object, complete or still arriving.
#[derive(Debug)]
pub(crate) struct Object {
    id: ObjectId,
    object_type: ObjectType,
    description: Option<Extents>,
    pieces: SmallVec<[Piece; 1]>,
    cost: u64,
}

#[derive(Debug)]
struct Piece {
    extent: Extent,
    /// Where the piece ends in the object.
    end: u64,
}

impl Object {
    /// An object without data.
    pub(crate) fn new(
        id: ObjectId,
        object_type: ObjectType,
        description: Option<(&[u8], Extents)>,
    ) -> Self {
        let mut cost = OBJECT_COST;
        let description = description.map(|(bytes, mut extents)| {
            cost += Self::part_cost(bytes.len()) + Self::pieces_cost(&extents);
            fill(&mut extents, bytes);
            extents
        });
        Self { id, object_type, description, pieces: SmallVec::new(), cost }
    }

    pub(crate) fn id(&self) -> &ObjectId {
        &self.id
    }

    pub(crate) fn object_type(&self) -> ObjectType {
        self.object_type
    }

    /// A copy of the description: a listing that is not continued must not keep objects in memory.
    pub(crate) fn description(&self) -> Option<Bytes> {
        match self.description.as_deref()? {
            [extent] => Some(Bytes::copy_from_slice(extent)),
            extents => Some(extents.iter().flat_map(|extent| extent.iter().copied()).collect()),
        }
    }

    pub(crate) fn info(&self) -> ObjectInfo {
        ObjectInfo::new(self.size(), self.object_type)
    }

    pub(crate) fn size(&self) -> u64 {
        self.pieces.last().map_or(0, |piece| piece.end)
    }

    /// What the object takes of the memory, with all that is needed to hold it.
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    /// By how much a part of `len` bytes will raise the cost, in one piece.
    pub(crate) fn part_cost(len: usize) -> u64 {
        if len == 0 { 0 } else { Arena::cost(len) + PIECE_COST }
    }

    /// By how much more it will if it is in these.
    pub(crate) fn pieces_cost(extents: &Extents) -> u64 {
        extents.len().saturating_sub(1) as u64 * PIECE_COST
    }

    /// Appends a part: copies it to extents of its length.
    ///
    /// # Errors
    ///
    /// [`Status::NoSpace`] if there is no memory to list the extents in.
    pub(crate) fn push(&mut self, mut extents: Extents, bytes: &[u8]) -> PluginResult<()> {
        self.pieces.try_reserve(extents.len()).map_err(|_| Status::NoSpace)?;
        self.cost += Self::part_cost(bytes.len()) + Self::pieces_cost(&extents);
        fill(&mut extents, bytes);
        for extent in extents {
            let end = self.size() + extent.len() as u64;
            self.pieces.push(Piece { extent, end });
        }
        Ok(())
    }

    /// Gives back the spare room for more parts.
    pub(crate) fn complete(mut self) -> Self {
        self.pieces.shrink_to_fit();
        self
    }

    /// Up to `len` bytes from `offset` on, as slices of the pieces.
    pub(crate) fn read(self: &Arc<Self>, offset: u64, len: u32) -> PluginResult<Data> {
        let size = self.size();
        if offset > size {
            return Err(Status::OutOfBounds);
        }
        let end = size.min(offset.saturating_add(len.into()));
        // Clients send parts of one size, but nothing here depends on it.
        let first = self.pieces.partition_point(|piece| piece.end <= offset);
        let slices = (first..self.pieces.len()).map_while(|number| {
            let range = self.pieces[number].range(offset, end)?;
            Some(Bytes::from_owner(Slice { object: Arc::clone(self), number, range }))
        });
        Ok(slices.collect())
    }
}

fn fill(extents: &mut Extents, mut bytes: &[u8]) {
    for extent in extents {
        let (here, rest) = bytes.split_at(extent.len());
        extent.fill(here);
        bytes = rest;
    }
}

impl Piece {
    /// What of the piece lies between two offsets into the object; `None` if it begins behind them.
    fn range(&self, from: u64, to: u64) -> Option<Range<usize>> {
        let start = self.end - self.extent.len() as u64;
        // Both are offsets into the piece, so they fit into its `usize`.
        let from = from.saturating_sub(start) as usize;
        let to = to.min(self.end).checked_sub(start)? as usize;
        (from < to).then_some(from..to)
    }
}

/// Bytes of an object on their way to a client. They keep all of it in memory.
struct Slice {
    object: Arc<Object>,
    number: usize,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.object.pieces[self.number].extent[self.range.clone()]
    }
}

/// What an object takes apart from its description and its parts. The store adds what it needs to
/// find the object again.
const OBJECT_COST: u64 = {
    // Readers share it, so two counters stand before it.
    allocation(2 * size_of::<usize>() + size_of::<Object>())
};

/// What a piece takes apart from its bytes.
const PIECE_COST: u64 = {
    // The free extent that may be beside it, in three B-trees whose nodes are at least 5/11 full.
    let free = (3 * size_of::<(usize, usize)>() * 11 / 5) as u64;
    size_of::<Piece>() as u64 + free
};

/// What glibc takes for a small allocation of `len` bytes: a header of 8 bytes, rounded up to 16.
const fn allocation(len: usize) -> u64 {
    (len as u64 + 8).next_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use cvmcache::plugin::HashAlgorithm;

    use super::*;

    fn extents(len: usize) -> Extents {
        Arena::new(1 << 20).unwrap().allocate(len, u64::MAX).unwrap()
    }

    fn empty() -> Object {
        Object::new(ObjectId::new(HashAlgorithm::Sha1, [0; 20]), ObjectType::Regular, None)
    }

    fn object(parts: &[&'static str]) -> Object {
        let mut object = empty();
        parts.iter().for_each(|part| object.push(extents(part.len()), part.as_bytes()).unwrap());
        object
    }

    #[test]
    fn every_range_is_read_whatever_the_parts() {
        for parts in
            [&["abcdefgh"][..], &["abc", "def", "gh"], &["a", "", "bcdef", "g", "h"], &[""]]
        {
            let whole = parts.concat();
            let object = Arc::new(object(parts).complete());
            assert_eq!(object.size(), whole.len() as u64);
            for offset in 0..=whole.len() {
                for len in 0..=whole.len() + 1 {
                    let data = object.read(offset as u64, len as u32).unwrap().into_bytes();
                    let end = whole.len().min(offset + len);
                    assert_eq!(data, whole[offset..end], "{len} bytes at {offset} of {parts:?}");
                }
            }
            assert_eq!(object.read(whole.len() as u64 + 1, 0), Err(Status::OutOfBounds));
            assert_eq!(object.read(u64::MAX, u32::MAX), Err(Status::OutOfBounds));
        }
    }

    #[test]
    fn the_bytes_of_an_object_are_not_copied_for_a_read() {
        let mut object = object(&["abc"]);
        object.push(extents(100), &[7; 100]).unwrap();
        let address = object.pieces[1].extent.as_ptr();
        let data = Arc::new(object.complete()).read(13, 10).unwrap();
        let pieces: Vec<_> = data.pieces().collect();
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].as_ptr(), address.wrapping_add(10));
    }

    #[test]
    fn a_part_in_several_extents_is_read_as_it_was_written() {
        let arena = Arena::new(1 << 20).unwrap();
        let mut object = empty();
        let part: Vec<u8> = (0..100).collect();
        let extents = [30, 50, 20].map(|len| arena.allocate(len, u64::MAX).unwrap());
        object.push(extents.into_iter().flatten().collect(), &part).unwrap();
        let object = Arc::new(object);
        assert_eq!(object.read(0, 1000).unwrap().into_bytes(), part);
        assert_eq!(object.read(25, 60).unwrap().into_bytes(), part[25..85]);
    }

    #[test]
    fn the_cost_is_that_of_the_extents_and_of_what_finds_them() {
        let mut object = object(&["1234567", ""]);
        assert_eq!(object.cost() - empty().cost(), 64 + PIECE_COST);
        let before = object.cost();
        object.push(extents(256 * 1024), &[0; 256 * 1024]).unwrap();
        assert_eq!(object.cost() - before, 256 * 1024 + PIECE_COST);
    }

    #[test]
    fn a_description_costs_what_it_takes() {
        let id = ObjectId::new(HashAlgorithm::Sha1, [0; 20]);
        let described =
            |text: &[u8]| Object::new(id, ObjectType::Regular, Some((text, extents(text.len()))));
        let object = described(&[b'x'; 100]);
        assert_eq!(object.cost() - empty().cost(), 128 + PIECE_COST);
        assert_eq!(object.description().unwrap(), [b'x'; 100][..]);
        assert_eq!(described(b"").cost(), empty().cost());
        assert_eq!(described(b"").description().unwrap(), "");
    }
}
