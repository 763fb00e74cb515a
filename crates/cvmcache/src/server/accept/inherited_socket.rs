//! Socket activation: a listening socket inherited from a service manager. Checks that clients can be
//! served on it, and that it is the one that the configuration names.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};

use super::errors::ListenError;
use crate::Locator;

/// A listening socket.
#[derive(Debug)]
pub(crate) enum InheritedSocket {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// Where an inherited socket listens.
///
/// # Errors
///
/// [`ListenError::InvalidSocket`] if clients cannot be served on it.
pub(crate) fn locator_of(socket: &OwnedFd) -> Result<Locator, ListenError> {
    check(socket)?;
    let address = getsockname::<SockaddrStorage>(socket.as_raw_fd()).map_err(|error| {
        ListenError::InvalidSocket { problem: format!("its address is not known: {error}") }
    })?;
    if let Some(unix) = address.as_unix_addr() {
        return match unix.path() {
            Some(path) => Ok(Locator::Unix(path.to_owned())),
            None => Err(unsuitable("it has no path; clients cannot connect to abstract sockets")),
        };
    }
    let (v4, v6) = (address.as_sockaddr_in(), address.as_sockaddr_in6());
    let address = v4.map(|v4| SocketAddr::from(*v4)).or(v6.map(|v6| SocketAddr::from(*v6)));
    let address = address.ok_or_else(|| unsuitable("it is neither a unix nor a TCP socket"))?;
    Ok(Locator::Tcp { host: address.ip().to_string(), port: address.port() })
}

/// Takes over a socket that clients are to find at `locator`.
///
/// # Errors
///
/// [`ListenError::InvalidSocket`] and [`ListenError::AddressMismatch`].
pub(crate) fn take_over(
    socket: OwnedFd,
    locator: &Locator,
) -> Result<InheritedSocket, ListenError> {
    let actual = locator_of(&socket)?;
    let (agrees, taken) = match (&actual, locator) {
        (Locator::Unix(actual), Locator::Unix(configured)) => (
            is_same_file(actual, configured),
            InheritedSocket::Unix(socket.into(), configured.clone()),
        ),
        (Locator::Tcp { .. }, Locator::Tcp { host, port }) => {
            let socket = TcpListener::from(socket);
            let agrees = socket.local_addr().is_ok_and(|actual| is_configured(actual, host, *port));
            (agrees, InheritedSocket::Tcp(socket))
        }
        _ => return Err(ListenError::AddressMismatch { locator: locator.clone(), actual }),
    };
    if !agrees {
        return Err(ListenError::AddressMismatch { locator: locator.clone(), actual });
    }
    taken.set_nonblocking().map_err(|error| ListenError::InvalidSocket {
        problem: format!("it cannot be told not to block: {error}"),
    })?;
    Ok(taken)
}

impl InheritedSocket {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            InheritedSocket::Unix(socket, _) => socket.set_nonblocking(true),
            InheritedSocket::Tcp(socket) => socket.set_nonblocking(true),
        }
    }
}

fn unsuitable(problem: &str) -> ListenError {
    ListenError::InvalidSocket { problem: problem.to_owned() }
}

fn check(socket: &OwnedFd) -> Result<(), ListenError> {
    match getsockopt(socket, sockopt::SockType) {
        Ok(SockType::Stream) => {}
        Ok(_) => return Err(unsuitable("it is no stream socket; use ListenStream=")),
        Err(_) => return Err(unsuitable("it is no socket; use ListenStream=")),
    }
    if !getsockopt(socket, sockopt::AcceptConn).unwrap_or(false) {
        return Err(unsuitable("it does not listen; leave out Accept=yes"));
    }
    let address = getsockname::<SockaddrStorage>(socket.as_raw_fd());
    let family = address.ok().and_then(|address| address.family());
    match family {
        Some(AddressFamily::Unix | AddressFamily::Inet | AddressFamily::Inet6) => Ok(()),
        _ => Err(unsuitable("it is neither a unix nor a TCP socket")),
    }
}

/// True for two names of a path, as those in `/run` and `/var/run` are.
fn is_same_file(actual: &Path, configured: &Path) -> bool {
    let file = |path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    actual == configured || (file(actual).is_some() && file(actual) == file(configured))
}

/// True for exactly this address: one that admits more clients than the configuration allows is a
/// mistake, too.
fn is_configured(actual: SocketAddr, host: &str, port: u16) -> bool {
    if port != 0 && port != actual.port() {
        return false;
    }
    match host {
        "" => actual.ip().is_unspecified(),
        host => (host, actual.port())
            .to_socket_addrs()
            .is_ok_and(|mut addresses| addresses.any(|address| address.ip() == actual.ip())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixStream};

    use super::*;

    fn error(socket: impl Into<OwnedFd>, locator: &str) -> String {
        take_over(socket.into(), &locator.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn only_a_listening_stream_socket_is_taken_over() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let name = UnixAddress::from_abstract_name(b"cvmcache-inherited-socket-test").unwrap();
        for (error, expected) in [
            (error(UnixDatagram::unbound().unwrap(), "unix=/a"), "ListenStream="),
            (error(UdpSocket::bind("127.0.0.1:0").unwrap(), "tcp=:0"), "ListenStream="),
            (error(fs::File::open("/dev/null").unwrap(), "unix=/a"), "it is no socket"),
            (error(stream, "unix=/a"), "leave out Accept=yes"),
            (error(UnixListener::bind_addr(&name).unwrap(), "unix=/a"), "it has no path"),
        ] {
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_inherited_socket_has_to_listen_at_the_configured_locator() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let unix = UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = |socket: &TcpListener| socket.local_addr().unwrap().port();
        let with = |host: &str, socket: &TcpListener| format!("tcp={host}:{}", port(socket));
        let other = if port(&tcp) == 1 { 2 } else { 1 };
        for error in [
            error(unix.try_clone().unwrap(), "unix=/elsewhere"),
            error(unix.try_clone().unwrap(), "tcp=127.0.0.1:1"),
            error(tcp.try_clone().unwrap(), &format!("tcp=127.0.0.1:{other}")),
            error(tcp.try_clone().unwrap(), &with("", &tcp)),
            error(everywhere.try_clone().unwrap(), &with("127.0.0.1", &everywhere)),
        ] {
            assert!(error.contains("CVMFS_CACHE_PLUGIN_LOCATOR"), "{error}");
        }
        let take = |socket: OwnedFd, text: &str| take_over(socket, &text.parse().unwrap());
        take(tcp.try_clone().unwrap().into(), &with("127.0.0.1", &tcp)).unwrap();
        take(tcp.into(), "tcp=127.0.0.1:0").unwrap();
        take(everywhere.try_clone().unwrap().into(), &with("", &everywhere)).unwrap();
        // The directory may have a second name.
        let name = directory.path().join("name");
        std::os::unix::fs::symlink(directory.path(), &name).unwrap();
        take_over(unix.into(), &Locator::Unix(name.join("socket"))).unwrap();
    }
}
