//! The list of a cache's markers in the store: what all caches of a prefix list is in use, and `gc` leaves it.
//!
//! ```text
//! offset  bytes
//!      0      8  "CVMMARK\n"
//!      8      2  version: 1
//!     10      8  when it was made, in seconds since 1970
//!     18      8  number of entries
//!     26         entries: BLAKE3 of the object's key (16 bytes each)
//!                BLAKE3 of all this (32 bytes)
//! ```

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use thiserror::Error;

use crate::cold::{ColdError, Listed, send};
use crate::hot::HotTier;
use crate::key::{CACHES, StoreKey};
use crate::markers::{Markers, MarkersError, State};
use crate::tier::Tier;

/// What all lists together name.
#[derive(Debug, Default)]
pub(crate) struct Named {
    keys: HashSet<Entry>,
    /// What time it is by the clock of the store: when this cache's list was written.
    pub(crate) now: Option<SystemTime>,
}

/// Why it is not known which objects are in use.
#[derive(Debug, Error)]
pub(crate) enum ListError {
    #[error("the list of cache {cache} cannot be read: {reason}")]
    Unreadable { cache: String, reason: String },
    #[error(
        "the list of cache {cache} is {} old, more than the grace: start that cache, or forget it if there is none any more",
        humantime::format_duration(Duration::from_secs(age.as_secs()))
    )]
    Old { cache: String, age: Duration },
    #[error(transparent)]
    Cold(#[from] ColdError),
    #[error(transparent)]
    Markers(#[from] MarkersError),
    #[error("the list of this cache cannot be written to the workspace: {0}")]
    Workspace(#[from] io::Error),
}

type Entry = [u8; 16];

const MAGIC: &[u8; 8] = b"CVMMARK\n";
const VERSION: u16 = 1;
const HEADER: usize = 26;
const CHECKSUM: usize = 32;
const PIECE: usize = 1 << 20;

impl<H: HotTier> Tier<H> {
    /// Writes the list of this cache to the store.
    pub(crate) async fn upload_list(&self, workspace: &Path) -> Result<(), ListError> {
        let file = Arc::new(write_list(&self.markers, workspace, SystemTime::now())?);
        let len = file.metadata()?.len();
        let pieces = move || {
            let file = Arc::clone(&file);
            let pieces = (0..len).step_by(PIECE).map(move |offset| {
                let mut piece = vec![0; (len - offset).min(PIECE as u64) as usize];
                file.read_exact_at(&mut piece, offset)
                    .map(|()| Bytes::from(piece))
                    .map_err(|error| ColdError::Source(error.to_string()))
            });
            stream::iter(pieces).boxed()
        };
        let key = StoreKey::of_markers(self.markers.cache_id());
        send(&*self.cold, &key, len, self.config.store.timeout, pieces).await?;
        Ok(())
    }

    /// What the lists of all caches name. Those older than `max_age` say nothing of what is in use now.
    pub(crate) async fn named(&self, max_age: Duration) -> Result<Named, ListError> {
        let lists: Vec<Listed> = {
            let mut listed = self.cold.list(CACHES);
            let mut lists = Vec::new();
            while let Some(list) = listed.next().await {
                lists.push(list?);
            }
            lists
        };
        let own = StoreKey::of_markers(self.markers.cache_id());
        let now = lists.iter().find(|list| list.key == own).map(|list| list.modified);
        let mut named = Named { now, ..Named::default() };
        for Listed { key, modified, .. } in lists {
            let cache = key.as_str().rsplit('/').next().unwrap_or_default().to_owned();
            let made = self.read_list(&key, &cache, &mut named).await?;
            // The clock of that cache, or of this one, may be wrong.
            let in_store = now.and_then(|now| now.duration_since(modified).ok());
            let age = SystemTime::now().duration_since(made).unwrap_or_default();
            let age = age.max(in_store.unwrap_or_default());
            if age > max_age {
                return Err(ListError::Old { cache, age });
            }
        }
        Ok(named)
    }

    async fn read_list(
        &self,
        key: &StoreKey,
        cache: &str,
        named: &mut Named,
    ) -> Result<SystemTime, ListError> {
        let unreadable = |reason: &str| ListError::Unreadable {
            cache: cache.to_owned(),
            reason: reason.to_owned(),
        };
        let mut reading = self.reading(key.clone()).await?;
        let header = reading.read(HEADER).await?;
        let (made, entries) =
            parse_header(&header).ok_or_else(|| unreadable("it is no list of version 1"))?;
        let len =
            entries.checked_mul(16).and_then(|len| len.checked_add((HEADER + CHECKSUM) as u64));
        if len != Some(reading.len()) {
            return Err(unreadable("its length is not that of its entries"));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header);
        let mut left = entries;
        while left > 0 {
            let count = left.min((PIECE / 16) as u64) as usize;
            let piece = reading.read(count * 16).await?;
            if piece.len() != count * 16 {
                return Err(unreadable("it ends early"));
            }
            hasher.update(&piece);
            named.keys.extend(piece.as_chunks::<16>().0);
            left -= count as u64;
        }
        if reading.read(CHECKSUM).await?[..] != hasher.finalize().as_bytes()[..] {
            return Err(unreadable("its checksum is another one"));
        }
        Ok(made)
    }
}

impl Named {
    /// True if any list names this object.
    pub(crate) fn contains(&self, key: &StoreKey) -> bool {
        self.keys.contains(&entry(key))
    }
}

fn entry(key: &StoreKey) -> Entry {
    let mut entry = [0; 16];
    entry.copy_from_slice(&blake3::hash(key.as_str().as_bytes()).as_bytes()[..16]);
    entry
}

fn parse_header(header: &[u8]) -> Option<(SystemTime, u64)> {
    let rest = header.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk()?;
    let (made, rest) = rest.split_first_chunk()?;
    let (entries, rest) = rest.split_first_chunk()?;
    if u16::from_le_bytes(*version) != VERSION || !rest.is_empty() {
        return None;
    }
    let made = UNIX_EPOCH.checked_add(Duration::from_secs(u64::from_le_bytes(*made)))?;
    Some((made, u64::from_le_bytes(*entries)))
}

/// Writes the list to a file without a name: ten million entries would be 160 MB of memory.
fn write_list(markers: &Markers, workspace: &Path, now: SystemTime) -> Result<File, ListError> {
    let file = tempfile::tempfile_in(workspace)?;
    let mut writer = BufWriter::new(&file);
    writer.write_all(&[0; HEADER])?;
    let mut entries: u64 = 0;
    for page in markers.pages() {
        for (id, marker) in page? {
            // What the store has lost is not in use; a new copy of it is protected by its age.
            if marker.state != State::Error {
                writer.write_all(&entry(&StoreKey::of_object(&id, &marker.digest)))?;
                entries += 1;
            }
        }
    }
    writer.seek(SeekFrom::Start(0))?;
    let made = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    writer.write_all(MAGIC)?;
    writer.write_all(&VERSION.to_le_bytes())?;
    writer.write_all(&made.to_le_bytes())?;
    writer.write_all(&entries.to_le_bytes())?;
    writer.flush()?;
    drop(writer);
    let mut hasher = blake3::Hasher::new();
    (&file).seek(SeekFrom::Start(0))?;
    hasher.update_reader(&file)?;
    (&file).seek(SeekFrom::End(0))?;
    (&file).write_all(hasher.finalize().as_bytes())?;
    Ok(file)
}
