//! Quit and reload: how a client ends its session.

use cvmcache_proto::ClientMessage;

use super::{Client, ClientBuilder, ClientError};
use crate::Locator;

/// A client that has announced a reload and ended its session: see [`Client::announce_reload`].
#[derive(Debug)]
#[must_use = "the plugin keeps what the session held until the client is back"]
pub struct Reload {
    locator: Locator,
    builder: ClientBuilder,
}

/// Leaving.
impl Client {
    /// Ends the session and waits until the plugin has closed the connection. Replies that come
    /// meanwhile are dropped. The plugin releases the references of the session.
    ///
    /// # Errors
    ///
    /// [`ClientError::Timeout`] if the plugin does not close it in time; others as with
    /// [`wait`](Self::wait).
    pub fn quit(mut self) -> Result<(), ClientError> {
        let session = self.session();
        let mut deadline = self.connection.deadline();
        self.connection.send_by(ClientMessage::Quit { session }, &mut deadline)?;
        while self.connection.receive_by(&mut deadline)?.is_some() {}
        Ok(())
    }

    /// Adds to the number of clients that the plugin waits for before it ends: 1 announces a reload, -1
    /// reports that it is done. [`reload`](Self::reload) does both. There is no reply, and a server of
    /// this crate ignores what makes no sense.
    ///
    /// # Errors
    ///
    /// Those of [`submit`](Self::submit).
    pub fn ioctl(&mut self, connection_change: i32) -> Result<(), ClientError> {
        let session = self.session();
        self.send(ClientMessage::Ioctl { session, connection_change })
    }

    /// Ends the session and opens a new one, as a client does when it is reloaded: with the same
    /// name, and with the references that it had. Uploads and listings end, tickets are void.
    ///
    /// # Errors
    ///
    /// Those of [`quit`](Self::quit) and [`ClientBuilder::connect`].
    pub fn reload(self) -> Result<Self, ClientError> {
        Self::finish_reload(self.announce_reload()?)
    }

    /// The first half of a [`reload`](Self::reload): announces it, ends
    /// the session and waits until the plugin has closed the connection.
    ///
    /// # Errors
    ///
    /// Those of [`quit`](Self::quit).
    pub fn announce_reload(mut self) -> Result<Reload, ClientError> {
        self.ioctl(1)?;
        let reload = Reload { locator: self.locator.clone(), builder: self.builder.clone() };
        self.quit()?;
        Ok(reload)
    }

    /// The second half of a [`reload`](Self::reload): connects again, and reports to the plugin that
    /// the reload is done.
    ///
    /// # Errors
    ///
    /// Those of [`ClientBuilder::connect`].
    pub fn finish_reload(reload: Reload) -> Result<Self, ClientError> {
        let mut client = reload.builder.connect(&reload.locator)?;
        client.ioctl(-1)?;
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use cvmcache_proto::{HandshakeAck, Operation, ReplyBody, Status};

    use super::super::fake::{self, FakePlugin, PluginEnd};
    use super::*;

    const NAME: &[u8] = b"test.cern.ch:1";

    fn expect_farewell(end: &mut PluginEnd, announced: bool) {
        let session = fake::SESSION;
        if announced {
            let announcement = ClientMessage::Ioctl { session, connection_change: 1 };
            assert_eq!(end.next(), Some(announcement));
        }
        assert_eq!(end.next(), Some(ClientMessage::Quit { session }));
    }

    #[test]
    fn a_client_that_quits_waits_until_the_plugin_has_closed() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            let (id, _) = end.request();
            expect_farewell(end, false);
            end.reply(id, ReplyBody::Info(Err(Status::IoErr)));
            end.shutdown_write();
            end.expect_end();
        });
        let _unanswered = client.submit(Operation::Info).unwrap();
        client.quit().unwrap();
        plugin.join();
    }

    #[test]
    fn a_client_reconnects_under_its_name_in_a_new_session() {
        let (plugin, locator) = FakePlugin::listening(|listener| {
            let mut end = listener.accept();
            end.answer_handshake(fake::ack());
            expect_farewell(&mut end, true);
            drop(end);
            let mut end = listener.accept();
            let session = fake::SESSION + 1;
            let (_, name) = end.answer_handshake(HandshakeAck { session, ..fake::ack() });
            assert_eq!(name.as_deref(), Some(NAME));
            let done = ClientMessage::Ioctl { session, connection_change: -1 };
            assert_eq!(end.next(), Some(done));
            end.expect_end();
        });
        let client = Client::connect(&locator, NAME).unwrap().reload().unwrap();
        assert_eq!(client.session(), fake::SESSION + 1);
        drop(client);
        plugin.join();
    }

    #[test]
    fn between_the_halves_of_a_reload_there_is_no_connection() {
        let (gone, is_gone) = mpsc::channel();
        let (plugin, locator) = FakePlugin::listening(move |listener| {
            let mut end = listener.accept();
            end.answer_handshake(fake::ack());
            expect_farewell(&mut end, true);
            end.shutdown_write();
            end.expect_end();
            gone.send(()).unwrap();
            let mut end = listener.accept();
            end.answer_handshake(fake::ack());
            let done = ClientMessage::Ioctl { session: fake::SESSION, connection_change: -1 };
            assert_eq!(end.next(), Some(done));
        });
        let reload = Client::connect(&locator, NAME).unwrap().announce_reload().unwrap();
        is_gone.recv().unwrap();
        Client::finish_reload(reload).unwrap();
        plugin.join();
    }
}
