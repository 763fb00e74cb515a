//! Connecting a client: the name in its handshake, and its timeout.

use std::time::Duration;

use bytes::Bytes;
use cvmcache_proto::{
    ClientMessage, MAX_MAX_OBJECT_SIZE, MIN_MAX_OBJECT_SIZE, PROTOCOL_VERSION, RequestKind,
    ServerMessage,
};

use super::deadline::Deadline;
use super::pending::Pending;
use super::{Client, ClientError, Connection};
use crate::Locator;

/// The builder of a client: without a name and without a timeout by default.
///
/// ```no_run
/// use std::time::Duration;
/// use cvmcache::client::Client;
///
/// let locator = "tcp=localhost:4224".parse()?;
/// let mut client = Client::builder().timeout(Duration::from_secs(5)).connect(&locator)?;
/// println!("{:?}", client.info()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    name: Option<Bytes>,
    pub(super) timeout: Option<Duration>,
}

impl ClientBuilder {
    pub(super) fn new() -> Self {
        Self { name: None, timeout: None }
    }

    /// Sets the client's name: `repository:instance` for a mount. It need not be UTF-8. A server of
    /// this crate takes up to [`Limits::max_text`](crate::Limits::max_text) bytes.
    #[must_use]
    pub fn name(mut self, name: impl Into<Bytes>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets how long each call may wait for the plugin, from the connection on: a request for its
    /// reply, and the connection for the end of the handshake. After that, it fails with
    /// [`ClientError::Timeout`]. What else the plugin sends meanwhile does not extend it. Default: for
    /// ever. Zero counts as a microsecond.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Connects to a plugin and opens a session.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`] if no plugin listens there; [`ClientError::Timeout`] if it does not answer
    /// in time; [`ClientError::Refused`] and [`ClientError::MaxObjectSize`] if a CernVM-FS client would
    /// get no session; [`ClientError::TooLarge`] if the name is longer than 16 MiB; any other if what
    /// listens there is no plugin.
    pub fn connect(self, locator: &Locator) -> Result<Client, ClientError> {
        let mut deadline = Deadline::after(self.timeout);
        let connection = Connection::connect_by(locator, self.timeout, &mut deadline)?;
        self.open(connection, locator, &mut deadline)
    }

    /// Opens a session on a connection.
    pub(super) fn open(
        self,
        mut connection: Connection,
        locator: &Locator,
        deadline: &mut Deadline,
    ) -> Result<Client, ClientError> {
        let handshake = ClientMessage::Handshake {
            protocol_version: PROTOCOL_VERSION,
            name: self.name.clone(),
        };
        connection.send_by(handshake, deadline)?;
        let mut detach_requests = 0;
        let handshake = loop {
            match connection.receive_by(deadline)?.ok_or(ClientError::Closed)? {
                ServerMessage::HandshakeAck(handshake) => break handshake,
                ServerMessage::Detach => detach_requests += 1,
                _ => {
                    return Err(ClientError::Unexpected {
                        asked: RequestKind::Handshake,
                        reason: "it is the reply to another request",
                    });
                }
            }
        };
        handshake.result.map_err(ClientError::Refused)?;
        let max_object_size = handshake.max_object_size;
        if !(MIN_MAX_OBJECT_SIZE..=MAX_MAX_OBJECT_SIZE).contains(&max_object_size) {
            return Err(ClientError::MaxObjectSize(max_object_size));
        }
        Ok(Client {
            connection,
            handshake,
            locator: locator.clone(),
            builder: self,
            pending: Pending::default(),
            last_id: 0,
            unclaimed_replies: 0,
            detach_requests,
            detach_waited: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use cvmcache_proto::{Capabilities, HandshakeAck, Status};

    use super::super::fake::{self, FakePlugin};
    use super::*;

    #[test]
    fn a_handshake_exchanges_names_and_capabilities() {
        let (plugin, locator) = FakePlugin::listening(|listener| {
            let (version, name) = listener.accept().answer_handshake(fake::ack());
            assert_eq!((version, name), (1, Some(Bytes::from_static(b"caf\xe9:1"))));
        });
        let client = Client::connect(&locator, &b"caf\xe9:1"[..]).unwrap();
        assert_eq!(client.session(), fake::SESSION);
        assert_eq!(client.max_object_size(), 4096);
        assert_eq!(client.capabilities(), Capabilities::ALL);
        assert_eq!(client.plugin_name(), b"fake");
        assert_eq!(client.plugin_pid(), Some(42));
        plugin.join();
    }

    #[test]
    fn a_client_without_a_name_connects() {
        let (plugin, locator) = FakePlugin::listening(|listener| {
            assert_eq!(listener.accept().answer_handshake(fake::ack()), (1, None));
        });
        Client::builder().connect(&locator).unwrap();
        plugin.join();
    }

    #[test]
    fn a_refused_handshake_is_an_error() {
        let refusal = HandshakeAck { result: Err(Status::Forbidden), ..fake::ack() };
        let error = connect_and_get(refusal).unwrap_err();
        assert!(matches!(error, ClientError::Refused(Status::Forbidden)), "{error}");
    }

    #[test]
    fn a_part_size_out_of_bounds_is_an_error() {
        for max_object_size in [0, 4095, 512 * 1024 + 1] {
            let error = connect_and_get(HandshakeAck { max_object_size, ..fake::ack() });
            let error = error.unwrap_err();
            assert!(matches!(error, ClientError::MaxObjectSize(_)), "{error}");
            assert!(error.to_string().contains(&max_object_size.to_string()), "{error}");
        }
    }

    #[test]
    fn a_locator_without_a_listener_is_an_error_that_says_so() {
        let error = Client::connect(&"unix=/nowhere".parse().unwrap(), "x").unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("cannot connect to unix=/nowhere: No such file"), "{error}");
    }

    #[test]
    fn a_plugin_that_does_not_answer_the_handshake_times_out() {
        let (plugin, locator) = FakePlugin::listening(|listener| {
            let mut end = listener.accept();
            assert!(end.next().is_some());
            end.expect_end();
        });
        let builder = Client::builder().timeout(Duration::from_millis(10));
        let error = builder.connect(&locator).unwrap_err();
        assert!(matches!(error, ClientError::Timeout), "{error}");
        plugin.join();
    }

    #[test]
    fn detach_messages_do_not_extend_the_deadline_of_a_handshake() {
        let (plugin, locator) =
            FakePlugin::listening(|listener| listener.accept().repeat(fake::DETACH));
        let builder = Client::builder().timeout(Duration::from_millis(20));
        let error = builder.connect(&locator).unwrap_err();
        assert!(matches!(error, ClientError::Timeout), "{error}");
        plugin.join();
    }

    fn connect_and_get(ack: HandshakeAck) -> Result<Client, ClientError> {
        let (plugin, locator) =
            FakePlugin::listening(|listener| drop(listener.accept().answer_handshake(ack)));
        let result = Client::connect(&locator, "x");
        plugin.join();
        result
    }
}
