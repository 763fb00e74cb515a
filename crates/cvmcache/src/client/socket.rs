//! A connected stream socket, unix or TCP, with timeouts.

use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::libc;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, sendmsg, shutdown, socket_with,
};

use super::deadline::{Deadline, at_least_some};
use crate::Locator;

/// The longest path that fits into a socket address, in bytes.
const MAX_SOCKET_PATH: usize = 107;

/// A blocking socket. Sending to a peer that has closed is an error, never a signal.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    timeout: Option<Duration>,
}

impl Socket {
    /// Connects. A peer that listens, but accepts no connection before the deadline, is an error
    /// of the kind `WouldBlock` or `TimedOut`.
    pub(super) fn connect(locator: &Locator, deadline: &mut Deadline) -> io::Result<Self> {
        let fd = match locator {
            Locator::Unix(path) => connect_unix(path, deadline)?,
            Locator::Tcp { host, port } => {
                // A plugin that listens on every address is found on the nearest.
                let host = if host.is_empty() { "localhost" } else { host };
                let stream = connect_tcp(host, *port, deadline)?;
                stream.set_nodelay(true)?;
                stream.into()
            }
        };
        Ok(Self { fd, timeout: None })
    }

    /// Bounds the waits of each call from now on, which fails with `WouldBlock` then.
    pub(super) fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(at_least_some);
        set_socket_timeout(&self.fd, Timeout::Recv, timeout)?;
        set_socket_timeout(&self.fd, Timeout::Send, timeout)?;
        self.timeout = timeout;
        Ok(())
    }

    /// When a call ends that begins now.
    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.timeout)
    }

    /// Waits for bytes and appends them, as many as fit into the spare capacity. Returns how many
    /// they are; none at the end of the stream.
    pub(super) fn receive(
        &self,
        buffer: &mut Vec<u8>,
        deadline: &mut Deadline,
    ) -> io::Result<usize> {
        loop {
            // The first wait of a call takes one system call: the socket's own timeout is as long.
            if !deadline.begin() {
                self.wait(PollFlags::IN, deadline)?;
            }
            match recv(&self.fd, spare_capacity(buffer), RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                received => return Ok(received?.0),
            }
        }
    }

    /// The same for bytes that have arrived already; `None` if there are none.
    pub(super) fn receive_now(&self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let received =
            retry_on_intr(|| recv(&self.fd, spare_capacity(buffer), RecvFlags::DONTWAIT));
        unless_it_would_block(received.map(|(received, _)| received))
    }

    /// Sends what fits now, of one slice and then the other. Returns how many bytes it was, `None`
    /// if nothing fits.
    pub(super) fn send_now(&self, slices: [&[u8]; 2]) -> io::Result<Option<usize>> {
        let slices = slices.map(IoSlice::new);
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        unless_it_would_block(retry_on_intr(|| {
            sendmsg(&self.fd, &slices, &mut SendAncillaryBuffer::default(), flags)
        }))
    }

    /// Sends all bytes, and waits for nothing but room for them.
    pub(super) fn send_all(&self, mut bytes: &[u8], deadline: &mut Deadline) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.send_now([bytes, &[]])? {
                Some(sent) => bytes = &bytes[sent..],
                None => _ = self.wait(PollFlags::OUT, deadline)?,
            }
        }
        Ok(())
    }

    /// Waits until there is room to send or, if that is of interest, something to receive. True
    /// if there is something to receive.
    pub(super) fn wait_for_room(
        &self,
        or_bytes: bool,
        deadline: &mut Deadline,
    ) -> io::Result<bool> {
        let bytes = if or_bytes { PollFlags::IN } else { PollFlags::empty() };
        let ready = self.wait(PollFlags::OUT | bytes, deadline)?;
        let ended = PollFlags::HUP | PollFlags::ERR;
        Ok(or_bytes && ready.intersects(PollFlags::IN | ended))
    }

    /// Waits for one of these events, and returns those that there are.
    fn wait(&self, events: PollFlags, deadline: &mut Deadline) -> io::Result<PollFlags> {
        let mut socket = [PollFd::new(&self.fd, events)];
        loop {
            let timeout = deadline.remaining()?.map(Timespec::try_from).transpose();
            let timeout = timeout.map_err(io::Error::other)?;
            match poll(&mut socket, timeout.as_ref()) {
                // A signal; the time goes on.
                Err(Errno::INTR) => {}
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(_) => return Ok(socket[0].revents()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        Ok(shutdown(&self.fd, Shutdown::Write)?)
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self { fd: stream.into(), timeout: None }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn unless_it_would_block(result: rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(Errno::AGAIN) => Ok(None),
        result => Ok(Some(result?)),
    }
}

fn connect_tcp(host: &str, port: u16, deadline: &mut Deadline) -> io::Result<TcpStream> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for address in resolve(host, port, deadline)? {
        result = match deadline.remaining()? {
            Some(remaining) => TcpStream::connect_timeout(&address, remaining),
            None => TcpStream::connect(address),
        };
        if result.is_ok() {
            break;
        }
    }
    result
}

/// The addresses of a host.
fn resolve(host: &str, port: u16, deadline: &mut Deadline) -> io::Result<Vec<SocketAddr>> {
    let resolve = |host: &str| (host, port).to_socket_addrs().map(Vec::from_iter);
    let remaining = match deadline.remaining()? {
        Some(remaining) if host.parse::<IpAddr>().is_err() => remaining,
        _ => return resolve(host),
    };
    // getaddrinfo(3) has no timeout, so it has a thread, which ends when it has an answer.
    let (sender, receiver) = mpsc::channel();
    let host = host.to_owned();
    thread::Builder::new().spawn(move || {
        let resolved = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        // There is no receiver after the deadline.
        let _ = sender.send(resolved);
    })?;
    receiver.recv_timeout(remaining).map_err(|_| io::ErrorKind::TimedOut)?
}

fn connect_unix(path: &Path, deadline: &mut Deadline) -> io::Result<OwnedFd> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        // It is opened first, without access to what is behind it, and has a short name for as
        // long as it is open.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        return connect_unix(path.as_ref(), deadline);
    }
    let flags = SocketFlags::CLOEXEC;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // It bounds the wait for a place in the queue, too.
    set_socket_timeout(&fd, Timeout::Send, deadline.remaining()?.map(at_least_some))?;
    let address = SocketAddrUnix::new(path)?;
    retry_on_intr(|| connect(&fd, &address))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_found_however_long_its_path_is() {
        let directory = tempfile::tempdir().unwrap();
        for len in [1, 20, 100, 255] {
            let short = directory.path().join("short");
            let listener = UnixListener::bind(&short).unwrap();
            let path = directory.path().join("x".repeat(len));
            fs::rename(&short, &path).unwrap();
            let socket = Socket::connect(&Locator::Unix(path), &mut Deadline::after(None)).unwrap();
            let (_peer, _) = listener.accept().unwrap();
            socket.send_all(b"hello", &mut socket.deadline()).unwrap();
        }
    }

    #[test]
    fn a_long_path_without_a_plugin_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x".repeat(200));
        let error =
            Socket::connect(&Locator::Unix(path.clone()), &mut Deadline::after(None)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        fs::write(&path, "no socket").unwrap();
        let error = Socket::connect(&Locator::Unix(path), &mut Deadline::after(None)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn tcp_nodelay_is_set() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let locator = Locator::Tcp { host: "127.0.0.1".into(), port };
        for timeout in [None, Some(Duration::from_secs(20))] {
            let socket = Socket::connect(&locator, &mut Deadline::after(timeout)).unwrap();
            assert!(rustix::net::sockopt::tcp_nodelay(&socket).unwrap());
        }
    }

    #[test]
    fn a_connect_to_a_full_backlog_times_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        let locator = Locator::Unix(path);
        let timeout = Some(Duration::from_millis(10));
        let connect = || Socket::connect(&locator, &mut Deadline::after(timeout));
        let connected: Vec<_> = (0..10).map(|_| connect()).collect();
        assert!(connected[0].is_ok());
        let error = connected[9].as_ref().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
