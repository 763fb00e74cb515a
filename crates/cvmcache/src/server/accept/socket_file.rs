//! The file of a unix socket: bound with its mode, found to be live or stale, and removed.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};

use crate::files::FileId;

/// The longest path that fits into a socket address (`sun_path` of unix(7)), in bytes.
const MAX_ADDRESS: usize = 107;

/// What is at the path of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// A socket that no process has open: what a process that was killed has left.
    Stale(FileId),
    /// A socket that a process has open, whether it listens or not; it may be where a link leads to, as
    /// clients follow links.
    Live(FileId),
    /// Something else.
    NoSocket,
}

/// Looks at the path of a socket. A process that listens there notices nothing.
pub(crate) fn find(path: &Path) -> io::Result<Found> {
    let open = |flags: OFlag| {
        File::options().read(true).custom_flags((OFlag::O_PATH | flags).bits()).open(path)
    };
    let file = match open(OFlag::O_NOFOLLOW) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if metadata.file_type().is_symlink() {
        return Ok(match open(OFlag::empty()).and_then(|target| of_socket(&target, path)) {
            Ok(Found::Live(id)) => Found::Live(id),
            _ => Found::NoSocket,
        });
    }
    of_socket(&file, path)
}

/// What an open file is, which is at `path`.
fn of_socket(file: &File, path: &Path) -> io::Result<Found> {
    let metadata = file.metadata()?;
    if !metadata.file_type().is_socket() {
        return Ok(Found::NoSocket);
    }
    let id = FileId::of(&metadata);
    Ok(if is_live(file, path)? { Found::Live(id) } else { Found::Stale(id) })
}

/// Connects a socket of the wrong type: unix_find_bsd() of the kernel says EPROTOTYPE if a process has
/// the socket open, before the connection is queued, and ECONNREFUSED if none has.
fn is_live(file: &File, path: &Path) -> io::Result<bool> {
    let probe =
        socket::socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let address = match path.as_os_str().len() {
        0..=MAX_ADDRESS => UnixAddr::new(path)?,
        _ => UnixAddr::new(&own_name(file))?,
    };
    match socket::connect(probe.as_raw_fd(), &address) {
        // A datagram socket is no plugin's, and not to be removed either.
        Ok(()) | Err(Errno::EPROTOTYPE) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// True if this file is at the path of a socket.
pub(crate) fn is_at(path: &Path, id: FileId) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| FileId::of(&metadata) == id)
}

/// Binds a socket to a path where there is nothing, and listens. The mode does not depend on the umask.
pub(crate) fn bind(path: &Path, mode: Mode) -> io::Result<(OwnedFd, FileId)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Before there is a file: at no time does it admit more users than it is to admit.
    fchmod(&socket, mode & (Mode::S_IRUSR | Mode::S_IWUSR))?;
    let id = if path.as_os_str().len() <= MAX_ADDRESS {
        socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        set_mode(path, mode).inspect_err(|_| {
            let _ = fs::remove_file(path);
        })?
    } else {
        bind_long(&socket, path, mode)?
    };
    socket::listen(&socket, Backlog::MAXCONN)?;
    Ok((socket, id))
}

/// Binds a socket under a path that is too long for an address: under a short name beside it,
/// by way of the directory's descriptor, and then renames it.
fn bind_long(socket: &OwnedFd, path: &Path, mode: Mode) -> io::Result<FileId> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::options()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_PATH).bits())
        .open(parent)?;
    // The lock belongs to the path, so the short name has to tell paths apart, too.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let short = format!(".cvmcache-{}-{number}", std::process::id());
    let address = own_name(&directory).join(&short);
    if let Ok(Found::Stale(_)) = find(&address) {
        fs::remove_file(&address)?;
    }
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(address.as_os_str().as_bytes())?)?;
    let renamed = set_mode(&address, mode).and_then(|id| fs::rename(&address, path).map(|()| id));
    renamed.inspect_err(|_| {
        let _ = fs::remove_file(&address);
    })
}

/// Sets the mode of a socket's file, which bind(2) has cut by the umask.
fn set_mode(path: &Path, mode: Mode) -> io::Result<FileId> {
    // A link that has taken its place is not followed.
    let options = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    let file = File::options().read(true).custom_flags(options.bits()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_socket() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    if metadata.permissions().mode() & 0o777 != mode.bits() {
        fs::set_permissions(own_name(&file), PermissionsExt::from_mode(mode.bits()))?;
    }
    Ok(FileId::of(&metadata))
}

/// A short path to an open file.
fn own_name(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn a_live_socket_is_told_from_a_stale_one_and_its_owner_notices_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("d".repeat(200));
        fs::create_dir(&long).unwrap();
        for path in [directory.path().join("socket"), long.join("socket")] {
            assert_eq!(find(&path).unwrap(), Found::Nothing);
            let (socket, id) = bind(&path, Mode::S_IRWXU).unwrap();
            let listener = UnixListener::from(socket);
            assert_eq!(find(&path).unwrap(), Found::Live(id));
            let error = listener.accept().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "the backlog is empty");
            rustix::net::shutdown(&listener, rustix::net::Shutdown::Read).unwrap();
            assert_eq!(find(&path).unwrap(), Found::Live(id), "it refuses connections");
            drop(listener);
            assert_eq!(find(&path).unwrap(), Found::Stale(id));
        }
    }

    #[test]
    fn a_link_is_as_live_as_the_socket_that_it_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["link".to_owned(), "n".repeat(200)] {
            let (path, link) = (directory.path().join("socket"), directory.path().join(name));
            let (socket, id) = bind(&path, Mode::S_IRWXU).unwrap();
            std::os::unix::fs::symlink(&path, &link).unwrap();
            assert_eq!(find(&link).unwrap(), Found::Live(id));
            drop(socket);
            assert_eq!(find(&link).unwrap(), Found::NoSocket, "it is not to be removed");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_is_no_stream_socket_is_not_stale() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("datagrams");
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        assert!(matches!(find(&path).unwrap(), Found::Live(_)));
        let path = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert_eq!(find(&path).unwrap(), Found::NoSocket);
        assert_eq!(find(directory.path()).unwrap(), Found::NoSocket);
    }

    #[test]
    fn a_socket_has_the_mode_it_is_to_have() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("d".repeat(200));
        fs::create_dir(&long).unwrap();
        for path in [directory.path().join("socket"), long.join("socket")] {
            for mode in [0o600, 0o666] {
                let (socket, id) = bind(&path, Mode::from_bits_retain(mode)).unwrap();
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
                assert!(is_at(&path, id));
                drop(socket);
                fs::remove_file(&path).unwrap();
            }
        }
    }
}
