//! Breadcrumbs: the last known root catalog of each repository. They are bounded in number, and the least
//! recently stored one goes first.

use cvmcache::plugin::{Breadcrumb, HashAlgorithm, ObjectId, Status};

use super::{Backend, USAGE_TRAITS};
use crate::client::Failure;
use crate::integrity::{Authenticator, TAG_LEN, matches};
use crate::keys::Shard;

/// How many breadcrumbs a shard keeps: 65,536 in all, as many as the RAM cache keeps of names of common length.
/// With about 250 bytes each they come to 16 MB at most, which do not count as used.
const MAX_IN_SHARD: usize = 256;

/// What the server takes for one, about.
pub(crate) const BYTES_EACH: u64 = 250;

impl Backend {
    /// How many breadcrumbs there are.
    pub(crate) async fn breadcrumbs(&self) -> Result<u64, Failure> {
        let mut pipeline = redis::pipe();
        for shard in Shard::all() {
            pipeline.cmd("ZCARD").arg(self.keys.breadcrumbs(shard));
        }
        let counts: Vec<u64> = self.client.pipeline(USAGE_TRAITS, &pipeline).await?;
        Ok(counts.into_iter().fold(0, u64::saturating_add))
    }

    pub(crate) async fn store_breadcrumb(
        &self,
        repository: &[u8],
        kept: Breadcrumb,
    ) -> Result<(), Failure> {
        let (shard, name) = place(repository);
        let encoded = encode(repository, &self.authenticator, &kept);
        let call = self.scripts.store_breadcrumb(shard, &name, &encoded, MAX_IN_SHARD);
        self.client.script(&call).await
    }

    pub(crate) async fn load_breadcrumb(&self, repository: &[u8]) -> Result<Breadcrumb, Status> {
        let (shard, name) = place(repository);
        let call = self.scripts.load_breadcrumb(shard, &name, LEN);
        let bytes: Vec<u8> = self.client.script(&call).await?;
        if bytes.is_empty() {
            return Err(Status::NoEntry);
        }
        decode(repository, &self.authenticator, &bytes).ok_or_else(|| {
            let repository = repository.escape_ascii();
            tracing::warn!(%repository, "the breadcrumb does not verify");
            Status::NoEntry
        })
    }
}

/// Where the breadcrumb of a repository is: its shard, and its name there. A digest, because names of
/// repositories have any length up to that of a frame.
fn place(repository: &[u8]) -> (Shard, String) {
    let digest = blake3::hash(repository);
    (Shard::of_digest(digest.as_bytes()), digest.to_hex()[..32].to_owned())
}

/// Algorithm, digest, timestamp, whether there is a revision, the revision, and the tag.
const LEN: usize = 1 + ObjectId::DIGEST_LEN + 8 + 1 + 8 + TAG_LEN;

fn encode(repository: &[u8], authenticator: &Authenticator, breadcrumb: &Breadcrumb) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LEN);
    // The numbers of the wire are 1 to 3.
    bytes.push(breadcrumb.catalog.algorithm().to_wire() as u8);
    bytes.extend(breadcrumb.catalog.digest());
    bytes.extend(breadcrumb.timestamp.to_le_bytes());
    bytes.push(breadcrumb.revision.is_some().into());
    bytes.extend(breadcrumb.revision.unwrap_or(0).to_le_bytes());
    bytes.extend(authenticator.breadcrumb(repository, &bytes));
    bytes
}

fn decode(repository: &[u8], authenticator: &Authenticator, bytes: &[u8]) -> Option<Breadcrumb> {
    let (body, tag) = bytes.split_at_checked(LEN - TAG_LEN)?;
    if !matches(&authenticator.breadcrumb(repository, body), tag) {
        return None;
    }
    let (algorithm, rest) = body.split_first()?;
    let (digest, rest) = rest.split_first_chunk()?;
    let (timestamp, rest) = rest.split_first_chunk()?;
    let (has_revision, revision) = rest.split_first()?;
    let revision = u64::from_le_bytes(revision.try_into().ok()?);
    Some(Breadcrumb {
        catalog: ObjectId::new(HashAlgorithm::from_wire((*algorithm).into())?, *digest),
        timestamp: u64::from_le_bytes(*timestamp),
        revision: (*has_revision == 1).then_some(revision),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breadcrumb_is_decoded_only_if_its_tag_verifies() {
        let authenticator = Authenticator::new(Some(&[1; 32]));
        let catalog = ObjectId::new(HashAlgorithm::Shake128, [3; 20]);
        for revision in [None, Some(0), Some(u64::MAX)] {
            let breadcrumb = Breadcrumb { catalog, timestamp: 7, revision };
            let bytes = encode(b"a.cern.ch", &authenticator, &breadcrumb);
            assert_eq!(bytes.len(), LEN);
            assert_eq!(decode(b"a.cern.ch", &authenticator, &bytes), Some(breadcrumb));
            assert_eq!(decode(b"b.cern.ch", &authenticator, &bytes), None);
            assert_eq!(decode(b"a.cern.ch", &Authenticator::new(None), &bytes), None);
            for bit in 0..8 * LEN {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(b"a.cern.ch", &authenticator, &flipped), None);
            }
            for len in 0..LEN {
                assert_eq!(decode(b"a.cern.ch", &authenticator, &bytes[..len]), None);
            }
            assert_eq!(decode(b"a.cern.ch", &authenticator, &[&bytes[..], b"x"].concat()), None);
        }
    }
}
