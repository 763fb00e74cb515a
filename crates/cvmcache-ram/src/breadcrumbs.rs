//! Breadcrumbs: the last known root catalog of each repository, until the process receives SIGUSR2.

use std::collections::HashMap;
use std::io;
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cvmcache::plugin::{Breadcrumb, PluginResult, Status};
use parking_lot::{Mutex, MutexGuard};
use signal_hook::consts::SIGUSR2;

/// The breadcrumbs of all repositories, within a bound that no site comes near to.
#[derive(Debug, Default)]
pub(crate) struct Breadcrumbs {
    kept: Mutex<Kept>,
    forget: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Kept {
    by_repository: HashMap<Box<[u8]>, Breadcrumb>,
    bytes: usize,
}

impl Breadcrumbs {
    /// Forgets all of them whenever the process receives SIGUSR2.
    ///
    /// # Errors
    ///
    /// If the handler cannot be installed.
    pub(crate) fn forget_on_signal(&self) -> io::Result<()> {
        signal_hook::flag::register(SIGUSR2, Arc::clone(&self.forget)).map(|_| ())
    }

    pub(crate) fn store(&self, repository: &[u8], breadcrumb: Breadcrumb) -> PluginResult<()> {
        let mut kept = self.kept();
        if let Some(known) = kept.by_repository.get_mut(repository) {
            *known = breadcrumb;
            return Ok(());
        }
        let bytes = kept.bytes + repository.len() + ENTRY_BYTES;
        if bytes > MAX_BYTES {
            return Err(Status::NoSpace);
        }
        kept.bytes = bytes;
        kept.by_repository.insert(repository.into(), breadcrumb);
        Ok(())
    }

    pub(crate) fn load(&self, repository: &[u8]) -> PluginResult<Breadcrumb> {
        self.kept().by_repository.get(repository).copied().ok_or(Status::NoEntry)
    }

    /// How many repositories have one, and the memory that they take.
    pub(crate) fn len_and_bytes(&self) -> (usize, usize) {
        let kept = self.kept();
        (kept.by_repository.len(), kept.bytes)
    }

    /// Forgets all of them, as on the signal. Returns how many there were.
    pub(crate) fn forget(&self) -> usize {
        let mut kept = self.kept();
        let kept = std::mem::take(&mut *kept);
        kept.by_repository.len()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock();
        if self.forget.swap(false, Ordering::Relaxed) {
            tracing::info!("forgetting all {} breadcrumbs", kept.by_repository.len());
            *kept = Kept::default();
        }
        kept
    }
}

/// Breadcrumbs do not count as used, so they are bounded: by memory, since names can be long. Names
/// of common length come to about 64 Ki.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// An entry in a hash table that is half full, and the allocation of the name.
const ENTRY_BYTES: usize = 2 * size_of::<(Box<[u8]>, Breadcrumb)>() + 32;

#[cfg(test)]
mod tests {
    use cvmcache::plugin::{HashAlgorithm, ObjectId};

    use super::*;

    fn breadcrumb(timestamp: u64) -> Breadcrumb {
        let catalog = ObjectId::new(HashAlgorithm::Shake128, [1; 20]);
        Breadcrumb { catalog, timestamp, revision: None }
    }

    #[test]
    fn the_last_breadcrumb_of_a_repository_is_kept() {
        let breadcrumbs = Breadcrumbs::default();
        assert_eq!(breadcrumbs.load(b"caf\xe9"), Err(Status::NoEntry));
        breadcrumbs.store(b"caf\xe9", breadcrumb(1)).unwrap();
        breadcrumbs.store(b"caf\xe9", breadcrumb(2)).unwrap();
        assert_eq!(breadcrumbs.load(b"caf\xe9"), Ok(breadcrumb(2)));
        assert_eq!(breadcrumbs.load(b"cafe"), Err(Status::NoEntry));
    }

    #[test]
    fn the_number_of_breadcrumbs_is_limited_and_known_repositories_are_still_updated() {
        let breadcrumbs = Breadcrumbs::default();
        let store = |n: u32| breadcrumbs.store(format!("r{n}.cern.ch").as_bytes(), breadcrumb(1));
        let stored = (0..).take_while(|&n| store(n).is_ok()).count();
        assert!((64 * 1024..256 * 1024).contains(&stored), "{stored}");
        assert_eq!(breadcrumbs.store(b"r0.cern.ch", breadcrumb(2)), Ok(()));
        assert_eq!(breadcrumbs.store(&[b'x'; 4096], breadcrumb(2)), Err(Status::NoSpace));
        assert_eq!(breadcrumbs.load(b"r0.cern.ch"), Ok(breadcrumb(2)));
    }

    #[test]
    fn sigusr2_drops_all_breadcrumbs() {
        let breadcrumbs = Breadcrumbs::default();
        breadcrumbs.forget_on_signal().unwrap();
        breadcrumbs.store(b"test.cern.ch", breadcrumb(1)).unwrap();
        signal_hook::low_level::raise(SIGUSR2).unwrap();
        assert_eq!(breadcrumbs.load(b"test.cern.ch"), Err(Status::NoEntry));
        breadcrumbs.store(b"test.cern.ch", breadcrumb(2)).unwrap();
        assert_eq!(breadcrumbs.load(b"test.cern.ch"), Ok(breadcrumb(2)));
    }
}
