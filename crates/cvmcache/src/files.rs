//! Files that a configuration names: opened without waiting for another process, and told apart.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::makedev;

/// How many bytes of a configuration file are read.
const MAX_CONFIG: u64 = 1024 * 1024;

/// The number of `/dev/null`.
const NULL: (u64, u64) = (1, 3);

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
    // It may have been replaced meanwhile. O_NONBLOCK makes no difference to a regular file.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = options.custom_flags(flags.bits()).open(path)?;
    refuse_other_types(file.metadata()?.file_type())?;
    Ok(file)
}

/// Opens a file to append to it, and makes it if it is not there. It is a regular file, or `/dev/null`.
pub(crate) fn append_to(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).append(true);
    if fs::metadata(path).is_ok_and(|metadata| is_null(&metadata)) {
        return options.open(path);
    }
    open_regular(&mut options, path)
}

/// Refuses what [`append_to`] refuses by its type.
pub(crate) fn check_appendable(metadata: &Metadata) -> io::Result<()> {
    if is_null(metadata) { Ok(()) } else { refuse_other_types(metadata.file_type()) }
}

/// Reads a configuration file.
pub(crate) fn read_config(path: &Path) -> io::Result<Vec<u8>> {
    let file = open_regular(File::options().read(true), path)?;
    let mut text = Vec::new();
    file.take(MAX_CONFIG + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_CONFIG {
        let reason = format!("it has more than {MAX_CONFIG} bytes, so it is no configuration");
        return Err(io::Error::new(ErrorKind::FileTooLarge, reason));
    }
    Ok(text)
}

fn is_null(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == makedev(NULL.0, NULL.1)
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
            ("/dev/zero".into(), "it is a device, not a regular file"),
            ("/dev/full".into(), "it is a device, not a regular file"),
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
    fn lines_can_be_appended_to_dev_null() {
        append_to("/dev/null".as_ref()).unwrap();
        check_appendable(&fs::metadata("/dev/null").unwrap()).unwrap();
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
