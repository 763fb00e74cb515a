//! An object in memory: its parts as they were received, never copied, and its cost.

use std::mem::size_of;

use bytes::Bytes;
use cvmcache::plugin::{Data, ObjectId, ObjectInfo, ObjectType, PluginResult, Status};

/// An object, complete or still arriving.
#[derive(Debug)]
pub(crate) struct Object {
    id: ObjectId,
    object_type: ObjectType,
    description: Option<Bytes>,
    parts: Vec<Part>,
    cost: u64,
}

#[derive(Debug)]
struct Part {
    bytes: Bytes,
    /// Where the part ends in the object.
    end: u64,
}

impl Object {
    /// An object without data.
    pub(crate) fn new(id: ObjectId, object_type: ObjectType, description: Option<Bytes>) -> Self {
        let cost = OBJECT_COST + description.as_ref().map_or(0, buffer_cost);
        Self { id, object_type, description, parts: Vec::new(), cost }
    }

    pub(crate) fn id(&self) -> &ObjectId {
        &self.id
    }

    pub(crate) fn object_type(&self) -> ObjectType {
        self.object_type
    }

    pub(crate) fn description(&self) -> Option<&Bytes> {
        self.description.as_ref()
    }

    pub(crate) fn info(&self) -> ObjectInfo {
        ObjectInfo::new(self.size(), self.object_type)
    }

    pub(crate) fn size(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// What the object takes of the memory, with all that is needed to hold it.
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    /// By how much a part will raise the cost.
    pub(crate) fn part_cost(bytes: &Bytes) -> u64 {
        if bytes.is_empty() { 0 } else { size_of::<Part>() as u64 + buffer_cost(bytes) }
    }

    /// Appends a part.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.cost += Self::part_cost(&bytes);
            let end = self.size() + bytes.len() as u64;
            self.parts.push(Part { bytes, end });
        }
    }

    /// Gives back the spare room for more parts.
    pub(crate) fn complete(mut self) -> Self {
        self.parts.shrink_to_fit();
        self
    }

    /// Up to `len` bytes from `offset` on, as slices of the parts.
    pub(crate) fn read(&self, offset: u64, len: u32) -> PluginResult<Data> {
        let size = self.size();
        if offset > size {
            return Err(Status::OutOfBounds);
        }
        let end = size.min(offset.saturating_add(len.into()));
        // Clients send parts of one size, but nothing here depends on it.
        let first = self.parts.partition_point(|part| part.end <= offset);
        let parts = self.parts[first..].iter();
        Ok(parts.map_while(|part| part.slice(offset, end)).collect())
    }
}

impl Part {
    /// What of the part lies between two offsets into the object; `None` if it begins behind them.
    fn slice(&self, from: u64, to: u64) -> Option<Bytes> {
        let start = self.end - self.bytes.len() as u64;
        // Both are offsets into the part, so they fit into its `usize`.
        let from = from.saturating_sub(start) as usize;
        let to = to.min(self.end).checked_sub(start)? as usize;
        (from < to).then(|| self.bytes.slice(from..to))
    }
}

/// What an object takes apart from its description and its parts. The store adds what it needs to
/// find the object again.
const OBJECT_COST: u64 = {
    // Readers share it, so two counters stand before it.
    let object = allocation(2 * size_of::<usize>() + size_of::<Object>());
    // Its elements are counted one by one.
    let array_of_parts = allocation(0);
    object + array_of_parts
};

/// What the memory behind a `Bytes` takes: the buffer, and the header it is shared by from its
/// first read on (pointer, capacity and counter).
fn buffer_cost(bytes: &Bytes) -> u64 {
    if bytes.is_empty() { 0 } else { allocation(bytes.len()) + allocation(3 * size_of::<usize>()) }
}

/// What glibc takes for an allocation of `len` bytes: a header of 8 bytes, rounded up to 16; or a
/// header of 16 bytes, rounded up to pages, once it is large enough to be mapped on its own.
const fn allocation(len: usize) -> u64 {
    const MAPPED: u64 = 128 * 1024;
    const PAGE: u64 = 4096;
    let len = len as u64;
    match len {
        0..=24 => 32,
        25..MAPPED => (len + 8).next_multiple_of(16),
        _ => (len + 16).next_multiple_of(PAGE),
    }
}

#[cfg(test)]
mod tests {
    use cvmcache::plugin::HashAlgorithm;

    use super::*;

    fn object(parts: &[&'static str]) -> Object {
        let id = ObjectId::new(HashAlgorithm::Sha1, [0; 20]);
        let mut object = Object::new(id, ObjectType::Regular, None);
        parts.iter().for_each(|part| object.push(Bytes::from(*part)));
        object
    }

    #[test]
    fn every_range_is_read_whatever_the_parts() {
        for parts in
            [&["abcdefgh"][..], &["abc", "def", "gh"], &["a", "", "bcdef", "g", "h"], &[""]]
        {
            let whole = parts.concat();
            let object = object(parts).complete();
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
    fn the_bytes_of_an_object_are_never_copied() {
        let part = Bytes::from(vec![7; 100]);
        let address = part.as_ptr();
        let mut object = object(&["abc"]);
        object.push(part);
        let data = object.complete().read(13, 10).unwrap();
        let pieces: Vec<_> = data.pieces().collect();
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].as_ptr(), address.wrapping_add(10));
    }

    #[test]
    fn the_cost_is_that_of_the_allocations() {
        let empty = object(&[]).cost();
        assert!(empty > size_of::<Object>() as u64);
        let large = Bytes::from(vec![0; 256 * 1024]);
        let mut object = object(&["1234567", ""]);
        assert_eq!(object.cost() - empty, size_of::<Part>() as u64 + 32 + 32);
        let before = object.cost();
        object.push(large);
        assert_eq!(object.cost() - before, size_of::<Part>() as u64 + 65 * 4096 + 32);
    }

    #[test]
    fn a_description_costs_what_it_takes() {
        let id = ObjectId::new(HashAlgorithm::Sha1, [0; 20]);
        let described =
            |text: Vec<u8>| Object::new(id, ObjectType::Regular, Some(text.into())).cost();
        assert_eq!(described(vec![b'x'; 100]) - object(&[]).cost(), 112 + 32);
        assert_eq!(described(Vec::new()), object(&[]).cost());
    }
}
