//! The markers: which objects the store has, and what to make of them. They are in a database on this node, beside
//! the hot tier.
//!
//! | state | bytes here | in the store | after a restart |
//! |---|---|---|---|
//! | LOCAL, without a marker | yes | no | LOCAL |
//! | [`Local`](State::Local) | yes, or evicted for room | yes | the same: recalled if they are not here |
//! | [`Remote`](State::Remote) | no | yes | the same; LOCAL if a recall had ended |
//! | DOWNLOADING: in no database | arriving | yes | REMOTE: what had arrived is gone |
//! | [`Repair`](State::Repair) | about to go | yes | they go if the object is not open: REMOTE, else LOCAL |
//! | [`Error`](State::Error) | no | bad or missing | the same; LOCAL once a client stores it again |
#![allow(clippy::result_large_err, reason = "the errors are redb's, and rare")]

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io, iter};

use cvmcache::plugin::{HashAlgorithm, ObjectId, ObjectType};
use parking_lot::{Mutex, RwLock};
use redb::{Database, DatabaseError, Durability, ReadableTable, TableDefinition};
use thiserror::Error;

use crate::header::HeaderDigest;

/// What is known of an object that the store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) state: State,
    pub(crate) object_type: ObjectType,
    /// The length of the content in bytes.
    pub(crate) len: u64,
    /// When it was archived, in seconds since 1970.
    pub(crate) archived: u64,
    /// What is stored, and so the key.
    pub(crate) digest: HeaderDigest,
}

/// Where the bytes of an object with a marker are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum State {
    /// Here, and in the store as well.
    Local,
    /// In the store.
    Remote,
    /// Archived, but what is here has not gone yet.
    Repair,
    /// The store has lost or damaged it.
    Error,
}

/// How many objects are in a state, and how long they are together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// A change of a marker: `None` removes it.
pub(crate) type Change = (ObjectId, Option<Marker>);

/// Why markers cannot be read or written.
#[derive(Debug, Error)]
#[error("the markers in {}: {source}", path.display())]
pub(crate) struct MarkersError {
    path: PathBuf,
    source: Box<redb::Error>,
}

/// The markers of one cache.
#[derive(Debug)]
pub(crate) struct Markers {
    path: PathBuf,
    /// `None` after an error of the disk, while it cannot be opened again. Locked after `counts`.
    database: RwLock<Option<Database>>,
    /// The disk has failed, as by being full: redb refuses all from then on, until the file is opened again.
    has_failed: AtomicBool,
    next_reopen: Mutex<Instant>,
    /// The counts as of the last commit. Invariant: locked during a commit, so the two agree.
    counts: Mutex<Counts>,
    /// Commits since the last durable one. Until that, redb cannot use their pages again, and the file grows.
    undurable: AtomicU32,
    cache_id: String,
}

type Counts = [Count; State::ALL.len()];
type Key = [u8; 1 + ObjectId::DIGEST_LEN];
type Value = [u8; 50];

const MARKERS: TableDefinition<'_, Key, Value> = TableDefinition::new("markers");
/// By [`State`]: objects and bytes, so that a status needs no scan.
const COUNTS: TableDefinition<'_, u8, (u64, u64)> = TableDefinition::new("counts");
/// Objects that are to be written back, in their order.
const QUEUE: TableDefinition<'_, u64, Key> = TableDefinition::new("queue");
const ABOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("about");
const CACHE_ID: &str = "cache";

/// What redb keeps of the file in memory: ten million markers take 1 GB of it on disk.
const MEMORY: usize = 64 * 1024 * 1024;

/// A page of some 70 KB.
const PAGE: usize = 1000;

/// A commit that is not durable takes some 40 KB of the file until the next one that is.
const MAX_UNDURABLE: u32 = 100;

/// Between attempts to open the file again: each reads it, and a full disk stays full for a while.
const REOPEN_INTERVAL: Duration = Duration::from_secs(10);

