//! The objects of a benchmark: random ids, and random content.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cvmcache::client::{Client, ClientError, NewUpload, StorePart};
use cvmcache::plugin::{HashAlgorithm, ObjectId};

use super::mount::traffic;
use super::size_distribution::REPOSITORY;

/// The description of all objects.
pub(super) const DESCRIPTION: &[u8] = b"cvmcache bench";

/// (1 + √5) / 2, without the integer part.
const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;

/// The size of the buffer that all content is sliced from, in bytes.
const CONTENT: usize = 4 * 1024 * 1024;

/// An object that is stored, or could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) id: ObjectId,
    pub(super) size: u64,
}

/// The sizes of objects.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sizes {
    All(u64),
    /// As in a software repository, see `size_distribution`.
    Repository,
    /// As those that a mount opens, see `mount::traffic`. The same in each run.
    Mount,
}

/// The objects that a workload requests, each with the same probability.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    /// A few that are kept open.
    Open(Arc<[Object]>),
    /// The first objects of a generator, as many as that.
    Closed(Generator, u64),
}

impl Pool {
    pub(super) fn any(&self) -> Object {
        match self {
            Self::Open(objects) => objects[fastrand::usize(..objects.len())],
            Self::Closed(generator, count) => generator.object(fastrand::u64(..*count)),
        }
    }
}

/// A generator of objects: each follows from its number, so none has to be kept.
///
/// The digests are random, and new in each run, so they are those of no files.
#[derive(Debug, Clone)]
pub(super) struct Generator {
    seed: u64,
    sizes: Sizes,
    content: Bytes,
}

impl Generator {
    pub(super) fn new(sizes: Sizes) -> Self {
        let mut bytes = vec![0; CONTENT];
        fastrand::fill(&mut bytes);
        Self { seed: fastrand::u64(..), sizes, content: bytes.into() }
    }

    /// An object by its number.
    pub(super) fn object(&self, number: u64) -> Object {
        let mut random = self.random(number);
        let size = match self.sizes {
            Sizes::All(size) => size,
            Sizes::Repository => REPOSITORY.at(random.f64()),
            Sizes::Mount => traffic::SIZES.at(spread(number)),
        };
        self.make(&mut random, size)
    }

    /// `count` objects whose sizes are spread as evenly as they can be.
    pub(super) fn sample(&self, count: usize) -> Vec<Object> {
        let fraction = |n: usize| (n as f64 + 0.5) / count as f64;
        let size = |n| match self.sizes {
            Sizes::All(size) => size,
            Sizes::Repository => REPOSITORY.at(fraction(n)),
            Sizes::Mount => traffic::SIZES.at(fraction(n)),
        };
        (0..count).map(|n| self.make(&mut self.random(n as u64), size(n))).collect()
    }

    /// The mean size of the objects, in bytes.
    pub(super) fn mean_size(&self) -> f64 {
        match self.sizes {
            Sizes::All(size) => size as f64,
            Sizes::Repository => REPOSITORY.mean(),
            Sizes::Mount => traffic::SIZES.mean(),
        }
    }

    /// A part of an upload of `object`, from 1, of at most `part_size` bytes. Parts up to that
    /// size are cut from the content without copying it.
    pub(super) fn part(&self, object: &Object, number: u64, part_size: usize) -> StorePart {
        let first = (number - 1) * part_size as u64;
        let left = object.size.saturating_sub(first);
        let len = left.min(part_size as u64) as usize;
        let data = self.content.slice(range(object, number, len));
        StorePart {
            expected_size: Some(object.size),
            description: (number == 1).then(|| Bytes::from_static(DESCRIPTION)),
            ..StorePart::new(object.id, number, left <= part_size as u64, data)
        }
    }

    /// Stores an object and leaves it open.
    pub(super) fn store(&self, client: &mut Client, object: &Object) -> Result<(), ClientError> {
        let new = NewUpload::new(object.id).expected_size(object.size).description(DESCRIPTION);
        let mut upload = client.begin_upload(new);
        loop {
            let part = self.part(object, upload.next_part(), client.max_object_size());
            if part.last {
                return upload.commit(client, part.data);
            }
            upload.write(client, part.data)?;
        }
    }

    fn random(&self, number: u64) -> fastrand::Rng {
        // Neighbouring seeds have little in common once the first numbers are drawn.
        let mut random = fastrand::Rng::with_seed(self.seed.wrapping_add(number));
        random.u64(..);
        random
    }

    fn make(&self, random: &mut fastrand::Rng, size: u64) -> Object {
        let mut digest = [0; ObjectId::DIGEST_LEN];
        random.fill(&mut digest);
        Object { id: ObjectId::new(HashAlgorithm::Sha1, digest), size }
    }
}

/// The Weyl sequence of the golden ratio: numbers from 0 to 1, each range of which is spread evenly.
fn spread(number: u64) -> f64 {
    (number as f64 * GOLDEN_RATIO).fract()
}

/// The range of the content that is a part: it differs between objects and parts.
fn range(object: &Object, number: u64, len: usize) -> Range<usize> {
    let digest = object.id.digest();
    let spread = u64::from_le_bytes([
        digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7],
    ]);
    let first = spread.wrapping_add(number.wrapping_mul(4099)) % (CONTENT - len + 1) as u64;
    first as usize..first as usize + len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_follows_from_its_number() {
        let generator = Generator::new(Sizes::Repository);
        assert_eq!(generator.object(7), generator.object(7));
        assert_ne!(generator.object(7).id, generator.object(8).id);
        assert_ne!(generator.object(7).id, Generator::new(Sizes::Repository).object(7).id);
    }

    #[test]
    fn the_parts_of_an_object_are_its_content() {
        let part_size = 4096;
        for size in [0, 1, 4096, 4097, 3 * 4096] {
            let generator = Generator::new(Sizes::All(size));
            let object = generator.object(1);
            let (mut sum, mut number) = (0, 0);
            loop {
                number += 1;
                let part = generator.part(&object, number, part_size);
                assert_eq!((part.number, part.object), (number, object.id));
                sum += part.data.len() as u64;
                if part.last {
                    break;
                }
                assert_eq!(part.data.len(), part_size);
            }
            assert_eq!((sum, number), (size, size.div_ceil(4096).max(1)));
        }
    }

    #[test]
    fn sampled_sizes_have_the_mean_of_the_distribution() {
        let generator = Generator::new(Sizes::Repository);
        let sample = generator.sample(1000);
        let mean = sample.iter().map(|object| object.size as f64).sum::<f64>() / 1000.0;
        assert!((mean / generator.mean_size() - 1.0).abs() < 0.2, "{mean}");
    }
}
