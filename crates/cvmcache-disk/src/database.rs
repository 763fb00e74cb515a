//! The database: types, descriptions, order of use and digests of objects, kept over a restart. What is on
//! disk counts: a database that is lost costs only what the tree does not tell.

#![allow(clippy::result_large_err, reason = "the errors are redb's, and rare")]

use std::fmt::Display;
use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cvmcache::plugin::{HashAlgorithm, ObjectId, ObjectType};
use redb::{ReadableTable, TableDefinition};

use crate::digest::BlockDigests;
use crate::entry::{NewEntry, Place};

/// The algorithm's number, then the digest.
type Key = [u8; 1 + ObjectId::DIGEST_LEN];

/// Size (8 bytes, little-endian), type (1 byte), and the description if there is one.
const OBJECTS: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("objects");
const USES: TableDefinition<'_, Key, u64> = TableDefinition::new("uses");
const DIGESTS: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("digests");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Another version is as good as none.
const VERSION: u64 = 1;

/// What is written of one object.
#[derive(Debug)]
pub(crate) enum Change {
    Store { entry: NewEntry, last_use: u64, digests: Option<BlockDigests> },
    Use { id: ObjectId, last_use: u64 },
    Digests { id: ObjectId, digests: BlockDigests },
    Remove { id: ObjectId },
}

/// The database of a cache. After an error it is opened anew, and made anew if it has to be.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    open: Option<redb::Database>,
}

/// What became of a database when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Kept,
    /// It was not there, or could not be used.
    New,
}

impl Database {
    /// Nothing is opened yet.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None }
    }

    /// Opens it, and makes a new one in place of one that cannot be used.
    ///
    /// # Errors
    ///
    /// If none can be made. The cache works without.
    pub(crate) fn open(&mut self) -> io::Result<Found> {
        if self.open.is_some() {
            return Ok(Found::Kept);
        }
        if self.path.exists() {
            match guarded(|| open(&self.path)) {
                Ok(database) => {
                    self.open = Some(database);
                    return Ok(Found::Kept);
                }
                // Another open of the same file in this process, or a full disk, says nothing of its content.
                Err(redb::Error::DatabaseAlreadyOpen) => {
                    return Err(io::ErrorKind::ResourceBusy.into());
                }
                Err(redb::Error::Io(error)) if !is_of_the_content(&error) => return Err(error),
                Err(error) => return self.replace(&error).map(|()| Found::New),
            }
        }
        self.open = Some(guarded(|| create(&self.path)).map_err(io::Error::other)?);
        Ok(Found::New)
    }

    /// Makes a new database in place of one that cannot be used.
    ///
    /// # Errors
    ///
    /// If none can be made.
    pub(crate) fn replace(&mut self, reason: &dyn Display) -> io::Result<()> {
        let path = self.path.display();
        tracing::warn!(
            "the database {path} cannot be used, making a new one from the tree: {reason}"
        );
        self.close();
        fs::remove_file(&self.path)?;
        self.open = Some(guarded(|| create(&self.path)).map_err(io::Error::other)?);
        Ok(())
    }

    /// Calls `each` with every object and the time of its last use.
    pub(crate) fn load(&mut self, mut each: impl FnMut(NewEntry, u64)) -> io::Result<()> {
        self.attempt(|database| {
            let read = database.begin_read()?;
            let (objects, uses) = (read.open_table(OBJECTS)?, read.open_table(USES)?);
            // Both are in the order of their keys.
            let mut uses = uses.iter()?;
            let mut next_use = uses.next().transpose()?;
            for object in objects.iter()? {
                let (key, value) = object?;
                let key = key.value();
                while next_use.as_ref().is_some_and(|(used, _)| used.value() < key) {
                    next_use = uses.next().transpose()?;
                }
                let last_use = match &next_use {
                    Some((used, time)) if used.value() == key => time.value(),
                    _ => 0,
                };
                if let Some(entry) = entry_of(&key, value.value()) {
                    each(entry, last_use);
                }
            }
            Ok(())
        })
    }

    pub(crate) fn digests(&mut self, id: &ObjectId) -> io::Result<Option<BlockDigests>> {
        self.attempt(|database| {
            let digests = database.begin_read()?.open_table(DIGESTS)?.get(key_of(id))?;
            Ok(digests.map(|value| BlockDigests::from_bytes(value.value())))
        })
    }

    /// Writes all changes, or none.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> io::Result<()> {
        self.attempt(|database| {
            let write = database.begin_write()?;
            {
                let mut objects = write.open_table(OBJECTS)?;
                let mut uses = write.open_table(USES)?;
                let mut digests = write.open_table(DIGESTS)?;
                for change in changes {
                    match change {
                        Change::Store { entry, last_use, digests: known } => {
                            let key = key_of(&entry.id);
                            objects.insert(key, &value_of(entry)[..])?;
                            uses.insert(key, last_use)?;
                            if let Some(known) = known {
                                digests.insert(key, known.as_bytes())?;
                            }
                        }
                        Change::Use { id, last_use } => drop(uses.insert(key_of(id), last_use)?),
                        Change::Digests { id, digests: known } => {
                            digests.insert(key_of(id), known.as_bytes())?;
                        }
                        Change::Remove { id } => {
                            let key = key_of(id);
                            objects.remove(key)?;
                            uses.remove(key)?;
                            digests.remove(key)?;
                        }
                    }
                }
            }
            write.commit()?;
            Ok(())
        })
    }

    /// After an error, the next open tries again.
    fn attempt<T>(
        &mut self,
        work: impl FnOnce(&redb::Database) -> Result<T, redb::Error>,
    ) -> io::Result<T> {
        let Some(database) = &self.open else { return Err(io::ErrorKind::NotConnected.into()) };
        guarded(|| work(database)).map_err(|error| {
            self.close();
            io::Error::other(error)
        })
    }

    fn close(&mut self) {
        let open = self.open.take();
        // There is nothing to be done about an error.
        let _ = guarded(|| {
            drop(open);
            Ok(())
        });
    }
}

