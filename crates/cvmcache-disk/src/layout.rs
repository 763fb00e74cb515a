//! The layout of a cache on disk: the names of objects, uploads, breadcrumbs and of what lies beside them,
//! which are those of the CernVM-FS client.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cvmcache::plugin::{HashAlgorithm, ObjectId};

use crate::config::Location;

/// The names in a cache directory and in its workspace.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    directory: PathBuf,
    workspace: PathBuf,
    is_alien: bool,
}

impl Layout {
    pub(crate) fn new(location: &Location) -> Self {
        Self {
            directory: location.directory().to_owned(),
            workspace: location.workspace().to_owned(),
            is_alien: location.is_alien(),
        }
    }

    /// Makes the directories that are missing. As with the client, a directory `ff` is a sign that the
    /// others are there, too.
    ///
    /// # Errors
    ///
    /// If one can neither be made nor is there.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        self.make_directory(&self.workspace)?;
        self.make_directory(&self.directory)?;
        if self.shard(0xff).is_dir() {
            return Ok(());
        }
        for directory in (0..=0xff).map(|shard| self.shard(shard)).chain([self.uploads()]) {
            self.make_directory(&directory)?;
        }
        Ok(())
    }

    /// Makes a directory, with those above it.
    pub(crate) fn make_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let mode = if self.is_alien { 0o770 } else { 0o700 };
        let made = DirBuilder::new().recursive(true).mode(mode).create(path);
        // The umask of the process may have taken away what other nodes need.
        let made = made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)));
        made.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display()))
        })
    }

    /// The mode of files.
    pub(crate) fn file_mode(&self) -> u32 {
        if self.is_alien { 0o660 } else { 0o600 }
    }

    pub(crate) fn is_alien(&self) -> bool {
        self.is_alien
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of the objects whose digest begins with this byte.
    pub(crate) fn shard(&self, first: u8) -> PathBuf {
        self.directory.join(format!("{first:02x}"))
    }

    pub(crate) fn object(&self, id: &ObjectId) -> PathBuf {
        let name = id.to_string();
        let (shard, rest) = name.split_at(2);
        let mut path = PathBuf::with_capacity(self.directory.as_os_str().len() + 4 + rest.len());
        path.push(&self.directory);
        path.push(shard);
        path.push(rest);
        path
    }

    /// The object that a file in the directory `shard` is; `None` for other files.
    pub(crate) fn object_of(shard: u8, name: &OsStr) -> Option<ObjectId> {
        let name = format!("{shard:02x}{}", name.to_str()?);
        // Upper-case digits would parse, too, but the client does not find such a file.
        name.parse::<ObjectId>().ok().filter(|id| id.to_string() == name)
    }

    /// Where files are that are no objects yet.
    pub(crate) fn uploads(&self) -> PathBuf {
        self.directory.join("txn")
    }

    /// The file of an upload. The name begins as the client's uploads do.
    pub(crate) fn upload(&self, number: UploadNumber) -> PathBuf {
        self.directory.join(format!("txn/fetch{:016x}-{}", number.run, number.count))
    }

    /// Where damaged objects are moved to.
    pub(crate) fn quarantine(&self) -> PathBuf {
        self.directory.join("quarantaine")
    }

    /// The file of the breadcrumb of a repository. Where no file can have its name, that has a digest of it,
    /// which no client looks for.
    pub(crate) fn breadcrumb(&self, repository: &[u8]) -> PathBuf {
        let mut name = BREADCRUMB.as_bytes().to_vec();
        // The temporary file beside it has a longer name.
        let is_name = !repository.is_empty()
            && name.len() + repository.len() + MAX_SUFFIX <= MAX_NAME
            && !repository.iter().any(|byte| matches!(byte, b'/' | 0));
        if is_name {
            name.extend_from_slice(repository);
        } else {
            let digest = blake3::hash(repository).to_hex();
            name.extend_from_slice(format!("blake3-{digest}").as_bytes());
        }
        self.directory.join(OsString::from_vec(name))
    }

    /// True for the name of the file of a breadcrumb.
    pub(crate) fn is_breadcrumb(name: &OsStr) -> bool {
        name.as_bytes().starts_with(BREADCRUMB.as_bytes())
    }

    /// The file that the client locks while it manages the cache.
    pub(crate) fn lock(&self) -> PathBuf {
        self.workspace.join("lock_cachedb")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.workspace.join("cvmcache-disk.redb")
    }

    /// Removes the client's database, which is wrong as soon as another program stores or evicts: without
    /// it, the client makes a new one from the tree.
    pub(crate) fn remove_client_database(&self) {
        for name in ["cachedb", "cachedb-journal"] {
            let path = self.directory.join(name);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::error!(%error, "cannot remove {}: remove it before a client uses the cache", path.display());
            }
        }
    }

    /// True for the id of the object without bytes: the digest of an empty stream as zlib compresses it.
    pub(crate) fn is_empty_object(id: &ObjectId) -> bool {
        let empty = match id.algorithm() {
            HashAlgorithm::Sha1 => "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78",
            HashAlgorithm::Ripemd160 => "fcdb20b894f31f1306d56294c049ca7293dde0fc-rmd160",
            HashAlgorithm::Shake128 => "28d94b83b7229b331fc601362b8e272e02665122-shake128",
        };
        id.to_string() == empty
    }
}

/// Names the file of an upload: no other file of any node has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct UploadNumber {
    /// Random, one a run of the plugin.
    pub(crate) run: u64,
    pub(crate) count: u64,
}

const BREADCRUMB: &str = "cvmfschecksum.";

/// What a temporary file's name has more than its breadcrumb's.
const MAX_SUFFIX: usize = 24;

/// NAME_MAX of Linux.
const MAX_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout { directory: "/c".into(), workspace: "/w".into(), is_alien: false }
    }

    fn id(text: &str) -> ObjectId {
        text.parse().unwrap()
    }

    #[test]
    fn an_object_has_the_name_that_the_client_gives_it() {
        for suffix in ["", "-rmd160", "-shake128"] {
            let id = id(&format!("ab{}{suffix}", "cd".repeat(19)));
            let path = layout().object(&id);
            assert_eq!(path, Path::new(&format!("/c/ab/{}{suffix}", "cd".repeat(19))));
            assert_eq!(Layout::object_of(0xab, path.file_name().unwrap()), Some(id));
        }
    }

    #[test]
    fn a_file_with_another_name_is_no_object() {
        let rest = "cd".repeat(19);
        for name in
            [rest.to_uppercase(), format!("{rest}C"), rest[1..].to_owned(), format!("{rest}.12")]
        {
            assert_eq!(Layout::object_of(0xab, name.as_ref()), None, "{name}");
        }
    }

    #[test]
    fn only_the_names_of_empty_objects_are_theirs() {
        assert!(Layout::is_empty_object(&id("e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78")));
        assert!(!Layout::is_empty_object(&id("e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78-rmd160")));
        assert!(!Layout::is_empty_object(&id(&"00".repeat(20))));
    }

    #[test]
    fn a_breadcrumb_has_the_name_of_its_repository_or_a_digest_of_it() {
        let path = layout().breadcrumb(b"atlas.cern.ch");
        assert_eq!(path, Path::new("/c/cvmfschecksum.atlas.cern.ch"));
        for name in [&b""[..], b"../x", b"a\0b", &[b'x'; 230]] {
            let path = layout().breadcrumb(name);
            assert_eq!(path.parent(), Some(Path::new("/c")));
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(name.starts_with("cvmfschecksum.blake3-"), "{name}");
        }
    }
}
