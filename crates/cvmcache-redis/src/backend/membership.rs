//! Membership: a set for each repository, of the objects that its own clients have stored and may
//! read.
//!
//! The sets and the objects are independent. Either may be missing, because objects are evicted and sets
//! are revoked at any time; an object in a set may have been stored by another repository after it was
//! evicted.

use std::sync::Arc;

use cvmcache::plugin::ObjectId;

use super::Backend;
use crate::client::{Failure, Traits};

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

    /// Lets a repository see an object.
    pub(crate) async fn add_member(&self, repository: &[u8], id: &ObjectId) -> Result<(), Failure> {
        let mut command = redis::cmd("SADD");
        command.arg(self.keys.repository(repository)).arg(id.to_string());
        self.client.command(Traits::REPEATABLE, &command).await
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
