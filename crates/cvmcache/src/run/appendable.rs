//! Whether a file can be appended to, checked without creating it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use crate::files;

/// What to do if it cannot.
pub(super) const REMEDY: &str = "name a regular file in a directory that the plugin can write to";

/// Why a file cannot be appended to, or created, as far as that is known without creating it.
pub(super) fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) => {
            files::check_appendable(&metadata)?;
            Ok(access(path, AccessFlags::W_OK)?)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => check_new(path),
        Err(error) => Err(error),
    }
}

/// Why a file that is not there cannot be made. A symbolic link to nowhere is one as well: open(2)
/// makes its target.
pub(super) fn check_new(path: &Path) -> io::Result<()> {
    match fs::read_link(path) {
        // No loop, for which the error would be another than that there is no file.
        Ok(target) => check_new(&directory_of(path).join(target)),
        Err(_) => check_directory(path),
    }
}

/// Why a file cannot be made in the directory of this path.
pub(super) fn check_directory(path: &Path) -> io::Result<()> {
    Ok(access(directory_of(path), AccessFlags::W_OK | AccessFlags::X_OK)?)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_that_cannot_be_created_is_told_from_one_that_can() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        check(&path).unwrap();
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        check(&path).unwrap();
        check("relative".as_ref()).unwrap();
        let link = |name: &str, target: &Path| {
            let link = directory.path().join(name);
            symlink(target, &link).unwrap();
            link
        };
        check(&link("new", "target".as_ref())).unwrap();
        let nowhere = link("nowhere", "no/target".as_ref());
        let itself = link("itself", "itself".as_ref());
        for path in [&nowhere, &itself] {
            assert!(check(path).is_err(), "{}", path.display());
        }
        for path in [directory.path(), &path.join("x"), &directory.path().join("no/x")] {
            assert!(check(path).is_err(), "{}", path.display());
        }
    }
}
