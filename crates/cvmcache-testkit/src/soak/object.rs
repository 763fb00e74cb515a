//! Objects whose id, type, size and content follow from a number, so that each client can check
//! what it reads.

use bytes::Bytes;
use cvmcache::client::NewUpload;
use cvmcache::plugin::{HashAlgorithm, ObjectId, ObjectType};
use fastrand::Rng;

/// The content is generated in blocks with a seed each, so that any part can be generated alone.
const BLOCK: usize = 4096;

/// An object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) id: ObjectId,
    pub(super) object_type: ObjectType,
    pub(super) size: u64,
    seed: u64,
}

impl Object {
    /// The object of this number; each seed, `world`, has objects of its own.
    pub(super) fn numbered(world: u64, number: u64) -> Self {
        let mut rng = Rng::with_seed(world ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut digest = [0; 20];
        rng.fill(&mut digest);
        let algorithms = [HashAlgorithm::Sha1, HashAlgorithm::Ripemd160, HashAlgorithm::Shake128];
        let id = ObjectId::new(algorithms[rng.usize(..3)], digest);
        // As in a software repository: most files are small.
        let size = match rng.u8(..100) {
            0..2 => 0,
            2..85 => between(&mut rng, 1, 10 << 10),
            85..97 => between(&mut rng, 10 << 10, 100 << 10),
            _ => between(&mut rng, 100 << 10, 8 << 20),
        };
        let object_type = match rng.u8(..10) {
            0 => ObjectType::Catalog,
            1 => ObjectType::Volatile,
            _ => ObjectType::Regular,
        };
        Self { id, object_type, size, seed: rng.u64(..) }
    }

    /// The same object, of another size.
    pub(super) fn with_size(self, size: u64) -> Self {
        Self { size, ..self }
    }

    pub(super) fn new_upload(&self) -> NewUpload {
        let upload = NewUpload::new(self.id).object_type(self.object_type);
        upload.description(self.description())
    }

    pub(super) fn description(&self) -> String {
        format!("/soak/{}", self.id)
    }

    /// Up to `len` bytes of the content, from `offset` on.
    pub(super) fn content(&self, offset: u64, len: usize) -> Bytes {
        let end = self.size.min(offset.saturating_add(len as u64));
        let len = end.saturating_sub(offset) as usize;
        let skip = (offset % BLOCK as u64) as usize;
        let first = offset / BLOCK as u64;
        let blocks = (skip + len).div_ceil(BLOCK);
        let mut content = vec![0; blocks * BLOCK];
        for (number, block) in (first..).zip(content.chunks_exact_mut(BLOCK)) {
            Rng::with_seed(self.seed.wrapping_add(number)).fill(block);
        }
        Bytes::from(content).slice(skip..skip + len)
    }

    pub(super) fn all_content(&self) -> Bytes {
        self.content(0, usize::try_from(self.size).unwrap_or(usize::MAX))
    }
}

/// A random number between the bounds, uniform in its logarithm.
fn between(rng: &mut Rng, min: u64, max: u64) -> u64 {
    let (low, high) = ((min as f64).ln(), (max as f64).ln());
    (low + rng.f64() * (high - low)).exp() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_content_equals_that_part_of_the_whole() {
        let object = Object::numbered(1, 1).with_size(20_000);
        let all = object.all_content();
        assert_eq!(all.len(), 20_000);
        for (offset, len) in [(0, 1), (4095, 2), (5000, 10_000), (19_999, 100), (20_000, 1)] {
            let end = all.len().min(offset + len);
            assert_eq!(object.content(offset as u64, len), all[offset..end]);
        }
    }

    #[test]
    fn an_object_follows_from_its_number_and_differs_from_others() {
        assert_eq!(Object::numbered(1, 7), Object::numbered(1, 7));
        assert_ne!(Object::numbered(1, 7).id, Object::numbered(1, 8).id);
        assert_ne!(Object::numbered(1, 7).id, Object::numbered(2, 7).id);
    }

    #[test]
    fn most_objects_are_small_and_some_are_large() {
        let sizes: Vec<_> = (0..2000).map(|number| Object::numbered(3, number).size).collect();
        let small = sizes.iter().filter(|size| **size < 10 << 10).count();
        let large = sizes.iter().filter(|size| **size >= 100 << 10).count();
        assert!(small > 1600 && (20..120).contains(&large), "{small} small, {large} large");
        assert!(sizes.iter().all(|size| *size <= 8 << 20));
    }
}
