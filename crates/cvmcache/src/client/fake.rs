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

use super::Client;
use crate::Locator;

/// The session that [`PluginEnd::accept_client`] hands out first.
pub(super) const SESSION: u64 = 1001;

/// What a well-behaved plugin answers to a handshake.
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

/// A name for an object.
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

/// A plugin that follows a script, and a place where it listens.
pub(super) struct FakePlugin {
    _directory: TempDir,
    locator: Locator,
    thread: JoinHandle<()>,
}

impl FakePlugin {
    /// Listens, and leaves the rest to the script.
    pub(super) fn start(script: impl FnOnce(&mut PluginEnd) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = thread::spawn(move || script(&mut PluginEnd { listener, client: None }));
        Self { _directory: directory, locator: Locator::Unix(path), thread }
    }

    /// Lets a client in, and leaves the rest to the script.
    pub(super) fn with_client(
        script: impl FnOnce(&mut PluginEnd) + Send + 'static,
    ) -> (Self, Client) {
        let plugin = Self::start(|end| {
            end.accept_with(ack());
            script(end);
        });
        let client = Client::connect(plugin.locator(), "test.cern.ch:1").unwrap();
        (plugin, client)
    }

    pub(super) fn locator(&self) -> &Locator {
        &self.locator
    }

    /// Waits until the script is through, and fails if it failed.
    pub(super) fn join(self) {
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The plugin's end of a connection.
pub(super) struct PluginEnd {
    listener: UnixListener,
    client: Option<(UnixStream, Decoder)>,
}

impl PluginEnd {
    /// Accepts a connection, and closes the one before it.
    pub(super) fn accept(&mut self) {
        let (stream, _) = self.listener.accept().unwrap();
        let mut limits = DecoderLimits::default();
        (limits.max_message, limits.max_attachment) = (frame::MAX_LEN, frame::MAX_LEN);
        self.client = Some((stream, Decoder::new(limits)));
    }

    /// Accepts a connection, answers its handshake and returns what it says.
    pub(super) fn accept_with(&mut self, ack: HandshakeAck) -> (u32, Option<Bytes>) {
        self.accept();
        let Some(ClientMessage::Handshake { protocol_version, name }) = self.next() else {
            panic!("a client begins with a handshake");
        };
        self.send(ServerMessage::HandshakeAck(ack));
        (protocol_version, name)
    }

    /// The next message; `None` if the client is gone.
    pub(super) fn next(&mut self) -> Option<ClientMessage> {
        let (stream, decoder) = self.client.as_mut().unwrap();
        loop {
            if let Some(frame) = decoder.next_frame().unwrap() {
                return Some(ClientMessage::from_frame(frame).unwrap());
            }
            let mut chunk = [0; 1000];
            match stream.read(&mut chunk).unwrap() {
                0 => return None,
                len => decoder.buffer().extend_from_slice(&chunk[..len]),
            }
        }
    }

    /// The next message, which must be a request of the session; its number and what it asks for.
    pub(super) fn request(&mut self) -> (u64, Operation) {
        match self.next() {
            Some(ClientMessage::Request(Request { session: SESSION, id, operation })) => {
                (id, operation)
            }
            other => panic!("not a request of this session: {other:?}"),
        }
    }

    /// Waits until the client has said something, without listening to what.
    pub(super) fn wait_until_readable(&self) {
        let (stream, _) = self.client.as_ref().unwrap();
        rustix::net::recv(stream, &mut [0; 1][..], RecvFlags::PEEK).unwrap();
    }

    /// The client has nothing more to say.
    pub(super) fn expect_end(&mut self) {
        assert_eq!(self.next(), None);
    }

    pub(super) fn send(&mut self, message: ServerMessage) {
        self.send_raw(&encoded(message));
    }

    pub(super) fn reply(&mut self, id: u64, body: ReplyBody) {
        self.send(ServerMessage::Reply(Reply { id, body }));
    }

    /// Receives a request, which must be the one that is expected, and answers it.
    pub(super) fn serve(&mut self, expected: Operation, body: ReplyBody) {
        let (id, operation) = self.request();
        assert_eq!(operation, expected);
        self.reply(id, body);
    }

    pub(super) fn send_raw(&mut self, bytes: &[u8]) {
        self.client.as_mut().unwrap().0.write_all(bytes).unwrap();
    }

    /// Sends the same over and over, until the client is gone.
    pub(super) fn repeat(&mut self, bytes: &[u8]) {
        let (stream, _) = self.client.as_mut().unwrap();
        while stream.write_all(bytes).is_ok() {}
    }

    /// Receives byte for byte, until the client is gone.
    pub(super) fn sip(&mut self) {
        let (stream, _) = self.client.as_mut().unwrap();
        while let Ok(1) = stream.read(&mut [0]) {}
    }

    pub(super) fn close(&mut self) {
        self.client = None;
    }

    /// Says that nothing more comes, but goes on listening.
    pub(super) fn shutdown_write(&mut self) {
        self.client.as_mut().unwrap().0.shutdown(Shutdown::Write).unwrap();
    }
}
