//! The stream of a connection, of which what is received is inspected: its first bytes are kept, and a reply that is
//! too large, or ends in the middle, is an error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::bounded::{ReplyScanner, ReplyTooLarge};
use super::opening::Opening;

/// A stream that is inspected.
#[derive(Debug)]
pub(super) struct InspectedStream<S> {
    stream: S,
    opening: Opening,
    is_opening: bool,
    replies: ReplyScanner,
}

/// The message of the error of a reply over the bound.
pub(super) const TOO_LARGE: &str = "a reply is larger than any that was asked for";

impl<S> InspectedStream<S> {
    pub(super) fn new(stream: S, opening: Opening) -> Self {
        Self { stream, opening, is_opening: true, replies: ReplyScanner::new() }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.is_opening {
            self.is_opening = self.opening.add(bytes);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for InspectedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let received = &buffer.filled()[before..];
        self.keep(received);
        if received.is_empty() && buffer.remaining() > 0 && !self.replies.is_between() {
            // The redis crate takes half a reply for one that is invalid.
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let checked = self.replies.take(received);
        Poll::Ready(
            checked.map_err(|ReplyTooLarge| io::Error::new(io::ErrorKind::InvalidData, TOO_LARGE)),
        )
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for InspectedStream<S> {
    /// A server that has no room for a client says so, and closes: writing fails, and what it has said is
    /// still to be read.
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data));
        if written.is_err() && self.is_opening {
            let mut space = [0; 256];
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
