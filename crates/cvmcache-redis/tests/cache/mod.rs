//! Instances of the cache in this process, with the requests of clients.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::time::Duration;

use bytes::Bytes;
use cvmcache::plugin::*;
use cvmcache::{CachePlugin, ServerHandle, Session};
use cvmcache_redis::{Config, RedisCache};

use redis_test_servers::RedisServer;

/// An instance with a session of a repository.
pub(crate) struct Instance {
    pub(crate) cache: RedisCache,
    pub(crate) session: Session,
}

/// A configuration for a server, with timeouts that a busy machine keeps.
pub(crate) fn config(server: &RedisServer) -> Config {
    let mut config = Config::new(&server.url()).expect("a URL");
    config.timeout = Duration::from_secs(20);
    config
}

/// An instance on a server.
pub(crate) fn instance(server: &RedisServer) -> Instance {
    with(config(server))
}

/// An instance that renews its lease five times a second.
pub(crate) fn restless(server: &RedisServer) -> Instance {
    let mut config = config(server);
    config.lease = Duration::from_millis(600);
    with(config)
}

pub(crate) fn with(config: Config) -> Instance {
    let cache = RedisCache::new(config, ServerHandle::new()).expect("a cache");
    Instance { cache, session: Session::new(1, "test.cern.ch:1") }
}

/// The name of an object: `shard` is the first byte of the digest.
pub(crate) fn id(shard: u8, number: u8) -> ObjectId {
    let mut digest = [number; 20];
    digest[0] = shard;
    ObjectId::new(HashAlgorithm::Sha1, digest)
}

/// Content of which no two chunks are alike.
pub(crate) fn content(seed: u64, len: usize) -> Bytes {
    let mut content = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut content);
    content.into()
}

impl Instance {
    /// The same instance with another session.
    pub(crate) fn session(&mut self, name: &'static str) -> &mut Self {
        self.session = Session::new(self.session.id() + 1, name);
        self
    }

    pub(crate) fn begin(&self, id: ObjectId) -> PluginResult<Box<dyn Transaction>> {
        self.cache.begin(&self.session, NewObject::new(id))
    }

    /// Stores an object, and leaves it open.
    pub(crate) fn store(&self, id: ObjectId, data: &Bytes) -> PluginResult<()> {
        self.store_as(id, ObjectType::Regular, data)
    }

    pub(crate) fn store_as(
        &self,
        id: ObjectId,
        kind: ObjectType,
        data: &Bytes,
    ) -> PluginResult<()> {
        let mut new = NewObject::new(id);
        new.object_type = kind;
        let mut upload = self.cache.begin(&self.session, new)?;
        for part in data.chunks(PART) {
            upload.write(data.slice_ref(part))?;
        }
        upload.commit()
    }

    /// Stores an object, and closes it.
    pub(crate) fn leave(&self, id: ObjectId, data: &Bytes) {
        self.store(id, data).expect("it is stored");
        self.close(id).expect("it is closed");
    }

    pub(crate) fn open(&self, id: ObjectId) -> PluginResult<()> {
        self.cache.change_refcount(&self.session, &id, 1)
    }

    pub(crate) fn close(&self, id: ObjectId) -> PluginResult<()> {
        self.cache.change_refcount(&self.session, &id, -1)
    }

    pub(crate) fn exists(&self, id: ObjectId) -> PluginResult<()> {
        self.cache.change_refcount(&self.session, &id, 0)
    }

    pub(crate) fn read(&self, id: ObjectId, offset: u64, len: u32) -> PluginResult<Bytes> {
        Ok(self.cache.read(&self.session, &id, offset, len)?.into_bytes())
    }

    /// The whole object, read in parts as a client does.
    pub(crate) fn read_all(&self, id: ObjectId) -> PluginResult<Bytes> {
        let size = self.cache.object_info(&self.session, &id)?.size;
        let mut all = Vec::new();
        while (all.len() as u64) < size {
            all.extend(self.read(id, all.len() as u64, PART as u32)?);
        }
        Ok(all.into())
    }

    pub(crate) fn info(&self) -> CacheInfo {
        self.cache.info(Some(&self.session)).expect("it is there")
    }

    pub(crate) fn shrink(&self, target: u64) -> u64 {
        self.cache.shrink(&self.session, target).expect("it shrinks")
    }

    pub(crate) fn list(&self, kind: ObjectType) -> Vec<ListEntry> {
        let listing = self.cache.list(&self.session, kind).expect("it is there");
        listing.collect::<PluginResult<_>>().expect("all of it")
    }
}

pub(crate) use cvmcache::Transaction;

/// The size of the parts that clients send.
pub(crate) const PART: usize = 256 * 1024;

/// The keys on a server that match a pattern, sorted.
pub(crate) fn keys(server: &RedisServer, pattern: &str) -> Vec<String> {
    let mut keys: Vec<String> = server.ask(redis::cmd("KEYS").arg(pattern));
    keys.sort();
    keys
}

/// All keys but the one that has the size of the cache.
pub(crate) fn objects(server: &RedisServer) -> Vec<String> {
    let mut keys = keys(server, "*");
    keys.retain(|key| !key.ends_with(":1:size"));
    keys
}
