//! Publishing: how the file of an upload gets the name of its object. The name appears at once and whole, and
//! replaces nothing: several nodes may publish the same object.

use std::io;
use std::path::Path;

use cvmcache::plugin::ObjectId;
use rustix::io::Errno;

use crate::files::FileSystem;
use crate::layout::UploadNumber;
use crate::store::{Change, Store};

/// How the object came to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// It is the file of the upload.
    Ours,
    /// Another one of the same length was there. That of the upload is gone.
    Theirs,
}

impl Store {
    /// Gives the file of an upload, of `size` bytes, the name of its object. On an error, the file stays.
    pub(crate) fn publish(
        &self,
        change: &Change<'_>,
        number: UploadNumber,
        size: u64,
    ) -> io::Result<Published> {
        let id = change.id();
        let (from, to) = (self.layout.upload(number), self.layout.object(&id));
        let published = match name(&*self.files, &from, &to) {
            // Made by whatever removes directories that look unused.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.layout.make_directory(&self.layout.shard(id.digest()[0]))?;
                name(&*self.files, &from, &to)
            }
            result => result,
        };
        match published {
            Ok(()) => return Ok(Published::Ours),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let theirs = self.files.metadata(&to)?;
        if theirs.is_file() && theirs.len() == size {
            self.remove_upload(&from);
            return Ok(Published::Theirs);
        }
        // It is what a power cut has left of another node's, or of a client's, upload.
        tracing::warn!("object {id} had {} bytes on disk instead of {size}", theirs.len());
        self.move_aside(&id)?;
        name(&*self.files, &from, &to).map(|()| Published::Ours)
    }

    /// Moves the file of an object to the quarantine.
    pub(crate) fn move_aside(&self, id: &ObjectId) -> io::Result<()> {
        let quarantine = self.layout.quarantine();
        self.layout.make_directory(&quarantine)?;
        let result = self.files.rename(&self.layout.object(id), &quarantine.join(id.to_string()));
        self.bound_quarantine(&quarantine);
        result
    }

    /// Damaged objects are evidence, and do not count as used: a few are kept.
    fn bound_quarantine(&self, quarantine: &Path) {
        let Ok(entries) = quarantine.read_dir() else { return };
        let mut files: Vec<_> = entries
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        files.sort();
        let surplus = files.len().saturating_sub(QUARANTINED);
        files[..surplus].iter().for_each(|(_, path)| self.remove_upload(path));
    }

    /// Removes a file that is of no use. It is no matter if it is not there.
    pub(crate) fn remove_upload(&self, path: &Path) {
        if let Err(error) = self.files.remove(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot remove {}", path.display());
        }
    }
}

/// Gives a file a name where nothing is. Link and unlink work on NFS, where a rename cannot be kept from
/// replacing; some file systems have no links, and BeeGFS none from one directory to another.
fn name(files: &dyn FileSystem, from: &Path, to: &Path) -> io::Result<()> {
    match files.link(from, to) {
        Ok(()) => {
            // It has its name; what is left is removed at the next start.
            if let Err(error) = files.remove(from) {
                tracing::warn!(%error, "cannot remove {}", from.display());
            }
            Ok(())
        }
        Err(error) if is_unsupported(&error) => match files.rename_new(from, to) {
            Err(error) if is_unsupported(&error) => match files.metadata(to) {
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => files.rename(from, to),
                Err(error) => Err(error),
            },
            result => result,
        },
        Err(error) => Err(error),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    let unsupported =
        [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL, Errno::MLINK, Errno::XDEV];
    Errno::from_io_error(error).is_some_and(|errno| unsupported.contains(&errno))
}

const QUARANTINED: usize = 16;
