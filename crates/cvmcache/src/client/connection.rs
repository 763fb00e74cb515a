//! A connection to a plugin: sends and receives messages, without a session.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cvmcache_proto::{ClientMessage, Decoder, DecoderLimits, Frame, ServerMessage, frame};

use super::ClientError;
use super::deadline::Deadline;
use super::socket::Socket;
use crate::Locator;

/// Up to this many bytes, an attachment is copied behind the queued messages; a larger one is
/// sent from where it is.
const COPIED_ATTACHMENT: usize = 4 * 1024;

/// Messages are queued until there are this many bytes of them.
const QUEUE: usize = 64 * 1024;

/// A connection to a plugin, without a handshake.
///
/// It carries any message in any order, valid or not, and so serves tests that a
/// [`Client`](super::Client) cannot express.
///
/// ```no_run
/// use cvmcache::client::Connection;
///
/// let mut connection = Connection::connect(&"unix=/run/cache.socket".parse()?)?;
/// connection.send_raw(b"GET / HTTP/1.1\r\n\r\n")?;
/// assert!(connection.receive()?.is_none(), "the plugin closes on what is no frame");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    decoder: Decoder,
    /// The frames that are queued, or the rest of them.
    outgoing: Vec<u8>,
    /// Frames that came while others could not be sent: before those in the decoder.
    arrived: VecDeque<Frame>,
    /// The plugin has closed its write half.
    ended: bool,
}

impl Connection {
    /// Connects to the locator of a plugin. Without a host, TCP is to this machine.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`].
    pub fn connect(locator: &Locator) -> Result<Self, ClientError> {
        Self::connect_within(locator, None)
    }

    /// The same, with a bound on how long this takes, and each call from now on: see
    /// [`set_read_timeout`](Self::set_read_timeout).
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`]; [`ClientError::Timeout`] if there is a plugin, but it accepts no
    /// connection for so long.
    pub fn connect_within(
        locator: &Locator,
        timeout: Option<Duration>,
    ) -> Result<Self, ClientError> {
        Self::connect_by(locator, timeout, &mut Deadline::after(timeout))
    }

    pub(super) fn connect_by(
        locator: &Locator,
        timeout: Option<Duration>,
        deadline: &mut Deadline,
    ) -> Result<Self, ClientError> {
        let mut socket =
            Socket::connect(locator, deadline).map_err(|source| match source.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut if timeout.is_some() => {
                    ClientError::Timeout
                }
                _ => ClientError::Connect { locator: locator.clone(), source },
            })?;
        socket.set_timeout(timeout)?;
        Ok(Self::new(socket))
    }

    /// A connection in memory, and the plugin's end of it: for tests that need no plugin, and nothing in
    /// the file system.
    ///
    /// ```
    /// use std::io::Write;
    /// use cvmcache::client::Connection;
    ///
    /// let (mut connection, mut plugin) = Connection::pair()?;
    /// plugin.write_all(&[0x01, 0x03, 0x00, 0x00, 0xca, 0x01, 0x00])?;
    /// drop(plugin);
    /// println!("{:?}", connection.receive()?.expect("a request to detach"));
    /// assert!(connection.receive()?.is_none(), "the plugin has closed it");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`] if the system has no descriptors left.
    pub fn pair() -> Result<(Self, UnixStream), ClientError> {
        let (ours, plugin) = UnixStream::pair()?;
        Ok((Self::new(Socket::from(ours)), plugin))
    }

    fn new(socket: Socket) -> Self {
        let mut limits = DecoderLimits::default();
        // Plugins may list as much at once as fits into a frame.
        limits.max_message = frame::MAX_LEN;
        Self {
            socket,
            decoder: Decoder::new(limits),
            outgoing: Vec::new(),
            arrived: VecDeque::new(),
            ended: false,
        }
    }