/// Calls redb, which may panic over a file that is damaged.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    result.unwrap_or_else(|_| Err(redb::Error::Corrupted("redb has panicked".to_owned())))
}

/// True for errors that are the file's, and not the system's.
fn is_of_the_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn open(path: &Path) -> Result<redb::Database, redb::Error> {
    let database = redb::Database::open(path)?;
    let version = database.begin_read()?.open_table(META)?.get("version")?.map(|v| v.value());
    if version != Some(VERSION) {
        return Err(redb::Error::Corrupted(format!("version {version:?}, not {VERSION}")));
    }
    Ok(database)
}

fn create(path: &Path) -> Result<redb::Database, redb::Error> {
    let database = redb::Database::create(path)?;
    let write = database.begin_write()?;
    write.open_table(META)?.insert("version", VERSION)?;
    write.open_table(OBJECTS)?;
    write.open_table(USES)?;
    write.open_table(DIGESTS)?;
    write.commit()?;
    Ok(database)
}

fn key_of(id: &ObjectId) -> Key {
    let mut key = [0; 1 + ObjectId::DIGEST_LEN];
    // The numbers on the wire are 1 to 3.
    key[0] = id.algorithm().to_wire() as u8;
    key[1..].copy_from_slice(id.digest());
    key
}

fn entry_of(key: &Key, value: &[u8]) -> Option<NewEntry> {
    let (algorithm, digest) = key.split_first()?;
    let id = ObjectId::new(HashAlgorithm::from_wire((*algorithm).into())?, digest.try_into().ok()?);
    let (size, rest) = value.split_first_chunk()?;
    let (object_type, description) = rest.split_first()?;
    let object_type = match object_type {
        1 => ObjectType::Catalog,
        2 => ObjectType::Volatile,
        _ => ObjectType::Regular,
    };
    let description = (!description.is_empty()).then(|| Bytes::copy_from_slice(description));
    let size = u64::from_le_bytes(*size);
    Some(NewEntry { id, size, object_type, description, place: Place::Named, verified: false })
}

fn value_of(entry: &NewEntry) -> Vec<u8> {
    let object_type = match entry.object_type {
        ObjectType::Catalog => 1,
        ObjectType::Volatile => 2,
        _ => 0,
    };
    let mut value = entry.size.to_le_bytes().to_vec();
    value.push(object_type);
    value.extend_from_slice(entry.description.as_deref().unwrap_or_default());
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u8, description: Option<&'static str>) -> NewEntry {
        NewEntry {
            id: ObjectId::new(HashAlgorithm::Shake128, [number; 20]),
            size: 1 << 40,
            object_type: ObjectType::Catalog,
            description: description.map(Bytes::from),
            place: Place::Named,
            verified: false,
        }
    }

    fn loaded(database: &mut Database) -> Vec<(u8, Option<Bytes>, u64)> {
        let mut all = Vec::new();
        let each = |entry: NewEntry, last_use| {
            assert_eq!((entry.size, entry.object_type), (1 << 40, ObjectType::Catalog));
            all.push((entry.id.digest()[0], entry.description, last_use));
        };
        database.load(each).unwrap();
        all
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let mut database = Database::at(&path);
        assert_eq!(database.open().unwrap(), Found::New);
        let store = |number, description, last_use| Change::Store {
            entry: entry(number, description),
            last_use,
            digests: Some(BlockDigests::from_bytes(&[number; 32])),
        };
        let changes = [store(1, Some("/a"), 10), store(2, None, 11), store(3, None, 12)];
        database.apply(&changes).unwrap();
        let [one, two] = [1, 2].map(|number| entry(number, None).id);
        database
            .apply(&[Change::Use { id: one, last_use: 20 }, Change::Remove { id: two }])
            .unwrap();
        drop(database);
        let mut database = Database::at(&path);
        assert_eq!(database.open().unwrap(), Found::Kept);
        assert_eq!(loaded(&mut database), [(1, Some("/a".into()), 20), (3, None, 12)]);
        assert_eq!(database.digests(&two).unwrap(), None);
        assert_eq!(database.digests(&one).unwrap(), Some(BlockDigests::from_bytes(&[1; 32])));
    }

    #[test]
    fn a_file_that_is_no_database_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        for content in [&b""[..], b"no database", &[0; 1 << 20]] {
            fs::write(&path, content).unwrap();
            let mut database = Database::at(&path);
            assert_eq!(database.open().unwrap(), Found::New, "{} bytes", content.len());
            assert_eq!(loaded(&mut database), []);
        }
    }
}
