//! Tests of a tier above a disk cache, with a store in memory that fails as it is told.

mod archiving;
mod maintaining;
mod ranges;
mod recalling;
mod restarts;
mod store;
mod writing;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cvmcache::plugin::{HashAlgorithm, NewObject, ObjectId, ObjectType, PluginResult};
use cvmcache::{CachePlugin, ServerHandle, Session};
use cvmcache_disk::{Config, DiskCache, Quota};
use tempfile::TempDir;
use url::Url;

use crate::cold::StoreSettings;
use crate::config::TierConfig;
use crate::jobs::Progress;
use crate::markers::{Marker, State};
use crate::tiered::Tiered;
use store::TestStore;

/// A tier on a directory of its own, and its store.
struct Test {
    directory: TempDir,
    store: Arc<TestStore>,
    config: TierConfig,
    session: Session,
}

impl Test {
    fn new() -> Self {
        let mut settings = StoreSettings::new(Url::parse("memory:///").expect("a URL"));
        settings.timeout = Duration::from_millis(100);
        let mut config = TierConfig::new(settings);
        config.archive_after = None;
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            store: Arc::new(TestStore::default()),
            config,
            session: Session::new(1, "test.example.org"),
        }
    }

    fn cache_directory(&self) -> &Path {
        self.directory.path()
    }

    fn start(&self) -> Tiered<DiskCache> {
        let config = Config::managed(self.cache_directory(), Quota::Bytes(1 << 30));
        let disk = DiskCache::new(&config, ServerHandle::new()).expect("a cache");
        let store = Arc::clone(&self.store);
        Tiered::new(disk, store, self.cache_directory(), self.config.clone()).expect("a tier")
    }

    /// Stores an object, which stays open.
    fn store_open(
        &self,
        cache: &impl CachePlugin,
        id: &ObjectId,
        content: &[u8],
    ) -> PluginResult<()> {
        let mut object = NewObject::new(*id);
        object.description = Some(Bytes::from_static(b"/a name\n"));
        let mut upload = cache.begin(&self.session, object)?;
        for part in content.chunks(1 << 20) {
            upload.write(Bytes::copy_from_slice(part))?;
        }
        upload.commit()
    }

    fn close(&self, cache: &impl CachePlugin, id: &ObjectId) {
        cache.change_refcount(&self.session, id, -1).expect("it was open");
    }

    fn store(&self, cache: &impl CachePlugin, id: &ObjectId, content: &[u8]) {
        self.store_open(cache, id, content).expect("it is stored");
        self.close(cache, id);
    }

    /// Opens, reads and closes an object.
    fn read(&self, cache: &impl CachePlugin, id: &ObjectId) -> PluginResult<Vec<u8>> {
        cache.change_refcount(&self.session, id, 1)?;
        let info = cache.object_info(&self.session, id)?;
        let mut content = Vec::new();
        while (content.len() as u64) < info.size {
            let read = cache.read(&self.session, id, content.len() as u64, 1 << 20)?;
            assert!(!read.is_empty());
            content.extend_from_slice(&read.into_bytes());
        }
        self.close(cache, id);
        Ok(content)
    }

    /// Archives all that is not open.
    fn archive(&self, cache: &Tiered<DiskCache>) -> Progress {
        let tier = &cache.tier;
        let progress = Progress::default();
        let later = SystemTime::now() + Duration::from_secs(3600);
        let idle = crate::hot::HotTier::idle_objects(&tier.hot, later);
        tier.runtime.block_on(tier.archive(idle, &progress)).expect("markers can be written");
        progress
    }

    fn is_local(&self, cache: &Tiered<DiskCache>, id: &ObjectId) -> bool {
        crate::hot::HotTier::object(&cache.tier.hot, id).is_ok()
    }

    fn marker(&self, cache: &Tiered<DiskCache>, id: &ObjectId) -> Option<Marker> {
        cache.tier.markers.get(id).expect("markers can be read")
    }

    fn state(&self, cache: &Tiered<DiskCache>, id: &ObjectId) -> Option<State> {
        self.marker(cache, id).map(|marker| marker.state)
    }
}

fn id(number: u32) -> ObjectId {
    let digest = blake3::hash(&number.to_le_bytes());
    let mut bytes = [0; ObjectId::DIGEST_LEN];
    bytes.copy_from_slice(&digest.as_bytes()[..ObjectId::DIGEST_LEN]);
    ObjectId::new(HashAlgorithm::Sha1, bytes)
}

/// So many bytes that differ from those of another `number`.
fn content(number: u32, len: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
    let mut content = vec![0; len];
    reader.fill(&mut content);
    content
}

const REGULAR: ObjectType = ObjectType::Regular;
