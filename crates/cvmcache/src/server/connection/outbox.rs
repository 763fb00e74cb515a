//! The outbox: encoded replies that the socket has not taken yet.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use cvmcache_proto::{ServerMessage, frame};
use tracing::error;

use crate::server::discard::discard;
use crate::server::socket::Socket;

/// How many pieces go into one write.
const MAX_PIECES: usize = 64;

/// Up to this many bytes, an attachment is copied behind its message. A slice of an object keeps
/// the whole of it in memory, even if it is evicted: that is not worth it for a few bytes.
const COPIED: usize = 4 * 1024;

/// A queue of encoded messages.
///
/// Messages that follow each other are gathered in one buffer; a large attachment is a piece of
/// its own and is not copied. One vectored write takes many pieces.
///
/// Invariants: bytes are sent in the order of `pieces`, then `messages`. `len` is the number of bytes
/// in both. `held` is the sum of what the pieces count for, which may be more than their length: a
/// slice keeps the whole part of the object in memory. A piece partly sent counts in full.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// What goes first, and the memory that each piece counts for.
    pieces: VecDeque<(Bytes, usize)>,
    /// Messages that came behind the last piece.
    messages: BytesMut,
    len: usize,
    held: usize,
    held_by_attachment: usize,
}

impl Outbox {
    /// An outbox in which each piece of an attachment counts for so many bytes of memory.
    pub(crate) fn new(held_by_attachment: usize) -> Self {
        let (pieces, messages) = (VecDeque::new(), BytesMut::new());
        Self { pieces, messages, len: 0, held: 0, held_by_attachment }
    }

    /// How much memory the queued messages hold, at most.
    pub(crate) fn held(&self) -> usize {
        self.held + self.messages.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes are queued.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, message: ServerMessage) {
        let (message, attachment) = message.into_wire();
        let (before, attached) = (self.messages.len(), attachment.len());
        if let Err(error) = frame::encode(message, attached, &mut self.messages) {
            // The service keeps replies within the limits, and the limits are within a frame.
            error!(%error, "a reply is lost");
            attachment.into_iter().for_each(discard);
            return;
        }
        self.len += self.messages.len() - before + attached;
        if attached <= COPIED {
            for piece in attachment {
                self.messages.extend_from_slice(&piece);
                discard(piece);
            }
            return;
        }
        let messages = self.messages.split().freeze();
        let len = messages.len();
        self.push_piece(messages, len);
        for piece in attachment {
            self.push_piece(piece, self.held_by_attachment);
        }
    }

    fn push_piece(&mut self, piece: Bytes, held: usize) {
        self.pieces.push_back((piece, held));
        self.held += held;
    }

    /// Writes as much as the socket takes. True if that is anything.
    pub(crate) fn flush(&mut self, socket: &Socket) -> io::Result<bool> {
        let before = self.len;
        while self.len > 0 {
            let mut slices = [IoSlice::new(&[]); MAX_PIECES];
            let waiting = self.pieces.iter().map(|(piece, _)| &piece[..]);
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(waiting.chain([&self.messages[..]])) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            let sent = socket.send(&slices[..count])?;
            if sent == 0 {
                break;
            }
            self.remove(sent);
        }
        Ok(self.len < before)
    }

    /// Drops everything: the client takes no more.
    pub(crate) fn clear(&mut self) {
        self.pieces.drain(..).for_each(|(piece, _)| discard(piece));
        *self = Self::new(self.held_by_attachment);
    }

    /// Drops a message that is not to be sent.
    pub(crate) fn discard(message: ServerMessage) {
        let (_, attachment) = message.into_wire();
        attachment.into_iter().for_each(discard);
    }

    fn remove(&mut self, mut sent: usize) {
        self.len -= sent;
        while sent > 0 {
            let Some((piece, held)) = self.pieces.front_mut() else {
                self.messages.advance(sent);
                return;
            };
            if sent < piece.len() {
                piece.advance(sent);
                return;
            }
            sent -= piece.len();
            self.held -= *held;
            self.pieces.pop_front().into_iter().for_each(|(piece, _)| discard(piece));
        }
    }
}

#[cfg(test)]
mod tests {
    use cvmcache_proto::{Data, Decoder, DecoderLimits, Reply, ReplyBody};
    use rustix::net::sockopt::set_socket_send_buffer_size;

    use super::*;
    use crate::server::socket::Received;

    fn reply(id: u64, data: Data) -> ServerMessage {
        let body = ReplyBody::Read { result: Ok(data), data_crc32: None };
        ServerMessage::Reply(Reply { id, body })
    }

    #[test]
    fn replies_arrive_in_order_through_a_socket_that_takes_little_at_a_time() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        set_socket_send_buffer_size(&ours, 4096).unwrap();
        let ours = Socket::Unix(mio::net::UnixStream::from_std(ours));
        let theirs = Socket::Unix(mio::net::UnixStream::from_std(theirs));

        let mut outbox = Outbox::new(1 << 20);
        let answers: Vec<_> = (0..200u64)
            .map(|id| {
                let pieces =
                    (0..id % 4).map(|piece| Bytes::from(vec![piece as u8; 3000 * piece as usize]));
                reply(id, pieces.collect())
            })
            .collect();
        answers.iter().cloned().for_each(|answer| outbox.push(answer));

        let mut decoder = Decoder::new(DecoderLimits::default());
        let mut arrived = Vec::new();
        loop {
            outbox.flush(&ours).unwrap();
            let done = outbox.is_empty();
            while theirs.receive(decoder.buffer()).unwrap() != Received::Drained(0) {
                while let Some(frame) = decoder.next_frame().unwrap() {
                    arrived.push(ServerMessage::from_frame(frame).unwrap());
                }
            }
            if done {
                break;
            }
        }
        assert!(outbox.is_empty());
        assert_eq!(outbox.held(), 0);
        assert_eq!(arrived, answers);
    }

    #[test]
    fn a_piece_counts_in_full_until_all_of_it_is_sent() {
        let mut outbox = Outbox::new(1 << 20);
        outbox.push(reply(1, vec![7; COPIED].into()));
        let copied = outbox.len();
        assert_eq!(outbox.held(), copied, "a small attachment is copied");
        outbox.push(reply(2, vec![7; COPIED + 1].into()));
        let len = outbox.len();
        let message = len - copied - (COPIED + 1);
        assert_eq!(outbox.held(), copied + message + (1 << 20));
        outbox.remove(copied + message);
        assert_eq!(outbox.held(), 1 << 20);
        outbox.remove(COPIED);
        assert_eq!((outbox.len(), outbox.held()), (1, 1 << 20));
        outbox.remove(1);
        assert_eq!((outbox.len(), outbox.held()), (0, 0));
    }
}
