//! What the cache does to files, as a layer in which tests inject faults: power cuts, kills, full and failing
//! disks.

use std::fmt::Debug;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use cvmcache::plugin::ReadBuffer;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, ResolveFlags, openat2};

/// All changes to the files of objects, and what reads them.
pub(crate) trait FileSystem: Send + Sync + Debug {
    /// Makes a file that was not there, with exactly this mode.
    fn create(&self, path: &Path, mode: u32) -> io::Result<File>;

    /// Opens a file to read it.
    fn open(&self, path: &Path) -> io::Result<File>;

    /// The same without waiting for a disk: an error if its names are not in the kernel's cache.
    fn open_cached(&self, path: &Path) -> io::Result<File>;

    /// Writes all of `data`.
    fn write_at(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()>;

    /// Reads once.
    fn read_at(&self, file: &File, buffer: &mut ReadBuffer, offset: u64) -> io::Result<usize>;

    /// Reads once, what the page cache has, see [`ReadBuffer::read_cached_at`].
    fn read_cached(&self, file: &File, buffer: &mut ReadBuffer, offset: u64) -> io::Result<usize>;

    /// Makes the content of files safe from a power cut.
    fn sync(&self, files: &[&File]) -> io::Result<()>;

    /// Makes the names in a directory safe from a power cut.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Gives a file a second name, which must not be there.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames a file, in place of another one if there is one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// The same where nothing may be replaced.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Of the file itself, not of what a symbolic link names.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;
}

/// The real file system.
#[derive(Debug)]
pub(crate) struct System;

/// A FIFO in place of an object would stop a thread.
const OPEN: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

impl System {
    /// So many files are synchronised one by one; for more, all of the file system is, which takes one flush
    /// of the disk's cache instead of one a file.
    const FEW: usize = 8;
}

impl FileSystem for System {
    fn create(&self, path: &Path, mode: u32) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(mode).open(path)?;
        // The umask of the process may have taken away what other nodes need.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(OPEN.bits().cast_signed()).open(path)
    }

    fn open_cached(&self, path: &Path) -> io::Result<File> {
        let flags = OPEN | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED)?.into())
    }

    fn write_at(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(data, offset)
    }

    fn read_at(&self, file: &File, buffer: &mut ReadBuffer, offset: u64) -> io::Result<usize> {
        loop {
            match buffer.read_at(file, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn read_cached(&self, file: &File, buffer: &mut ReadBuffer, offset: u64) -> io::Result<usize> {
        buffer.read_cached_at(file, offset)
    }

    fn sync(&self, files: &[&File]) -> io::Result<()> {
        match files {
            [first, ..] if files.len() > Self::FEW => Ok(rustix::fs::syncfs(first)?),
            few => few.iter().try_for_each(|file| file.sync_data()),
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::symlink_metadata(path)
    }
}
