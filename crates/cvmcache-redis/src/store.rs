//! What all sessions of an instance share: the objects on the server, the leases on those that are open,
//! and the space that is left.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cvmcache::plugin::{ObjectId, PluginResult, Status};
use cvmcache::{ServerHandle, Session};

use crate::backend::Backend;
use crate::client::RedisClient;
use crate::config::Config;
use crate::eviction::Evictor;
use crate::leases::Leases;

/// What all sessions of an instance share.
pub(crate) struct Store {
    pub(crate) backend: Arc<Backend>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) evictor: Arc<Evictor>,
    /// How long what an instance has pinned or uploads outlives it.
    pub(crate) lease: Duration,
    per_repository: bool,
}

impl Store {
    pub(crate) fn new(config: &Config, client: RedisClient, server: ServerHandle) -> Self {
        let backend = Arc::new(Backend::new(config, client));
        let leases = Arc::new(Leases::new(Arc::clone(&backend), config.lease));
        let evictor = Evictor::new(Arc::clone(&backend), Arc::clone(&leases), config.size, server);
        Self {
            backend,
            leases,
            evictor: Arc::new(evictor),
            lease: config.lease,
            per_repository: config.per_repository,
        }
    }

    /// Blocks on the work of a callback until the deadline of a request.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = PluginResult<T>>) -> PluginResult<T> {
        self.backend.wait(async { Ok(work.await) })?
    }

    /// The repository of a session, if sessions see only the objects of theirs.
    pub(crate) fn repository(&self, session: &Session) -> Option<Bytes> {
        self.per_repository.then(|| Bytes::copy_from_slice(session.repository()))
    }

    /// Does work on an object, if the repository may see it. Work and membership test run concurrently; the
    /// result of work that is refused is dropped.
    pub(crate) async fn authorize<T>(
        &self,
        repository: Option<&Bytes>,
        id: &ObjectId,
        work: impl Future<Output = PluginResult<T>>,
    ) -> PluginResult<T> {
        let Some(repository) = repository else { return work.await };
        let (done, member) = tokio::join!(work, self.backend.is_member(repository, id));
        if !member? {
            return Err(Status::NoEntry);
        }
        if matches!(done, Err(Status::NoEntry)) {
            self.backend.remove_member(repository, id);
        }
        done
    }
}