    /// Bounds how long each call may wait for the plugin, until a whole message has come or all has
    /// been sent: after that it fails with [`ClientError::Timeout`]. What comes or goes meanwhile does
    /// not extend it. There is no bound by default.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`] if the system refuses.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ClientError> {
        Ok(self.socket.set_timeout(timeout)?)
    }

    /// Sends a message, and takes in what the plugin says while it does not listen: two sides
    /// that both have much to say do not wait for each other.
    ///
    /// # Errors
    ///
    /// [`ClientError::TooLarge`], and nothing is sent; [`ClientError::Closed`],
    /// [`ClientError::Timeout`] and [`ClientError::Io`]; [`ClientError::Frame`] if what came in
    /// meanwhile is none. After a timeout, the rest of the message goes before the next.
    pub fn send(&mut self, message: ClientMessage) -> Result<(), ClientError> {
        self.send_by(message, &mut self.deadline())
    }

    pub(super) fn send_by(
        &mut self,
        message: ClientMessage,
        deadline: &mut Deadline,
    ) -> Result<(), ClientError> {
        self.queue_by(message, deadline)?;
        self.flush_by(deadline)
    }

    /// Has a message sent, with those before it, by the next call that sends or receives, or when
    /// 64 KiB of them have come together. One with an attachment of more than 4 KiB is sent at once.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn queue(&mut self, message: ClientMessage) -> Result<(), ClientError> {
        self.queue_by(message, &mut self.deadline())
    }

    pub(super) fn queue_by(
        &mut self,
        message: ClientMessage,
        deadline: &mut Deadline,
    ) -> Result<(), ClientError> {
        let (message, attachment) = message.into_wire();
        frame::encode(message, attachment.len(), &mut self.outgoing)?;
        if attachment.len() > COPIED_ATTACHMENT {
            return self.send_with(&attachment, deadline);
        }
        self.outgoing.extend_from_slice(&attachment);
        if self.outgoing.len() >= QUEUE { self.flush_by(deadline) } else { Ok(()) }
    }

    /// Sends what is queued, as [`send`](Self::send) does.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), but for [`ClientError::TooLarge`].
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.flush_by(&mut self.deadline())
    }

    /// Sends arbitrary bytes behind what is queued. It receives nothing meanwhile: if
    /// the plugin waits for its replies to be read, both wait.
    ///
    /// # Errors
    ///
    /// Those of [`flush`](Self::flush). How many of the bytes have been sent is not known then.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let mut deadline = self.deadline();
        self.flush_by(&mut deadline)?;
        Ok(self.socket.send_all(bytes, &mut deadline)?)
    }

    /// Waits for the next message of the plugin; `None` if it has closed the connection.
    ///
    /// # Errors
    ///
    /// [`ClientError::Closed`] if the connection ends within a message;
    /// [`ClientError::Frame`] and [`ClientError::BadMessage`] if what came is no message of a
    /// plugin; [`ClientError::Timeout`] and [`ClientError::Io`].
    pub fn receive(&mut self) -> Result<Option<ServerMessage>, ClientError> {
        self.receive_by(&mut self.deadline())
    }

    /// Waits for the first message that `pick` makes something of, and drops those before it; `None` if
    /// the plugin has closed the connection. To the timeout it is one call, whatever comes before.
    ///
    /// # Errors
    ///
    /// Those of [`receive`](Self::receive).
    pub fn receive_first<T>(
        &mut self,
        mut pick: impl FnMut(ServerMessage) -> Option<T>,
    ) -> Result<Option<T>, ClientError> {
        let mut deadline = self.deadline();
        while let Some(message) = self.receive_by(&mut deadline)? {
            if let Some(picked) = pick(message) {
                return Ok(Some(picked));
            }
        }
        Ok(None)
    }

    pub(super) fn receive_by(
        &mut self,
        deadline: &mut Deadline,
    ) -> Result<Option<ServerMessage>, ClientError> {
        loop {
            if let Some(message) = self.next_arrived()? {
                return Ok(Some(message));
            }
            if self.ended {
                return self.end();
            }
            self.flush_while_heard(deadline)?;
            if self.arrived.is_empty() {
                let received = self.socket.receive(self.decoder.buffer(), deadline);
                self.note_end(received)?;
            }
        }
    }

    /// The next message of the plugin if it has arrived already, else `None`: then the plugin is
    /// silent, or has closed the connection.
    ///
    /// # Errors
    ///
    /// Those of [`receive`](Self::receive); [`ClientError::Timeout`] only if the plugin does not
    /// take what is queued.
    pub fn try_receive(&mut self) -> Result<Option<ServerMessage>, ClientError> {
        self.flush_while_heard(&mut self.deadline())?;
        loop {
            if let Some(message) = self.next_arrived()? {
                return Ok(Some(message));
            }
            if self.ended || !self.receive_now()? {
                return Ok(None);
            }
        }
    }

    /// Shuts down the write half: no more requests follow, and replies still arrive.
    ///
    /// # Errors
    ///
    /// Those of [`flush`](Self::flush): what is queued is sent before.
    pub fn shutdown_write(&mut self) -> Result<(), ClientError> {
        self.flush()?;
        Ok(self.socket.shutdown_write()?)
    }

    /// When a call ends that begins now.
    pub(super) fn deadline(&self) -> Deadline {
        self.socket.deadline()
    }

    fn next_arrived(&mut self) -> Result<Option<ServerMessage>, ClientError> {
        let frame = match self.arrived.pop_front() {
            Some(frame) => frame,
            None => match self.decoder.next_frame()? {
                Some(frame) => frame,
                None => return Ok(None),
            },
        };
        ServerMessage::from_frame(frame).map(Some).map_err(|_| ClientError::BadMessage)
    }

    /// Messages that the plugin sent before it closed the connection are received, even if it does not
    /// read any more.
    fn flush_while_heard(&mut self, deadline: &mut Deadline) -> Result<(), ClientError> {
        match self.flush_by(deadline) {
            Err(ClientError::Closed) => Ok(()),
            result => result,
        }
    }

    fn flush_by(&mut self, deadline: &mut Deadline) -> Result<(), ClientError> {
        self.send_with(&[], deadline)
    }

    /// Sends what is queued, and behind it an attachment.
    fn send_with(&mut self, attachment: &[u8], deadline: &mut Deadline) -> Result<(), ClientError> {
        let mut outgoing = mem::take(&mut self.outgoing);
        let (mut head, mut tail) = (&outgoing[..], attachment);
        while !(head.is_empty() && tail.is_empty()) {
            match self.send_some(head, tail, deadline) {
                Ok(sent) => {
                    let of_head = sent.min(head.len());
                    head = &head[of_head..];
                    tail = &tail[sent - of_head..];
                }
                Err(error) => {
                    // A frame that has been begun must be ended before the next.
                    self.outgoing = [head, tail].concat();
                    return Err(error);
                }
            }
        }
        outgoing.clear();
        self.outgoing = outgoing;
        Ok(())
    }

    /// Sends what fits; if nothing does, waits for room or takes in what there is.
    fn send_some(
        &mut self,
        head: &[u8],
        tail: &[u8],
        deadline: &mut Deadline,
    ) -> Result<usize, ClientError> {
        if let Some(sent) = self.socket.send_now([head, tail])? {
            return Ok(sent);
        }
        if self.socket.wait_for_room(!self.ended, deadline)? && self.receive_now()? {
            while let Some(frame) = self.decoder.next_frame()? {
                self.arrived.push_back(frame);
            }
        }
        Ok(0)
    }

    /// Takes in bytes without waiting; false if there are none.
    fn receive_now(&mut self) -> Result<bool, ClientError> {
        match self.socket.receive_now(self.decoder.buffer()).transpose() {
            Some(received) => self.note_end(received).map(|()| true),
            None => Ok(false),
        }
    }

    fn note_end(&mut self, received: io::Result<usize>) -> Result<(), ClientError> {
        match received.map_err(ClientError::from) {
            Ok(0) | Err(ClientError::Closed) => self.ended = true,
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn end(&self) -> Result<Option<ServerMessage>, ClientError> {
        if self.decoder.is_between_frames() { Ok(None) } else { Err(ClientError::Closed) }
    }
}

/// The socket, to wait for it together with others, or to set its options.
impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
