//! Whether a file can be appended to, without making it.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

/// What to do if it cannot.
pub(super) const REMEDY: &str = "name a file in a directory that the plugin can write to";

/// Why a file cannot be appended to, or made, as far as that can be said without making it.
pub(super) fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(Errno::EISDIR.into()),
        Ok(_) => Ok(access(path, AccessFlags::W_OK)?),
        Err(_) => check_directory(path),
    }
}

/// Why a file cannot be made in the directory of this path.
pub(super) fn check_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    };
    Ok(access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_made_is_told_from_one_that_can() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        check(&path).unwrap();
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        check(&path).unwrap();
        check("relative".as_ref()).unwrap();
        for path in [directory.path(), &path.join("x"), &directory.path().join("no/x")] {
            assert!(check(path).is_err(), "{}", path.display());
        }
    }
}
