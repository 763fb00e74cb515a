//! A small HTTP/1.1 server: one request a connection, bounded in bytes and in time.
//!
//! For metrics and the administration socket. A thread serves one connection at a time, so what a peer can
//! spend is known: the bytes and the time of [`Bounds`].

mod connection;
mod message;

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub(crate) use connection::serve;
pub(crate) use message::{Method, Request, Response, StatusCode};

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// For the request, and as long again for the response.
    pub(crate) time: Duration,
    /// The bytes of the request line and the header fields.
    pub(crate) head: usize,
    /// The bytes of the body.
    pub(crate) body: usize,
}

/// A blocking stream socket with timeouts.
pub(crate) trait Stream: io::Read + io::Write {
    /// A read fails after so long.
    fn read_within(&self, time: Duration) -> io::Result<()>;
    /// A write fails after so long.
    fn write_within(&self, time: Duration) -> io::Result<()>;
    /// Sends an end of file after what was written.
    fn finish(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn read_within(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }

    fn write_within(&self, time: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(time))
    }

    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for UnixStream {
    fn read_within(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }

    fn write_within(&self, time: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(time))
    }

    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}
