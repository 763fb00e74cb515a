//! The socket of a connection, unix or TCP.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

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
    pub(crate) fn send(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        // A peer that has gone must not end the process by a signal.
        let flags = SendFlags::NOSIGNAL;
        let mut ancillary = SendAncillaryBuffer::default();
        match rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(self, pieces, &mut ancillary, flags)
        }) {
            Err(Errno::AGAIN) => Ok(0),
            result => result.map_err(Into::into),
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
