//! Bytes of an object, in as many pieces as the cache keeps them in.

use bytes::Bytes;

/// Bytes of an object: none, one or several pieces that follow each other.
///
/// A cache that keeps objects in memory replies with slices of them, without copying. A
/// cache that reads into a buffer makes one of a `Vec<u8>`, or of a `ReadBuffer` of the crate
/// `cvmcache`, which is reused.
///
/// ```
/// use bytes::Bytes;
/// use cvmcache_proto::Data;
///
/// let object = Bytes::from_static(b"content of an object");
/// let mut data = Data::from(object.slice(0..7));
/// data.push(object.slice(7..20));
/// assert_eq!(data.len(), 20);
/// assert_eq!(data.into_bytes(), object);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Data {
    // Nearly all replies are one piece: it needs no allocation.
    first: Bytes,
    rest: Vec<Bytes>,
}

impl Data {
    /// No bytes at all.
    pub const fn new() -> Self {
        Self { first: Bytes::new(), rest: Vec::new() }
    }

    /// Appends a piece, without copying. One without bytes leaves no trace.
    pub fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.rest.push(piece);
        }
    }

    /// The number of bytes in all pieces. It is added up for each call.
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }

    /// True if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The pieces in order. None of them is empty.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.rest).filter(|piece| !piece.is_empty())
    }

    /// All bytes in one piece: without copying if they already are, else in a new buffer.
    pub fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        self.pieces().flatten().copied().collect()
    }
}

impl From<Bytes> for Data {
    fn from(piece: Bytes) -> Self {
        Self { first: piece, rest: Vec::new() }
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl FromIterator<Bytes> for Data {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut data = Self::new();
        pieces.into_iter().for_each(|piece| data.push(piece));
        data
    }
}

impl IntoIterator for Data {
    type Item = Bytes;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Bytes>, std::vec::IntoIter<Bytes>>;

    fn into_iter(self) -> Self::IntoIter {
        let first = (!self.first.is_empty()).then_some(self.first);
        first.into_iter().chain(self.rest)
    }
}

/// Two are equal if their bytes are, however they are cut into pieces.
impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.pieces().flatten().eq(other.pieces().flatten())
    }
}

impl Eq for Data {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_pieces_are_dropped() {
        let data: Data = [&b""[..], b"ab", b"", b"c", b""].into_iter().map(Bytes::from).collect();
        assert_eq!(data.pieces().count(), 2);
        assert_eq!(data.len(), 3);
        assert_eq!(data.clone().into_iter().collect::<Vec<_>>(), ["ab", "c"]);
        assert_eq!(data.into_bytes(), "abc");
        assert!(Data::from(Vec::new()).is_empty());
    }
}
