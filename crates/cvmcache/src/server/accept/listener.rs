//! The listening socket: bound with its lock file, accepted from, and removed.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle, socket_peercred};
use tracing::debug;

use super::access::Origin;
use super::errors::ListenError;
use super::inherited_socket::{self, InheritedSocket};
use crate::Locator;
use crate::server::socket::Socket;

/// The longest path that fits into a socket address, in bytes.
const MAX_ADDRESS: usize = 107;

/// A listening socket. Dropping it removes it from the file system, unless it was inherited.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix { socket: UnixListener, path: PathBuf, is_ours: bool, _lock: Option<Flock<File>> },
    Tcp(TcpListener),
}

impl Listener {
    pub(crate) fn bind(locator: &Locator) -> Result<Self, ListenError> {
        match locator {
            Locator::Unix(path) => bind_unix(locator, path),
            Locator::Tcp { host, port } => bind_tcp(locator, host, *port),
        }
    }

    /// Takes over a socket that a service manager has made, and will remove.
    pub(crate) fn take_over(socket: OwnedFd, locator: &Locator) -> Result<Self, ListenError> {
        match inherited_socket::take_over(socket, locator)? {
            InheritedSocket::Tcp(socket) => Ok(Listener::Tcp(TcpListener::from_std(socket))),
            InheritedSocket::Unix(socket, path) => {
                // The lock keeps another plugin from replacing the socket, but the plugin's user need
                // not be allowed to write there.
                let lock = match lock(locator, &path) {
                    Err(error @ ListenError::InUse { .. }) => return Err(error),
                    Err(error) => {
                        debug!(%error, "another plugin started here would replace the socket");
                        None
                    }
                    Ok(lock) => Some(lock),
                };
                let socket = UnixListener::from_std(socket);
                Ok(Listener::Unix { socket, path, is_ours: false, _lock: lock })
            }
        }
    }

    /// Where it listens; for port 0, with the port that the system chose.
    pub(crate) fn locator(&self) -> io::Result<Locator> {
        Ok(match self {
            Listener::Unix { path, .. } => Locator::Unix(path.clone()),
            Listener::Tcp(socket) => {
                let address = socket.local_addr()?;
                Locator::Tcp { host: address.ip().to_string(), port: address.port() }
            }
        })
    }

    /// True if other machines can connect.
    pub(crate) fn is_exposed(&self) -> bool {
        match self {
            Listener::Unix { .. } => false,
            Listener::Tcp(socket) => {
                socket.local_addr().is_ok_and(|address| !address.ip().to_canonical().is_loopback())
            }
        }
    }

    /// True if clients are on this machine.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Listener::Unix { .. })
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Unix { socket, .. } => registry.register(socket, token, Interest::READABLE),
            Listener::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
        }
    }

    /// Refuses connections from now on; those in the backlog can still be accepted. Connections to an
    /// inherited socket wait there for the process that inherits it next.
    pub(crate) fn stop(&self) {
        // A TCP socket would reset those in the backlog, too.
        if let Listener::Unix { socket, is_ours: true, .. } = self {
            // Fails only for what is not a socket.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Read);
        }
    }

    /// Listens again after [`Listener::stop`].
    pub(crate) fn resume(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if let Listener::Unix { socket, path, is_ours: true, .. } = self {
            remove_stale(path)?;
            *socket = UnixListener::from_std(open_unix(path)?.into());
            self.register(registry, token)?;
        }
        Ok(())
    }

    pub(crate) fn accept(&self) -> io::Result<(Socket, Origin)> {
        match self {
            Listener::Unix { socket, .. } => {
                let (stream, _) = socket.accept()?;
                let user = socket_peercred(&stream).ok().map(|peer| peer.uid.as_raw());
                Ok((Socket::Unix(stream), Origin::User(user)))
            }
            Listener::Tcp(socket) => {
                let (stream, address) = socket.accept()?;
                // Replies are small, and a client waits for each of them. An error means that the
                // connection is over already, which shows soon enough.
                let _ = stream.set_nodelay(true);
                // A client whose machine has vanished must not keep its references for ever.
                let _ = set_socket_keepalive(&stream, true);
                let _ = set_tcp_keepidle(&stream, Duration::from_secs(60));
                Ok((Socket::Tcp(stream), Origin::Address(address.ip())))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix { path, is_ours: true, .. } = self {
            // The lock is still held, so this is our socket. The lock file stays: removing it
            // would let two processes hold locks on two files of that name.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_unix(locator: &Locator, path: &Path) -> Result<Listener, ListenError> {
    let lock = lock(locator, path)?;
    let system = |source| ListenError::System { locator: locator.clone(), source };
    remove_stale(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => ListenError::NotASocket { path: path.to_owned() },
        _ => system(error),
    })?;
    let socket = UnixListener::from_std(open_unix(path).map_err(system)?.into());
    Ok(Listener::Unix { socket, path: path.to_owned(), is_ours: true, _lock: Some(lock) })
}

fn lock(locator: &Locator, path: &Path) -> Result<Flock<File>, ListenError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let unlockable = |source| ListenError::LockFile { path: PathBuf::from(&lock_path), source };
    let lock_file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // A FIFO would wait for a reader.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(&lock_path)
        .map_err(unlockable)?;
    Flock::lock(lock_file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => ListenError::InUse { locator: locator.clone() },
        errno => unlockable(errno.into()),
    })
}

