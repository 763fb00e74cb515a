//! The listening socket: bound, accepted from, and removed.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{self, Backlog, sockopt};
use nix::sys::stat::Mode;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle};

use super::access::{Credentials, Origin};
use super::errors::ListenError;
use super::inherited_socket::{self, InheritedSocket};
use super::named_listener::NamedListener;
use crate::Locator;
use crate::server::socket::Socket;

/// A listening socket. Dropping it removes it from the file system, unless it was inherited.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix(NamedListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Binds a socket; a unix socket with this mode.
    pub(crate) fn bind(locator: &Locator, mode: Mode) -> Result<Self, ListenError> {
        match locator {
            Locator::Unix(path) => NamedListener::bind(path, mode).map(Self::Unix),
            Locator::Tcp { host, port } => bind_tcp(locator, host, *port),
        }
    }

    /// Takes over a socket that a service manager has made, and will remove.
    pub(crate) fn take_over(socket: OwnedFd, locator: &Locator) -> Result<Self, ListenError> {
        match inherited_socket::take_over(socket, locator)? {
            InheritedSocket::Tcp(socket) => Ok(Self::Tcp(TcpListener::from_std(socket))),
            InheritedSocket::Unix(socket, path) => {
                let socket = UnixListener::from_std(socket);
                NamedListener::take_over(socket, path).map(Self::Unix)
            }
        }
    }

    /// Where it listens; for port 0, with the port that the system chose.
    pub(crate) fn locator(&self) -> io::Result<Locator> {
        Ok(match self {
            Self::Unix(socket) => Locator::Unix(socket.path().to_owned()),
            Self::Tcp(socket) => {
                let address = socket.local_addr()?;
                Locator::Tcp { host: address.ip().to_string(), port: address.port() }
            }
        })
    }

    /// The address of a TCP socket.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(socket) => socket.local_addr().ok().map(|address| address.ip()),
        }
    }

    /// True if other machines can connect.
    pub(crate) fn is_exposed(&self) -> bool {
        self.ip().is_some_and(|address| !address.to_canonical().is_loopback())
    }

    /// True if clients are on this machine.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.register(registry, token),
            Self::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
        }
    }

    /// Refuses connections from now on; those in the backlog can still be accepted. Connections to an
    /// inherited socket wait there for the process that inherits it next.
    pub(crate) fn stop(&mut self) {
        // A TCP socket would reset those in the backlog, too.
        if let Self::Unix(socket) = self {
            socket.stop();
        }
    }

    /// Listens again after [`Listener::stop`].
    pub(crate) fn resume(&mut self, registry: &Registry, token: Token) -> Result<(), ListenError> {
        match self {
            Self::Unix(socket) => socket.resume(registry, token),
            Self::Tcp(_) => Ok(()),
        }
    }

    pub(crate) fn accept(&mut self) -> io::Result<(Socket, Origin)> {
        match self {
            Self::Unix(socket) => {
                let stream = socket.accept()?;
                let peer = socket::getsockopt(&stream, sockopt::PeerCredentials);
                // The number of a process that is not visible from here is 0.
                let process = peer.ok().map(|peer| Credentials {
                    uid: peer.uid(),
                    pid: u32::try_from(peer.pid()).ok().filter(|&pid| pid > 0),
                });
                Ok((Socket::Unix(stream), Origin::Process(process)))
            }
            Self::Tcp(socket) => {
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

    use super::*;

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
