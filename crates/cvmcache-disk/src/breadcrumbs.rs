//! Breadcrumbs: the last known root catalog of each repository, in files as the client writes them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use cvmcache::plugin::{Breadcrumb, PluginResult, Status};
use parking_lot::Mutex;

use crate::layout::Layout;

/// Breadcrumbs do not count as used, so there is a bound, which no site comes near to.
const MOST: usize = 64 * 1024;

/// The longest breadcrumb: an id, two numbers and their letters.
const MAX_LEN: u64 = 256;

/// The breadcrumbs of a cache directory.
#[derive(Debug)]
pub(crate) struct Breadcrumbs {
    layout: Layout,
    count: AtomicUsize,
    /// Held while one is written.
    writing: Mutex<()>,
}

impl Breadcrumbs {
    pub(crate) fn new(layout: &Layout) -> Self {
        let entries = fs::read_dir(layout.directory()).into_iter().flatten().flatten();
        let count = entries.filter(|entry| Layout::is_breadcrumb(&entry.file_name())).count();
        Self { layout: layout.clone(), count: AtomicUsize::new(count), writing: Mutex::new(()) }
    }

    pub(crate) fn store(&self, repository: &[u8], breadcrumb: Breadcrumb) -> PluginResult<()> {
        let path = self.layout.breadcrumb(repository);
        let _writing = self.writing.lock();
        let is_new = !path.exists();
        if is_new && self.count.load(Ordering::Relaxed) >= MOST {
            return Err(Status::NoSpace);
        }
        let written = write(&path, &print(&breadcrumb), self.layout.file_mode());
        written.map_err(|error| {
            tracing::error!(%error, "cannot write {}", path.display());
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Status::NoSpace,
                _ => Status::IoErr,
            }
        })?;
        self.count.fetch_add(usize::from(is_new), Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn load(&self, repository: &[u8]) -> PluginResult<Breadcrumb> {
        let path = self.layout.breadcrumb(repository);
        let bytes = match cvmcache::read_regular_file(&path, MAX_LEN) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Status::NoEntry),
            Err(error) => {
                tracing::error!(%error, "cannot read {}", path.display());
                return Err(Status::IoErr);
            }
        };
        // What cannot be understood is as good as none: the client asks its servers.
        str::from_utf8(&bytes).ok().and_then(parse).ok_or(Status::NoEntry)
    }
}

/// Writes to a file beside it, which is renamed: a reader finds the old breadcrumb or the new one.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}", fastrand::u64(..)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_data())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The error of the write counts.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn print(breadcrumb: &Breadcrumb) -> String {
    let Breadcrumb { catalog, timestamp, revision } = breadcrumb;
    match revision {
        Some(revision) => format!("{catalog}T{timestamp}R{revision}"),
        None => format!("{catalog}T{timestamp}"),
    }
}

/// Older clients left out the revision, or the time, too.
fn parse(text: &str) -> Option<Breadcrumb> {
    let text = text.trim_end();
    let (rest, revision) = match text.split_once('R') {
        Some((rest, revision)) => (rest, Some(revision.parse().ok()?)),
        None => (text, None),
    };
    let (catalog, timestamp) = match rest.split_once('T') {
        Some((catalog, timestamp)) => (catalog, timestamp.parse().ok()?),
        None => (rest, 0),
    };
    Some(Breadcrumb { catalog: catalog.parse().ok()?, timestamp, revision })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Quota};

    const CATALOG: &str = "f67213b122a5d442d2b93bda8cc45c564a70ec5d";

    #[test]
    fn a_breadcrumb_is_written_and_read_as_the_client_does() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::managed(directory.path(), Quota::Unlimited);
        let crumbs = Breadcrumbs::new(&Layout::new(&config.location));
        assert_eq!(crumbs.load(b"a.ch"), Err(Status::NoEntry));
        let catalog = format!("{CATALOG}-rmd160").parse().unwrap();
        let breadcrumb = Breadcrumb { catalog, timestamp: 7, revision: Some(9) };
        crumbs.store(b"a.ch", breadcrumb).unwrap();
        let file = fs::read(directory.path().join("cvmfschecksum.a.ch")).unwrap();
        assert_eq!(file, format!("{CATALOG}-rmd160T7R9").as_bytes());
        assert_eq!(crumbs.load(b"a.ch"), Ok(breadcrumb));
        crumbs.store(b"../a", breadcrumb).unwrap();
        assert_eq!(crumbs.load(b"../a"), Ok(breadcrumb));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no file is left over");
    }

    #[test]
    fn breadcrumbs_of_older_clients_are_understood() {
        let catalog = CATALOG.parse().unwrap();
        for (text, timestamp, revision) in
            [("", 0, None), ("T5", 5, None), ("T5R6", 5, Some(6)), ("T5R6\n", 5, Some(6))]
        {
            let expected = Breadcrumb { catalog, timestamp, revision };
            assert_eq!(parse(&format!("{CATALOG}{text}")), Some(expected));
        }
        for text in ["", "T", "T5R", "Tx"] {
            assert_eq!(parse(text), None);
        }
    }
}
