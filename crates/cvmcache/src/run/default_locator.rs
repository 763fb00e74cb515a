//! The locator of a plugin that is started without a configuration file.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use thiserror::Error;

use super::appendable;
use crate::config_keys::LOCATOR;
use crate::{Locator, Options};

/// There is no place for a socket.
#[derive(Debug, Error)]
#[error(
    "cannot use {directory:?} for the socket: {reason}; pass a configuration file with {key}",
    key = LOCATOR.name(), directory = .directory.display()
)]
pub(super) struct NoDirectory {
    directory: PathBuf,
    reason: io::Error,
}

/// Options with nothing but a locator, in a directory of the user's own.
pub(super) fn options(name: &str) -> Result<Options, NoDirectory> {
    Ok(of(&Locator::Unix(directory()?.join(format!("{name}.socket")))))
}

/// A directory for sockets, of the user's own.
pub(super) fn directory() -> Result<PathBuf, NoDirectory> {
    place_with(make_private)
}

/// The same, without making it.
pub(super) fn find_directory() -> Result<PathBuf, NoDirectory> {
    place_with(could_be_private)
}

fn place_with(prepare: impl FnOnce(&Path) -> io::Result<()>) -> Result<PathBuf, NoDirectory> {
    // The service manager has made it (`RuntimeDirectory=` of systemd.exec(5)); there may be several.
    if let Some(directories) = env::var_os("RUNTIME_DIRECTORY")
        && let Some(directory) = env::split_paths(&directories).next()
        && directory.is_absolute()
    {
        return Ok(directory);
    }
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    let directory = match runtime {
        Some(runtime) => runtime.join("cvmcache"),
        None => env::temp_dir().join(format!("cvmcache-{}", geteuid())),
    };
    match prepare(&directory) {
        Ok(()) => Ok(directory),
        Err(reason) => Err(NoDirectory { directory, reason }),
    }
}

/// Options with nothing but this locator.
pub(super) fn of(locator: &Locator) -> Options {
    let mut options = Options::new();
    options.set(LOCATOR, locator);
    options
}

/// Makes a directory that no other user can write to, or makes sure that it is one: in a directory that
/// all can write to, another user may have made it before.
fn make_private(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    check_private(directory)
}

/// Makes sure that such a directory is there, or could be made.
fn could_be_private(directory: &Path) -> io::Result<()> {
    match check_private(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            appendable::check_directory(directory)
        }
        checked => checked,
    }
}

fn check_private(directory: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(directory)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("it belongs to another user, or others can write to it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_a_directory_of_the_user_is_used() {
        let parent = tempfile::tempdir().unwrap();
        let mine = parent.path().join("mine");
        make_private(&mine).unwrap();
        make_private(&mine).unwrap();
        assert_eq!(fs::metadata(&mine).unwrap().mode() & 0o777, 0o700);

        fs::set_permissions(&mine, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(make_private(&mine).is_err());
        assert!(could_be_private(&mine).is_err());
        could_be_private(&parent.path().join("new")).unwrap();
        assert!(!parent.path().join("new").exists());
        let link = parent.path().join("link");
        symlink(parent.path(), &link).unwrap();
        assert!(make_private(&link).is_err());
    }
}