impl Markers {
    /// Opens the markers in this file, or makes it. A file that is damaged is moved aside: its path is returned, and
    /// `cvmcache tier rebuild` makes the markers again.
    pub(crate) fn open(path: &Path) -> Result<(Self, Option<PathBuf>), MarkersError> {
        match guarded(|| Self::try_open(path)) {
            Ok(markers) => Ok((markers, None)),
            Err(redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_)) => Self::replace(path),
            Err(redb::Error::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Self::replace(path)
            }
            Err(source) => Err(MarkersError { path: path.to_owned(), source: Box::new(source) }),
        }
    }

    fn replace(path: &Path) -> Result<(Self, Option<PathBuf>), MarkersError> {
        let error = |source| MarkersError { path: path.to_owned(), source: Box::new(source) };
        let aside = path.with_extension("damaged");
        fs::rename(path, &aside).map_err(|io| error(redb::Error::Io(io)))?;
        let markers = guarded(|| Self::try_open(path)).map_err(error)?;
        Ok((markers, Some(aside)))
    }

    fn try_open(path: &Path) -> Result<Self, redb::Error> {
        let database =
            Database::builder().set_cache_size(MEMORY).create(path).map_err(|error| {
                match error {
                    // The one error that is not of this file.
                    DatabaseError::DatabaseAlreadyOpen => redb::Error::DatabaseAlreadyOpen,
                    other => other.into(),
                }
            })?;
        let transaction = database.begin_write()?;
        let mut counts = [Count::default(); State::ALL.len()];
        let cache_id = {
            transaction.open_table(MARKERS)?;
            transaction.open_table(QUEUE)?;
            let stored = transaction.open_table(COUNTS)?;
            for state in State::ALL {
                let stored = stored.get(state.to_byte())?.map(|count| count.value());
                let (objects, bytes) = stored.unwrap_or_default();
                counts[state as usize] = Count { objects, bytes };
            }
            let mut about = transaction.open_table(ABOUT)?;
            let known = about.get(CACHE_ID)?.map(|id| id.value().to_owned());
            match known {
                Some(id) => id,
                None => {
                    let id = format!("{:032x}", fastrand::u128(..));
                    about.insert(CACHE_ID, id.as_str())?;
                    id
                }
            }
        };
        transaction.commit()?;
        Ok(Self {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
            has_failed: AtomicBool::new(false),
            next_reopen: Mutex::new(Instant::now()),
            counts: Mutex::new(counts),
            undurable: AtomicU32::new(0),
            cache_id,
        })
    }

    /// Opens the file again if its disk has failed. What was not durable then is as it was before.
    fn reopen_if_failed(&self, now: Instant) {
        if !self.has_failed.load(Ordering::Acquire) {
            return;
        }
        {
            let mut next = self.next_reopen.lock();
            if now < *next {
                return;
            }
            *next = now + REOPEN_INTERVAL;
        }
        let mut counts = self.counts.lock();
        let mut database = self.database.write();
        let reopened = guarded(|| {
            // The lock of the file goes with it.
            drop(database.take());
            Self::try_open(&self.path)
        });
        match reopened {
            Ok(reopened) => {
                *counts = reopened.counts.into_inner();
                *database = reopened.database.into_inner();
                self.has_failed.store(false, Ordering::Release);
                tracing::info!("the markers in {} are open again", self.path.display());
            }
            Err(error) => tracing::warn!("cannot open {} again: {error}", self.path.display()),
        }
    }

    /// What tells this cache from others with the same store.
    pub(crate) fn cache_id(&self) -> &str {
        &self.cache_id
    }

    /// The marker of an object.
    pub(crate) fn get(&self, id: &ObjectId) -> Result<Option<Marker>, MarkersError> {
        self.run(|database| {
            let table = database.begin_read()?.open_table(MARKERS)?;
            Ok(table.get(to_key(id))?.and_then(|value| Marker::decode(&value.value())))
        })
    }

    /// Makes all of these changes, or none. `durable` ones have survived a power cut when this returns; the others
    /// will with the next that is.
    pub(crate) fn apply(&self, changes: &[Change], durable: bool) -> Result<(), MarkersError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.update(changes.iter().copied(), durable, |_| true)
    }

    /// Changes the state of an object, unless its marker is another one by now.
    pub(crate) fn set_state(
        &self,
        id: &ObjectId,
        expected: &Marker,
        state: State,
    ) -> Result<(), MarkersError> {
        let change = (*id, Some(Marker { state, ..*expected }));
        self.update([change].into_iter(), false, |old| old == Some(*expected))
    }

    fn update(
        &self,
        changes: impl Iterator<Item = Change>,
        durable: bool,
        applies: impl Fn(Option<Marker>) -> bool,
    ) -> Result<(), MarkersError> {
        self.reopen_if_failed(Instant::now());
        let mut counts = self.counts.lock();
        // Invariant: changed with the counts locked.
        let undurable = self.undurable.load(Ordering::Relaxed);
        let durable = durable || undurable >= MAX_UNDURABLE;
        let mut new = *counts;
        self.run_on_open(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(if durable {
                Durability::Immediate
            } else {
                Durability::None
            });
            {
                let mut table = transaction.open_table(MARKERS)?;
                for (id, marker) in changes {
                    let key = to_key(&id);
                    let old = table.get(key)?.and_then(|value| Marker::decode(&value.value()));
                    if !applies(old) || old == marker {
                        continue;
                    }
                    match marker {
                        Some(marker) => table.insert(key, marker.encode())?,
                        None => table.remove(key)?,
                    };
                    if let Some(old) = old {
                        new[old.state as usize].remove(old.len);
                    }
                    if let Some(marker) = marker {
                        new[marker.state as usize].add(marker.len);
                    }
                }
                let mut table = transaction.open_table(COUNTS)?;
                for state in State::ALL {
                    let Count { objects, bytes } = new[state as usize];
                    table.insert(state.to_byte(), (objects, bytes))?;
                }
            }
            transaction.commit()?;
            Ok(())
        })?;
        *counts = new;
        self.undurable.store(if durable { 0 } else { undurable + 1 }, Ordering::Relaxed);
        Ok(())
    }

    /// Makes all changes up to now durable.
    pub(crate) fn sync(&self) -> Result<(), MarkersError> {
        self.update(iter::empty(), true, |_| true)
    }

    /// How many objects are in each state, without looking at them.
    pub(crate) fn counts(&self) -> [(State, Count); State::ALL.len()] {
        let counts = *self.counts.lock();
        State::ALL.map(|state| (state, counts[state as usize]))
    }

    /// All markers in the order of their ids, in pages. Those that come or go meanwhile may be among them or not.
    pub(crate) fn pages(
        &self,
    ) -> impl Iterator<Item = Result<Vec<(ObjectId, Marker)>, MarkersError>> {
        let mut after = None;
        iter::from_fn(move || match self.page(after.as_ref(), PAGE) {
            Ok(page) => {
                after = Some(page.last()?.0);
                Some(Ok(page))
            }
            error => Some(error),
        })
    }

    /// At most `max` markers in the order of their ids, those behind `after`.
    fn page(
        &self,
        after: Option<&ObjectId>,
        max: usize,
    ) -> Result<Vec<(ObjectId, Marker)>, MarkersError> {
        self.run(|database| {
            let table = database.begin_read()?.open_table(MARKERS)?;
            let mut page = Vec::new();
            let range = match after {
                Some(id) => {
                    use std::ops::Bound::{Excluded, Unbounded};
                    table.range::<Key>((Excluded(to_key(id)), Unbounded))?
                }
                None => table.range::<Key>(..)?,
            };
            for entry in range.take(max) {
                let (key, value) = entry?;
                if let (Some(id), Some(marker)) =
                    (from_key(&key.value()), Marker::decode(&value.value()))
                {
                    page.push((id, marker));
                }
            }
            Ok(page)
        })
    }

    /// The queue of objects to be written back, as it was left by the last run.
    pub(crate) fn queue(&self) -> Result<Vec<(u64, ObjectId)>, MarkersError> {
        self.run(|database| {
            let table = database.begin_read()?.open_table(QUEUE)?;
            let mut queue = Vec::new();
            for entry in table.iter()? {
                let (number, key) = entry?;
                queue.extend(from_key(&key.value()).map(|id| (number.value(), id)));
            }
            Ok(queue)
        })
    }

    /// Adds to the queue and removes from it, durably.
    pub(crate) fn change_queue(
        &self,
        added: &[(u64, ObjectId)],
        removed: &[u64],
    ) -> Result<(), MarkersError> {
        self.run(|database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(QUEUE)?;
                for (number, id) in added {
                    table.insert(number, to_key(id))?;
                }
                for number in removed {
                    table.remove(number)?;
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    fn run<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, MarkersError> {
        self.reopen_if_failed(Instant::now());
        self.run_on_open(work)
    }

    /// The same with the counts locked.
    fn run_on_open<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, MarkersError> {
        let result = match &*self.database.read() {
            Some(database) => guarded(|| work(database)),
            None => Err(redb::Error::PreviousIo),
        };
        result.map_err(|source| {
            if matches!(source, redb::Error::Io(_) | redb::Error::PreviousIo) {
                self.has_failed.store(true, Ordering::Release);
            }
            MarkersError { path: self.path.clone(), source: Box::new(source) }
        })
    }
}

/// Calls redb, which may panic over a file that is damaged.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    result.unwrap_or_else(|_| Err(redb::Error::Corrupted("redb has panicked".to_owned())))
}

impl Marker {
    fn encode(&self) -> Value {
        let mut value = [0; 50];
        value[0] = self.state.to_byte();
        value[1] = self.object_type.to_wire() as u8;
        value[2..10].copy_from_slice(&self.len.to_le_bytes());
        value[10..18].copy_from_slice(&self.archived.to_le_bytes());
        value[18..].copy_from_slice(self.digest.as_bytes());
        value
    }

    fn decode(value: &Value) -> Option<Self> {
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&value[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let mut digest = [0; 32];
        digest.copy_from_slice(&value[18..]);
        Some(Self {
            state: State::from_byte(value[0])?,
            object_type: ObjectType::from_wire(i32::from(value[1]))?,
            len: number(2),
            archived: number(10),
            digest: HeaderDigest::from_bytes(digest),
        })
    }
}

impl State {
    pub(crate) const ALL: [Self; 4] = [Self::Local, Self::Remote, Self::Repair, Self::Error];

    /// As in status and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Repair => "repair",
            Self::Error => "error",
        }
    }

    const fn to_byte(self) -> u8 {
        self as u8
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.to_byte() == byte)
    }
}

