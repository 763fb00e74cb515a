//! A fake plugin for the unit tests of the client: a thread that runs the script of a test.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use cvmcache_proto::{
    Capabilities, ClientMessage, Decoder, DecoderLimits, HandshakeAck, HashAlgorithm, ObjectId,
    Operation, Reply, ReplyBody, Request, ServerMessage, frame,
};
use rustix::net::RecvFlags;
use tempfile::TempDir;

use super::deadline::Deadline;
use super::{Client, Connection};
use crate::Locator;

/// The first session of [`PluginEnd::accept_client`].
pub(super) const SESSION: u64 = 1001;

/// The acknowledgement of a valid plugin.
pub(super) fn ack() -> HandshakeAck {
    HandshakeAck {
        result: Ok(()),
        name: Bytes::from_static(b"fake"),
        protocol_version: 1,
        session: SESSION,
        max_object_size: 4096,
        capabilities: Capabilities::ALL,
        pid: Some(42),
    }
}

/// An object id.
pub(super) fn object(number: u8) -> ObjectId {
    ObjectId::new(HashAlgorithm::Shake128, [number; 20])
}

/// A request to detach.
pub(super) const DETACH: &[u8] = &[0x01, 0x03, 0x00, 0x00, 0xca, 0x01, 0x00];

/// The bytes of a message.
pub(super) fn encoded(message: ServerMessage) -> Vec<u8> {
    let (message, attachment) = message.into_wire();
    let mut bytes = Vec::new();
    frame::encode(message, attachment.len(), &mut bytes).unwrap();
    bytes.extend_from_slice(&attachment.into_bytes());
    bytes
}

/// A plugin on a thread of its own, which runs a script.
pub(super) struct FakePlugin(JoinHandle<()>);

impl FakePlugin {
    /// A connection to a plugin.
    pub(super) fn with_connection(
        script: impl FnOnce(&mut PluginEnd) + Send + 'static,
    ) -> (Self, Connection) {
        let (connection, stream) = Connection::pair().unwrap();
        let thread = thread::spawn(move || script(&mut PluginEnd::new(stream)));
        (Self(thread), connection)
    }

    /// A client with a session, on a connection like [`with_connection`](Self::with_connection).
    pub(super) fn with_client(
        script: impl FnOnce(&mut PluginEnd) + Send + 'static,
    ) -> (Self, Client) {
        let (plugin, connection) = Self::with_connection(|end| {
            end.answer_handshake(ack());
            script(end);
        });
        let builder = Client::builder().name("test.cern.ch:1");
        let unused = Locator::Unix("/nowhere".into());
        (plugin, builder.open(connection, &unused, &mut Deadline::after(None)).unwrap())
    }

    /// A plugin that listens, for tests that connect by a locator.
    pub(super) fn listening(
        script: impl FnOnce(&PluginListener) + Send + 'static,
    ) -> (Self, Locator) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let listener = PluginListener { listener, _directory: directory };
        (Self(thread::spawn(move || script(&listener))), Locator::Unix(path))
    }

    /// Waits for the end of the script, and panics if it panicked.
    pub(super) fn join(self) {
        if let Err(panic) = self.0.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The socket of a plugin that listens.
pub(super) struct PluginListener {
    listener: UnixListener,
    _directory: TempDir,
}

impl PluginListener {
    pub(super) fn accept(&self) -> PluginEnd {
        PluginEnd::new(self.listener.accept().unwrap().0)
    }
}

/// The plugin's end of a connection.
pub(super) struct PluginEnd {
    stream: UnixStream,
    decoder: Decoder,
}

impl PluginEnd {
    fn new(stream: UnixStream) -> Self {
        let mut limits = DecoderLimits::default();
        (limits.max_message, limits.max_attachment) = (frame::MAX_LEN, frame::MAX_LEN);
        Self { stream, decoder: Decoder::new(limits) }
    }

    /// Receives a handshake, answers it, and returns its version and name.
    pub(super) fn answer_handshake(&mut self, ack: HandshakeAck) -> (u32, Option<Bytes>) {
        let Some(ClientMessage::Handshake { protocol_version, name }) = self.next() else {
            panic!("a client begins with a handshake");
        };
        self.send(ServerMessage::HandshakeAck(ack));
        (protocol_version, name)
    }

    /// The next message; `None` if the client has closed the connection.
    pub(super) fn next(&mut self) -> Option<ClientMessage> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(ClientMessage::from_frame(frame).unwrap());
            }
            let mut chunk = [0; 1000];
            match self.stream.read(&mut chunk).unwrap() {
                0 => return None,
                len => self.decoder.buffer().extend_from_slice(&chunk[..len]),
            }
        }
    }

    /// The next message, which must be a request of the session: its id and its operation.
    pub(super) fn request(&mut self) -> (u64, Operation) {
        match self.next() {
            Some(ClientMessage::Request(Request { session: SESSION, id, operation })) => {
                (id, operation)
            }
            other => panic!("not a request of this session: {other:?}"),
        }
    }

    /// Waits until bytes of the client have arrived, without reading them.
    pub(super) fn wait_until_readable(&self) {
        rustix::net::recv(&self.stream, &mut [0; 1][..], RecvFlags::PEEK).unwrap();
    }

    /// Asserts that the client closes its write half without another message.
    pub(super) fn expect_end(&mut self) {
        assert_eq!(self.next(), None);
    }

    pub(super) fn send(&mut self, message: ServerMessage) {
        self.send_raw(&encoded(message));
    }

    pub(super) fn reply(&mut self, id: u64, body: ReplyBody) {
        self.send(ServerMessage::Reply(Reply { id, body }));
    }

    /// Receives a request, which must be the expected one, and answers it.
    pub(super) fn serve(&mut self, expected: Operation, body: ReplyBody) {
        let (id, operation) = self.request();
        assert_eq!(operation, expected);
        self.reply(id, body);
    }

    pub(super) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends the same bytes over and over, until the client closes the connection.
    pub(super) fn repeat(&mut self, bytes: &[u8]) {
        while self.stream.write_all(bytes).is_ok() {}
    }

    /// Reads byte by byte, until the client closes the connection.
    pub(super) fn read_slowly(&mut self) {
        while let Ok(1) = self.stream.read(&mut [0]) {}
    }

    /// Shuts down the write half, but goes on reading.
    pub(super) fn shutdown_write(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}
