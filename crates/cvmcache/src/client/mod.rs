//! A blocking client of a cache plugin, with any number of requests in flight.
//!
//! It is the client of the tests, tools and benchmarks. [`Client`] does what a
//! CernVM-FS client does, one method for each request; requests can overlap. [`Connection`], the
//! layer below, also sends messages that no client would send.
//!
//! ```no_run
//! use cvmcache::Locator;
//! use cvmcache::client::{Client, NewUpload};
//! use cvmcache::plugin::ObjectType;
//!
//! let locator: Locator = "unix=/run/cvmfs/cache.socket".parse()?;
//! let mut client = Client::connect(&locator, "test.cern.ch:1")?;
//!
//! // An object is stored with one reference, which the session then holds.
//! let id = "da39a3ee5e6b4b0d3255bfef95601890afd80709".parse()?;
//! client.store(NewUpload::new(id).object_type(ObjectType::Catalog), "content")?;
//! assert_eq!(client.read(&id, 3, 100)?, "tent");
//! client.close(&id)?;
//!
//! // Two requests in flight: both are sent before either is waited for.
//! let first = client.queue_read(&id, 0, 4)?;
//! let second = client.queue_read(&id, 4, 3)?;
//! assert_eq!(client.wait(second)?.into_bytes(), "ent");
//! assert_eq!(client.wait(first)?.into_bytes(), "cont");
//!
//! client.quit()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::Duration;

use bytes::Bytes;
use cvmcache_proto::Capabilities;

use crate::Locator;

mod builder;
mod connection;
mod deadline;
mod error;
mod new_upload;
mod pending;
mod pipeline;
mod reading;
mod reload;
mod requests;
mod socket;
mod store;

#[cfg(test)]
mod fake;

pub use builder::ClientBuilder;
pub use connection::Connection;
pub use error::ClientError;
pub use new_upload::NewUpload;
pub use pending::Ticket;
pub use reload::Reload;
pub use requests::{ListPart, Shrunk};
pub use store::Upload;

pub use cvmcache_proto::frame::TooLarge;
pub use cvmcache_proto::{
    ClientMessage, FrameError, HandshakeAck, Operation, Reply, ReplyBody, Request, RequestKind,
    ServerMessage, StorePart,
};

use deadline::Deadline;
use pending::Pending;

/// A session with a plugin.
///
/// Methods wait for the plugin, for ever unless a timeout is set
/// ([`ClientBuilder::timeout`]). Dropping a client just closes its connection: to the plugin, that
/// is a client that died. [`quit`](Self::quit) ends the session.
///
/// ```no_run
/// use cvmcache::client::{Client, ClientError};
/// use cvmcache::plugin::Status;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut client = Client::connect(&"unix=/run/cvmfs/cache.socket".parse()?, "test.cern.ch:1")?;
/// let id = "da39a3ee5e6b4b0d3255bfef95601890afd80709".parse()?;
/// match client.open(&id) {
///     Ok(()) => client.close(&id)?,
///     Err(ClientError::Status(Status::NoEntry)) => println!("it is not in the cache"),
///     Err(error) => return Err(error.into()),
/// }
/// client.quit()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    handshake: HandshakeAck,
    locator: Locator,
    builder: ClientBuilder,
    pending: Pending,
    last_id: u64,
    unclaimed_replies: u64,
    detach_requests: u64,
    /// How many of them have been waited for.
    detach_waited: u64,
}

impl Client {
    /// Connects to a plugin and opens a session. `name` is `repository:instance` for a mount, and
    /// need not be UTF-8. There is no timeout: see [`builder`](Self::builder) for one.
    ///
    /// # Errors
    ///
    /// Those of [`ClientBuilder::connect`].
    pub fn connect(locator: &Locator, name: impl Into<Bytes>) -> Result<Self, ClientError> {
        Self::builder().name(name).connect(locator)
    }

    /// A builder of a client: without a name and without a timeout by default.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// The number of the session, which every request carries.
    pub fn session(&self) -> u64 {
        self.handshake.session
    }

