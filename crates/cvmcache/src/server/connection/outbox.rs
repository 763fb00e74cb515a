//! The outbox: encoded replies that the socket has not taken yet.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;

use bytes::Bytes;
use cvmcache_proto::{ServerMessage, frame};
use tracing::error;

use crate::server::discard::discard;
use crate::server::socket::Socket;

/// How many pieces go into one write.
const MAX_PIECES: usize = 64;

/// Up to this many bytes, an attachment is copied behind its message. A slice of an object keeps
/// the whole of it in memory, even if it is evicted: that is not worth it for a few bytes.
const COPIED: usize = 4 * 1024;

/// How many bytes of messages are gathered in one buffer. Only a single message that is longer takes
/// more. Large enough for one write, and small enough that a long queue gives its memory back bit by bit.
const CHUNK: usize = 64 * 1024;

/// What most messages take, without an attachment.
const SHORT_MESSAGE: usize = 64;

/// For how many pieces an empty outbox has room.
const KEPT_PIECES: usize = 2 * MAX_PIECES;

/// A queue of encoded messages.
///
/// Messages that follow each other are gathered in buffers of [`CHUNK`]; a large attachment is a piece
/// of its own and is not copied. One vectored write takes many pieces. A buffer that was sent is
/// used again, or freed: an empty outbox keeps one at most, and none after
/// [`release`](Self::release).
///
/// Invariants: bytes are sent in the order of `pieces`, then `messages`; of the first of these, `sent`
/// bytes are sent, and it has more unless the outbox is empty. `len` is the number of bytes that are not
/// sent. `held` is the sum of the memory that the pieces count for, which may be more than their length:
/// a slice keeps the whole part of the object in memory. A piece partly sent counts in full.
#[derive(Debug)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    /// Messages that came behind the last piece.
    messages: Vec<u8>,
    sent: usize,
    len: usize,
    held: usize,
    held_by_attachment: usize,
}

#[derive(Debug)]
enum Piece {
    Messages(Vec<u8>),
    Attachment(Bytes),
}

impl Outbox {
    /// An outbox in which each piece of an attachment counts for so many bytes of memory.
    pub(crate) fn new(held_by_attachment: usize) -> Self {
        let (pieces, messages) = (VecDeque::new(), Vec::new());
        Self { pieces, messages, sent: 0, len: 0, held: 0, held_by_attachment }
    }

    /// How much memory it takes, be it for queued messages or for the next ones.
    pub(crate) fn held(&self) -> usize {
        self.held + self.messages.capacity() + self.pieces.capacity() * size_of::<Piece>()
    }

    /// How much memory it takes for queued messages.
    pub(crate) fn queued(&self) -> usize {
        if self.is_empty() { 0 } else { self.held() }
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
        let attached = attachment.len();
        let room = SHORT_MESSAGE + if attached <= COPIED { attached } else { 0 };
        if self.messages.len() + room > CHUNK {
            self.close_chunk();
        }
        let before = self.messages.len();
        if before + room > self.messages.capacity() {
            // Powers of two, so that a full buffer has exactly `CHUNK`.
            self.messages.reserve_exact((before + room).next_power_of_two() - before);
        }
        if let Err(error) = frame::encode(message, attached, &mut self.messages) {
            // The service keeps replies within the limits, and the limits are within a frame.
            error!(%error, "a reply is lost");
            attachment.into_iter().for_each(discard);
            return;
        }
        self.len += self.messages.len() - before + attached;
        if attached == 0 {
            return;
        }
        if attached <= COPIED {
            for piece in attachment {
                self.messages.extend_from_slice(&piece);
                discard(piece);
            }
            return;
        }
        self.close_chunk();
        for piece in attachment {
            self.push_piece(Piece::Attachment(piece));
        }
    }

    /// Makes a piece of the messages behind the last one.
    fn close_chunk(&mut self) {
        if !self.messages.is_empty() {
            let mut messages = mem::take(&mut self.messages);
            if messages.capacity() > CHUNK {
                // A part of a listing has grown it in large steps.
                messages.shrink_to_fit();
            }
            self.push_piece(Piece::Messages(messages));
        }
    }

    fn push_piece(&mut self, piece: Piece) {
        self.held += self.held_by(&piece);
        self.pieces.push_back(piece);
    }

    fn held_by(&self, piece: &Piece) -> usize {
        match piece {
            Piece::Messages(messages) => messages.capacity(),
            Piece::Attachment(_) => self.held_by_attachment,
        }
    }

    /// Writes as much as the socket takes. True if that is anything.
    pub(crate) fn flush(&mut self, socket: &Socket) -> io::Result<bool> {
        let before = self.len;
        while self.len > 0 {
            let sent = self.write(socket)?;
            if sent == 0 {
                break;
            }
            self.remove(sent);
        }
        Ok(self.len < before)
    }

    /// Writes once.
    fn write(&self, socket: &Socket) -> io::Result<usize> {
        if self.pieces.is_empty() {
            // Small replies only.
            return socket.send(&self.messages[self.sent..]);
        }
        let mut slices = [IoSlice::new(&[]); MAX_PIECES];
        let waiting = self.pieces.iter().map(Piece::bytes);
        let mut sent = self.sent;
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(waiting.chain([&self.messages[..]])) {
            *slice = IoSlice::new(&piece[mem::take(&mut sent)..]);
            count += 1;
        }
        socket.send_vectored(&slices[..count])
    }

    /// Drops everything: the client takes no more.
    pub(crate) fn clear(&mut self) {
        self.pieces.drain(..).for_each(Piece::discard);
        *self = Self::new(self.held_by_attachment);
    }

