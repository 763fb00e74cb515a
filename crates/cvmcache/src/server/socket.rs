//! The socket of a connection, unix or TCP.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

/// The send buffer of a unix socket, in bytes; the kernel doubles it, for its own structures, and takes no
/// more than `net.core.wmem_max` (socket(7)). The default has room for one reply of 128 KiB: when several
/// threads of a client read at a time, the next reply would wait until three quarters of that have been
/// taken (`unix_writable` in net/unix/af_unix.c). The buffer of a TCP socket grows by itself.
const SEND_BUFFER: usize = 512 * 1024;

/// A peer that has gone must not end the process by a signal.
const FLAGS: SendFlags = SendFlags::NOSIGNAL;

#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// What became of an attempt to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes: the buffer was filled up, and there may be more.
    Full(usize),
    /// So many bytes, and no more for now; perhaps none.
    Drained(usize),
    /// The end.
    Eof,
}

impl Socket {
    /// Reads once, into the spare capacity of `buffer`.
    pub(crate) fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<Received> {
        let free = buffer.capacity() - buffer.len();
        match rustix::io::retry_on_intr(|| {
            rustix::io::read(self, rustix::buffer::spare_capacity(buffer))
        }) {
            Ok(0) => Ok(Received::Eof),
            Ok(len) if len < free => Ok(Received::Drained(len)),
            Ok(len) => Ok(Received::Full(len)),
            Err(Errno::AGAIN) => Ok(Received::Drained(0)),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes once; 0 if the socket takes nothing for now.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        sent(rustix::io::retry_on_intr(|| rustix::net::send(self, bytes, FLAGS)))
    }

    /// The same, of several pieces.
    pub(crate) fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut ancillary = SendAncillaryBuffer::default();
        sent(rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(self, pieces, &mut ancillary, FLAGS)
        }))
    }

    /// Makes room for several large replies.
    pub(crate) fn enlarge_send_buffer(&self) {
        if let Socket::Unix(_) = self {
            // With a smaller buffer, replies wait in the outbox.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(self, SEND_BUFFER);
        }
    }

    /// Registers for readiness to read.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.source().register(registry, token, Interest::READABLE)
    }

    /// Registers anew, for readiness to read and perhaps to write; either is reported at once if it is
    /// there already.
    pub(crate) fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        is_blocked: bool,
    ) -> io::Result<()> {
        let interest = Interest::READABLE;
        let interest = if is_blocked { interest | Interest::WRITABLE } else { interest };
        self.source().reregister(registry, token, interest)
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Socket::Unix(stream) => stream,
            Socket::Tcp(stream) => stream,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
        }
    }
}

fn sent(result: rustix::io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(Errno::AGAIN) => Ok(0),
        result => result.map_err(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_large_replies_fit_into_a_unix_socket() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let socket = Socket::Unix(ours);
        socket.enlarge_send_buffer();
        let reply = vec![7; 128 * 1024];
        for _ in 0..2 {
            assert_eq!(socket.send(&reply).unwrap(), reply.len());
        }
    }
}
