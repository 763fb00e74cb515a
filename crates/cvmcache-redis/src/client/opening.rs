//! The first bytes that a server sends, kept for the message in case that the login fails: the server's own
//! words say more than that a connection was closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many bytes are kept.
const MAX: usize = 256;

/// The first bytes that were received on a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Opening(Arc<Mutex<Vec<u8>>>);

impl Opening {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().clone()
    }

    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.lock();
        let room = MAX - kept.len().min(MAX);
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A stream that keeps its first bytes.
#[derive(Debug)]
pub(super) struct OpeningStream<S> {
    stream: S,
    opening: Opening,
    /// What is still to be kept.
    left: usize,
}

impl<S> OpeningStream<S> {
    pub(super) fn new(stream: S, opening: Opening) -> Self {
        Self { stream, opening, left: MAX }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.left > 0 {
            self.left -= bytes.len().min(self.left);
            self.opening.add(bytes);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for OpeningStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        self.keep(&buffer.filled()[before..]);
        Poll::Ready(read)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for OpeningStream<S> {
    /// A server that has no room for a client says so, and closes: writing fails, and what it has said is
    /// still to be read.
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data));
        if written.is_err() && self.left > 0 {
            let mut space = [0; MAX];
            let mut buffer = ReadBuf::new(&mut space);
            let _ = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
            self.keep(buffer.filled());
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
