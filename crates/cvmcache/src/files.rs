//! Files that a configuration names: opened without waiting for another process, and told apart.

#[cfg(feature = "program")]
mod append;

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

#[cfg(feature = "program")]
pub(crate) use append::{append_to, check_appendable};
use nix::fcntl::OFlag;

/// How many bytes of a configuration file are read.
const MAX_CONFIG: u64 = 1024 * 1024;

/// They make no difference to a regular file.
const FLAGS: OFlag = OFlag::O_NONBLOCK.union(OFlag::O_NOCTTY);

/// Which file a path leads to, or a descriptor is open on.
///
/// Invariant: unambiguous only while the file is held open, because an inode number is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Opens a regular file. What is none is refused: open(2) of a FIFO waits for its other end, and that of
/// a device may do anything.
pub(crate) fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    if let Ok(metadata) = fs::metadata(path) {
        refuse_other_types(metadata.file_type())?;
    }
    // It may have been replaced meanwhile.
    let file = options.custom_flags(FLAGS.bits()).open(path)?;
    refuse_other_types(file.metadata()?.file_type())?;
    Ok(file)
}

/// Reads a configuration file.
pub(crate) fn read_config(path: &Path) -> io::Result<Vec<u8>> {
    read_regular_file(path, MAX_CONFIG)
}

/// Reads a file that a configuration names, such as one with a key: at most `max` bytes.
///
/// ```
/// let error = cvmcache::read_regular_file("/dev/zero".as_ref(), 1024).unwrap_err();
/// assert_eq!(error.to_string(), "it is a device, not a regular file");
/// ```
///
/// # Errors
///
/// Those of the system; [`ErrorKind::FileTooLarge`] if it has more bytes; and an error if it is no
/// regular file: a FIFO, whose open(2) would wait for a writer, is not waited for.
pub fn read_regular_file(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(File::options().read(true), path)?;
    let mut content = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        let reason = format!("it has more than {max} bytes; is it the right file?");
        return Err(io::Error::new(ErrorKind::FileTooLarge, reason));
    }
    Ok(content)
}

fn refuse_other_types(file_type: FileType) -> io::Result<()> {
    let what = match file_type {
        it if it.is_file() => return Ok(()),
        it if it.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        it if it.is_fifo() => "a FIFO",
        it if it.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::other(format!("it is {what}, not a regular file")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    /// One of each type that is no regular file.
    fn others(directory: &Path) -> Vec<(PathBuf, &'static str)> {
        let (fifo, socket) = (directory.join("fifo"), directory.join("socket"));
        mkfifo(&fifo, Mode::S_IRWXU).expect("a FIFO");
        drop(UnixListener::bind(&socket).expect("a socket"));
        let link = directory.join("link");
        symlink(&fifo, &link).expect("a link");
        vec![
            (fifo, "it is a FIFO, not a regular file"),
            (link, "it is a FIFO, not a regular file"),
            (socket, "it is a socket, not a regular file"),
            ("/dev/urandom".into(), "it is a device, not a regular file"),
            (directory.to_owned(), "is a directory"),
        ]
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        for (path, expected) in others(directory.path()) {
            for error in [
                append_to(&path).unwrap_err(),
                read_config(&path).unwrap_err(),
                check_appendable(&fs::metadata(&path).unwrap()).unwrap_err(),
            ] {
                assert!(error.to_string().contains(expected), "{}: {error}", path.display());
            }
        }
    }

    #[test]
    fn a_fifo_that_has_a_reader_is_refused_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let _both_ends = File::options().read(true).write(true).open(&path).unwrap();
        assert!(append_to(&path).unwrap_err().to_string().contains("a FIFO"));
        assert!(read_config(&path).unwrap_err().to_string().contains("a FIFO"));
    }

    #[test]
    fn lines_can_be_appended_to_devices_whose_writes_never_wait() {
        for path in ["/dev/null", "/dev/zero", "/dev/full"] {
            append_to(path.as_ref()).unwrap();
            check_appendable(&fs::metadata(path).unwrap()).unwrap();
            assert!(read_config(path.as_ref()).unwrap_err().to_string().contains("a device"));
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_no_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        File::create(&path).unwrap().set_len(MAX_CONFIG).unwrap();
        assert_eq!(read_config(&path).unwrap().len() as u64, MAX_CONFIG);
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read_config(&path).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