impl Count {
    fn add(&mut self, len: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(len);
    }

    fn remove(&mut self, len: u64) {
        self.objects = self.objects.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(len);
    }
}

fn to_key(id: &ObjectId) -> Key {
    let mut key = [0; 1 + ObjectId::DIGEST_LEN];
    key[0] = id.algorithm().to_wire() as u8;
    key[1..].copy_from_slice(id.digest());
    key
}

fn from_key(key: &Key) -> Option<ObjectId> {
    let mut digest = [0; ObjectId::DIGEST_LEN];
    digest.copy_from_slice(&key[1..]);
    Some(ObjectId::new(HashAlgorithm::from_wire(i32::from(key[0]))?, digest))
}

#[cfg(test)]
mod tests {
    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::*;

    /// A disk that is full.
    #[derive(Debug)]
    struct Full {
        disk: InMemoryBackend,
        is_full: std::sync::Arc<AtomicBool>,
    }

    impl StorageBackend for Full {
        fn len(&self) -> io::Result<u64> {
            self.disk.len()
        }

        fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
            self.disk.read(offset, len)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.disk.set_len(len)
        }

        fn sync_data(&self, eventual: bool) -> io::Result<()> {
            self.disk.sync_data(eventual)
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            match self.is_full.load(Ordering::Relaxed) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => self.disk.write(offset, data),
            }
        }
    }

    fn id(number: u8) -> ObjectId {
        ObjectId::new(HashAlgorithm::Sha1, [number; ObjectId::DIGEST_LEN])
    }

    fn marker(state: State, len: u64) -> Marker {
        let digest = HeaderDigest::of(&len.to_le_bytes());
        Marker { state, object_type: ObjectType::Catalog, len, archived: 17, digest }
    }

    fn count(markers: &Markers, state: State) -> (u64, u64) {
        let (_, count) = markers.counts().into_iter().find(|(at, _)| *at == state).unwrap();
        (count.objects, count.bytes)
    }

    #[test]
    fn markers_and_counts_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("markers");
        let (markers, _) = Markers::open(&path).unwrap();
        let cache_id = markers.cache_id().to_owned();
        markers
            .apply(
                &[
                    (id(1), Some(marker(State::Remote, 100))),
                    (id(2), Some(marker(State::Remote, 50))),
                    (id(3), Some(marker(State::Error, 1))),
                ],
                true,
            )
            .unwrap();
        markers.apply(&[(id(2), Some(marker(State::Local, 50))), (id(3), None)], true).unwrap();
        drop(markers);

        let (markers, _) = Markers::open(&path).unwrap();
        assert_eq!(markers.cache_id(), cache_id);
        assert_eq!(markers.get(&id(1)).unwrap(), Some(marker(State::Remote, 100)));
        assert_eq!(markers.get(&id(3)).unwrap(), None);
        assert_eq!(count(&markers, State::Remote), (1, 100));
        assert_eq!(count(&markers, State::Local), (1, 50));
        assert_eq!(count(&markers, State::Error), (0, 0));
    }

    #[test]
    fn a_state_changes_only_if_the_marker_is_the_one_that_was_seen() {
        let directory = tempfile::tempdir().unwrap();
        let (markers, _) = Markers::open(&directory.path().join("markers")).unwrap();
        let seen = marker(State::Remote, 100);
        markers.set_state(&id(1), &seen, State::Local).unwrap();
        assert_eq!(markers.get(&id(1)).unwrap(), None);
        markers.apply(&[(id(1), Some(seen))], false).unwrap();
        markers.set_state(&id(1), &seen, State::Local).unwrap();
        assert_eq!(markers.get(&id(1)).unwrap().unwrap().state, State::Local);
        markers.set_state(&id(1), &seen, State::Error).unwrap();
        assert_eq!(markers.get(&id(1)).unwrap().unwrap().state, State::Local);
    }

    #[test]
    fn the_file_does_not_grow_with_the_number_of_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("markers");
        let (markers, _) = Markers::open(&path).unwrap();
        for change in 0..3000 {
            let state = if change % 2 == 0 { State::Remote } else { State::Local };
            markers.apply(&[(id(1), Some(marker(state, 1)))], false).unwrap();
        }
        let len = fs::metadata(&path).unwrap().len();
        assert!(len < 20 << 20, "{len} bytes");
    }

    #[test]
    fn pages_have_each_marker_once() {
        let directory = tempfile::tempdir().unwrap();
        let (markers, _) = Markers::open(&directory.path().join("markers")).unwrap();
        let changes: Vec<_> =
            (0..10).map(|number| (id(number), Some(marker(State::Remote, 1)))).collect();
        markers.apply(&changes, false).unwrap();
        let mut seen = Vec::new();
        loop {
            let page = markers.page(seen.last(), 3).unwrap();
            if page.is_empty() {
                break;
            }
            seen.extend(page.into_iter().map(|(id, _)| id));
        }
        assert_eq!(seen, (0..10).map(id).collect::<Vec<_>>());
        let all: Vec<_> = markers.pages().flat_map(Result::unwrap).map(|(id, _)| id).collect();
        assert_eq!(all, seen);
    }

    #[test]
    fn the_queue_survives_a_restart_in_its_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("markers");
        let (markers, _) = Markers::open(&path).unwrap();
        markers.change_queue(&[(7, id(1)), (8, id(2)), (9, id(3))], &[]).unwrap();
        markers.change_queue(&[], &[8]).unwrap();
        drop(markers);
        let (markers, _) = Markers::open(&path).unwrap();
        assert_eq!(markers.queue().unwrap(), [(7, id(1)), (9, id(3))]);
    }

    #[test]
    fn a_damaged_file_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("markers");
        fs::write(&path, [b'x'; 10_000]).unwrap();
        let (markers, aside) = Markers::open(&path).unwrap();
        assert_eq!(markers.page(None, 1).unwrap(), []);
        assert_eq!(fs::read(aside.unwrap()).unwrap(), [b'x'; 10_000]);
    }

    #[test]
    fn a_disk_that_was_full_is_written_again_without_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let (markers, _) = Markers::open(&directory.path().join("markers")).unwrap();
        let remote = marker(State::Remote, 100);
        markers.apply(&[(id(1), Some(remote))], true).unwrap();
        // The file is closed, and another one stands for it on a disk that becomes full.
        let is_full = std::sync::Arc::new(AtomicBool::new(false));
        let disk = Full { disk: InMemoryBackend::new(), is_full: std::sync::Arc::clone(&is_full) };
        *markers.database.write() = None;
        *markers.database.write() = Some(Database::builder().create_with_backend(disk).unwrap());
        is_full.store(true, Ordering::Relaxed);
        let change = [(id(2), Some(marker(State::Local, 50)))];
        markers.apply(&change, true).unwrap_err();

        markers.apply(&change, true).unwrap();
        assert_eq!(markers.get(&id(1)).unwrap(), Some(remote));
        assert_eq!(count(&markers, State::Remote), (1, 100));
        assert_eq!(count(&markers, State::Local), (1, 50));
    }
}
