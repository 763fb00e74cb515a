//! Which repository may see which object: a set per repository on the server, of what its own clients
//! have stored.
//!
//! The sets and the objects are two independent parts. Either may be missing, because objects are
//! evicted and sets are revoked at any time; what is in a set may have been stored by another
//! repository after it had gone.

use bytes::Bytes;
use cvmcache::Session;
use cvmcache::plugin::{ObjectId, PluginResult, Status};

use crate::link::Failure;
use crate::store::Store;

impl Store {
    /// The repository of a session, if it makes a difference.
    pub(crate) fn guarded(&self, session: &Session) -> Option<Bytes> {
        self.per_repository.then(|| Bytes::copy_from_slice(session.repository()))
    }

    /// Does what needs an object, if the repository may see it. Both questions are asked at once.
    pub(crate) async fn guard<T>(
        &self,
        repository: Option<&Bytes>,
        id: &ObjectId,
        work: impl Future<Output = PluginResult<T>>,
    ) -> Guarded<T> {
        let Some(repository) = repository else { return Guarded::Allowed(work.await) };
        let (done, member) = tokio::join!(work, self.is_member(repository, id));
        match member {
            Ok(true) => {
                if matches!(done, Err(Status::NoEntry)) {
                    self.forget_member(repository, id);
                }
                Guarded::Allowed(done)
            }
            Ok(false) => Guarded::Refused(done, Status::NoEntry),
            Err(failure) => Guarded::Refused(done, failure.into()),
        }
    }

    /// Lets a repository see an object.
    pub(crate) async fn add_member(&self, repository: &[u8], id: &ObjectId) -> Result<(), Failure> {
        let mut command = redis::cmd("SADD");
        command.arg(self.keys.repository(repository)).arg(id.to_string());
        self.link.command(&command).await
    }

    /// Lets a repository see nothing any more.
    pub(crate) async fn revoke(&self, repository: &[u8]) -> Result<(), Failure> {
        let mut command = redis::cmd("UNLINK");
        command.arg(self.keys.repository(repository));
        self.link.command(&command).await
    }

    async fn is_member(&self, repository: &[u8], id: &ObjectId) -> Result<bool, Failure> {
        let mut command = redis::cmd("SISMEMBER");
        command.arg(self.keys.repository(repository)).arg(id.to_string());
        self.link.command(&command).await
    }

    /// The object has gone; the set need not grow for it. Nobody waits for this, and if it fails,
    /// the next who asks tries again.
    fn forget_member(&self, repository: &[u8], id: &ObjectId) {
        let mut command = redis::cmd("SREM");
        command.arg(self.keys.repository(repository)).arg(id.to_string());
        let link = self.link.clone();
        self.runtime.spawn(async move {
            let _ = link.command::<()>(&command).await;
        });
    }
}

/// What came of work on an object.
pub(crate) enum Guarded<T> {
    Allowed(PluginResult<T>),
    /// What came of it is not for this repository, which gets this answer instead.
    Refused(PluginResult<T>, Status),
}

impl<T> Guarded<T> {
    pub(crate) fn into_result(self) -> PluginResult<T> {
        match self {
            Guarded::Allowed(result) => result,
            Guarded::Refused(_, status) => Err(status),
        }
    }
}