    /// The largest part of an upload and the largest read, in bytes: from 4 KiB to 512 KiB.
    pub fn max_object_size(&self) -> usize {
        self.handshake.max_object_size as usize
    }

    /// The capabilities that the plugin declared in the handshake. This client sends other requests, too.
    pub fn capabilities(&self) -> Capabilities {
        self.handshake.capabilities
    }

    /// The name of the plugin. It need not be UTF-8.
    pub fn plugin_name(&self) -> &[u8] {
        &self.handshake.name
    }

    /// The plugin's process id, which it sends on unix sockets only.
    pub fn plugin_pid(&self) -> Option<u64> {
        self.handshake.pid
    }

    /// The locator that the client is connected to.
    pub fn locator(&self) -> &Locator {
        &self.locator
    }

    /// Sets how long each call may wait for the plugin, instead of what [`ClientBuilder::timeout`] set;
    /// without a timeout, for ever.
    ///
    /// # Errors
    ///
    /// [`ClientError::Io`] if the system refuses.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ClientError> {
        self.connection.set_read_timeout(timeout)?;
        self.builder.timeout = timeout;
        Ok(())
    }

    /// The connection, to send what the client would not. The replies are unclaimed, see
    /// [`unclaimed_replies`](Self::unclaimed_replies); what is received from the connection itself
    /// is lost to the client.
    pub fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Returns the connection. The session goes on.
    pub fn into_connection(self) -> Connection {
        self.connection
    }

    /// How often the plugin has asked to close file catalogs, as far as the client has received that: it
    /// reads while it waits.
    pub fn detach_requests(&self) -> u64 {
        self.detach_requests
    }

    /// Waits until the plugin asks to close file catalogs, or returns at once if it has asked
    /// since this was last called. A request that has been waited for is not waited for again.
    ///
    /// # Errors
    ///
    /// [`ClientError::Timeout`]; [`ClientError::Closed`] and others if the connection is of no
    /// more use.
    pub fn wait_for_detach(&mut self) -> Result<(), ClientError> {
        let mut deadline = self.connection.deadline();
        while self.detach_waited == self.detach_requests {
            self.receive(&mut deadline)?;
        }
        self.detach_waited += 1;
        Ok(())
    }

    fn send(&mut self, message: ClientMessage) -> Result<(), ClientError> {
        self.connection.send(message)
    }

    /// Waits for a message, and keeps it as a reply or counts it as a detach.
    fn receive(&mut self, deadline: &mut Deadline) -> Result<(), ClientError> {
        let message = self.connection.receive_by(deadline)?.ok_or(ClientError::Closed)?;
        self.sort(message);
        Ok(())
    }

    fn sort(&mut self, message: ServerMessage) {
        let claimed = match message {
            ServerMessage::Detach => {
                self.detach_requests += 1;
                true
            }
            ServerMessage::Reply(reply) => self.pending.answer(reply),
            _ => false,
        };
        self.unclaimed_replies += u64::from(!claimed);
    }
}

#[cfg(test)]
mod tests {
    use cvmcache_proto::Status;

    use super::fake::FakePlugin;
    use super::*;

    const INFO: ReplyBody = ReplyBody::Info(Err(Status::NoSupport));

    #[test]
    fn detach_messages_between_replies_are_counted() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            let (id, _) = end.request();
            end.send(ServerMessage::Detach);
            end.send(ServerMessage::Detach);
            end.reply(id, INFO);
            end.serve(Operation::Info, INFO);
            end.send(ServerMessage::Detach);
        });
        client.info().unwrap_err();
        assert_eq!(client.detach_requests(), 2);
        client.wait_for_detach().unwrap();
        client.wait_for_detach().unwrap();
        let _asks_for_the_third = client.queue(Operation::Info).unwrap();
        client.wait_for_detach().unwrap();
        assert_eq!(client.detach_requests(), 3);
        plugin.join();
        assert!(matches!(client.wait_for_detach(), Err(ClientError::Closed)));
    }
}
