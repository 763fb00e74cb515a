//! Membership: a set for each repository, of the objects that its own clients have stored and may
//! read.
//!
//! The sets and the objects are independent. Either may be missing, because objects are evicted and sets
//! are revoked at any time; an object in a set may have been stored by another repository after it was
//! evicted.

use std::sync::Arc;
use std::time::Duration;

use cvmcache::plugin::ObjectId;

use super::Backend;
use crate::client::{Failure, Traits};

/// How long the set of a repository lasts that stores nothing.
const MEMBERS_EXPIRY: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many members are removed at once.
const SPOP_LIMIT: u64 = 100;

/// Bytes of the cache for each member of a set: most objects are larger. A member takes about 100 bytes.
pub(super) const BYTES_PER_MEMBER: u64 = 4096;

impl Backend {
    pub(crate) async fn is_member(
        &self,
        repository: &[u8],
        id: &ObjectId,
    ) -> Result<bool, Failure> {
        let mut command = redis::cmd("SISMEMBER");
        command.arg(self.keys.repository(repository)).arg(id.to_string());
        self.client.command(Traits::REPEATABLE, &command).await
    }

    /// Lets a repository see an object. A set has an end: objects that are evicted stay in it until a client of
    /// the repository asks for them, so that members are removed at random when there are more than a cache of
    /// this size has objects. One that is there still is fetched anew by the next client. A repository
    /// that stores nothing for [`MEMBERS_EXPIRY`] has no set any more.
    pub(crate) async fn add_member(&self, repository: &[u8], id: &ObjectId) -> Result<(), Failure> {
        let key = self.keys.repository(repository);
        let mut pipeline = redis::pipe();
        pipeline.cmd("SADD").arg(&key).arg(id.to_string()).ignore();
        pipeline.cmd("PEXPIRE").arg(&key).arg(MEMBERS_EXPIRY.as_millis() as u64).ignore();
        pipeline.cmd("SCARD").arg(&key);
        let (members,): (u64,) = self.client.pipeline(Traits::REPEATABLE, &pipeline).await?;
        let excess = members.saturating_sub(self.max_members).min(SPOP_LIMIT);
        if excess > 0 {
            let mut command = redis::cmd("SPOP");
            self.client.command::<()>(Traits::ONCE, command.arg(&key).arg(excess)).await?;
        }
        Ok(())
    }

    /// Removes an object that is gone from the set of a repository, in the background. If that fails, the
    /// next request for the object does it.
    pub(crate) fn remove_member(self: &Arc<Self>, repository: &[u8], id: &ObjectId) {
        let mut command = redis::cmd("SREM");
        command.arg(self.keys.repository(repository)).arg(id.to_string());
        let backend = Arc::clone(self);
        self.spawn(async move {
            let _ = backend.client.command::<()>(Traits::ONCE, &command).await;
        });
    }

    /// Lets a repository see no object any more.
    pub(crate) async fn revoke(&self, repository: &[u8]) -> Result<(), Failure> {
        let mut command = redis::cmd("UNLINK");
        command.arg(self.keys.repository(repository));
        self.client.command(Traits::REPEATABLE, &command).await
    }
}