    /// Frees what an empty outbox keeps for the next messages.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            (self.pieces, self.messages) = (VecDeque::new(), Vec::new());
        }
    }

    /// Drops a message that is not to be sent.
    pub(crate) fn discard(message: ServerMessage) {
        let (_, attachment) = message.into_wire();
        attachment.into_iter().for_each(discard);
    }

    fn remove(&mut self, mut sent: usize) {
        self.len -= sent;
        while let Some(piece) = self.pieces.front() {
            let rest = piece.bytes().len() - self.sent;
            if sent < rest {
                self.sent += sent;
                return;
            }
            sent -= rest;
            self.sent = 0;
            self.held -= self.held_by(piece);
            match self.pieces.pop_front() {
                Some(Piece::Messages(buffer)) if self.messages.capacity() == 0 => {
                    self.messages = buffer;
                    self.messages.clear();
                }
                piece => piece.into_iter().for_each(Piece::discard),
            }
        }
        self.sent += sent;
        if self.len == 0 {
            self.sent = 0;
            self.messages.clear();
            self.messages.shrink_to(CHUNK);
            self.pieces.shrink_to(KEPT_PIECES);
        }
    }
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Messages(messages) => messages,
            Self::Attachment(attachment) => attachment,
        }
    }

    fn discard(self) {
        match self {
            Self::Messages(_) => {}
            Self::Attachment(attachment) => discard(attachment),
        }
    }
}

#[cfg(test)]
mod tests {
    use cvmcache_proto::{
        Data, Decoder, DecoderLimits, HashAlgorithm, ListEntry, ObjectId, Reply, ReplyBody,
    };
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
        assert_eq!((outbox.queued(), outbox.held), (0, 0));
        assert_eq!(arrived, answers);
    }

    #[test]
    fn a_piece_counts_in_full_until_all_of_it_is_sent() {
        let mut outbox = Outbox::new(1 << 20);
        outbox.push(reply(1, vec![7; COPIED].into()));
        let copied = outbox.len();
        assert!(outbox.held() < 3 * COPIED, "a small attachment is copied");
        outbox.push(reply(2, vec![7; COPIED + 1].into()));
        let message = outbox.len() - copied - (COPIED + 1);
        assert!(outbox.held() > 1 << 20);
        outbox.remove(copied + message);
        assert_eq!(outbox.held, 1 << 20);
        outbox.remove(COPIED);
        assert_eq!((outbox.len(), outbox.held), (1, 1 << 20));
        outbox.remove(1);
        assert_eq!((outbox.len(), outbox.queued(), outbox.held), (0, 0, 0));
    }

    #[test]
    fn a_queue_of_many_messages_takes_little_more_memory_than_their_bytes() {
        let mut outbox = Outbox::new(1 << 20);
        (0..2000).for_each(|id| outbox.push(reply(id, vec![7; COPIED].into())));
        assert!(outbox.held() < outbox.len() * 5 / 4, "{} {}", outbox.held(), outbox.len());
        outbox.remove(outbox.len() / 2);
        assert!(outbox.held() < outbox.len() * 5 / 4, "what was sent is freed at once");
    }

    #[test]
    fn parts_of_listings_take_little_more_memory_than_their_bytes() {
        let mut outbox = Outbox::new(1 << 20);
        let object = ObjectId::new(HashAlgorithm::Sha1, [1; 20]);
        let entries = vec![ListEntry::new(object, false, Some(vec![b'a'; 100].into())); 4000];
        for id in 0..20 {
            let (result, entries) = (Ok(()), entries.clone());
            let body = ReplyBody::List { result, listing: 1, last: false, entries };
            outbox.push(ServerMessage::Reply(Reply { id, body }));
            outbox.push(reply(id, vec![7; 10].into()));
        }
        assert!(outbox.len() > 20 * 512 * 1024);
        assert!(outbox.held() < outbox.len() * 5 / 4, "{} {}", outbox.held(), outbox.len());
        outbox.remove(outbox.len());
        assert!(outbox.held() < CHUNK + 8 * 1024, "{}", outbox.held());
    }

    #[test]
    fn an_empty_outbox_keeps_one_buffer_until_it_is_released() {
        let mut outbox = Outbox::new(1 << 20);
        for len in [COPIED, COPIED + 1] {
            (0..4000).for_each(|id| outbox.push(reply(id, vec![7; len].into())));
            outbox.remove(outbox.len());
            assert!(outbox.held() < CHUNK + 8 * 1024, "{}", outbox.held());
        }
        outbox.release();
        assert_eq!(outbox.held(), 0);
    }

    #[test]
    fn a_buffer_is_used_again_once_it_is_sent() {
        let mut outbox = Outbox::new(1 << 20);
        outbox.push(reply(1, vec![7; COPIED + 1].into()));
        outbox.remove(outbox.len());
        let buffer = outbox.messages.as_ptr();
        for id in 0..10 {
            outbox.push(reply(id, vec![7; COPIED + 1].into()));
            outbox.remove(outbox.len());
            assert_eq!(outbox.messages.as_ptr(), buffer);
        }
    }

    #[test]
    fn a_released_outbox_keeps_what_is_not_sent() {
        let mut outbox = Outbox::new(1 << 20);
        outbox.push(reply(1, vec![7; 10].into()));
        let len = outbox.len();
        outbox.release();
        assert_eq!(outbox.len(), len);
        assert_eq!(outbox.messages.len(), len);
    }
}