/// Removes what a process that was killed has left. The lock is held, so no process serves there.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn open_unix(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Before there is a file: at no time can another user open it.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    if path.as_os_str().len() <= MAX_ADDRESS {
        socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    } else {
        bind_long(&socket, path)?;
    }
    socket::listen(&socket, Backlog::MAXCONN)?;
    Ok(socket)
}

/// Binds a socket under a path that is too long for an address: under a short name beside it,
/// by way of the directory's descriptor, and then renames it.
fn bind_long(socket: &OwnedFd, path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::options()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_PATH).bits())
        .open(parent)?;
    // The lock belongs to the path, so the short name has to differ by path, too.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let short = format!(".cvmcache-{}-{number}", std::process::id());
    let address = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(&short);
    remove_stale(&address)?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(address.as_os_str().as_bytes())?)?;
    std::fs::rename(&address, path).inspect_err(|_| {
        let _ = std::fs::remove_file(&address);
    })
}

fn bind_tcp(locator: &Locator, host: &str, port: u16) -> Result<Listener, ListenError> {
    let resolve = |host: &str| (host, port).to_socket_addrs().map(Vec::from_iter);
    // Without a host: any address, of both families or of the one that there is.
    let addresses = match host {
        "" => resolve("::").and_then(|v6| Ok([v6, resolve("0.0.0.0")?].concat())),
        _ => resolve(host),
    };
    let addresses =
        addresses.map_err(|source| ListenError::Resolve { locator: locator.clone(), source })?;
    let mut failure = io::Error::from(ErrorKind::AddrNotAvailable);
    for address in addresses {
        match open_tcp(address) {
            Ok(socket) => return Ok(Listener::Tcp(socket)),
            Err(error) => failure = error,
        }
    }
    if failure.kind() == ErrorKind::AddrInUse {
        return Err(ListenError::InUse { locator: locator.clone() });
    }
    Err(ListenError::System { locator: locator.clone(), source: failure })
}

fn open_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    // The backlog is short so far. A SYN that finds it full is sent again only after a second, the
    // kernel's TCP_TIMEOUT_INIT. The backlog requested here is bounded by net.core.somaxconn.
    socket::listen(&socket, Backlog::MAXCONN)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    use mio::Poll;

    use super::*;

    #[test]
    fn a_lock_file_that_is_a_fifo_is_an_error_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        nix::unistd::mkfifo(&directory.path().join("socket.lock"), Mode::S_IRWXU).unwrap();
        let error = Listener::bind(&Locator::Unix(path)).unwrap_err();
        assert!(matches!(error, ListenError::LockFile { .. }), "{error}");
    }

    #[test]
    fn a_connection_made_before_it_stops_is_accepted_and_none_after() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut listener = Listener::bind(&Locator::Unix(path.clone())).unwrap();
        let _early = UnixStream::connect(&path).unwrap();
        listener.stop();
        let late = UnixStream::connect(&path).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::ConnectionRefused);
        listener.accept().unwrap();
        let error = listener.accept().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::InvalidInput));
        let poll = Poll::new().unwrap();
        listener.resume(poll.registry(), Token(1)).unwrap();
        let _again = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn a_burst_of_tcp_connections_fits_into_the_backlog() {
        let listener = open_tcp(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let at_once = Duration::from_millis(500);
        let connect = |_| TcpStream::connect_timeout(&address, at_once);
        let burst: io::Result<Vec<_>> = (0..400).map(connect).collect();
        assert!(burst.is_ok(), "{burst:?}");
    }
}
