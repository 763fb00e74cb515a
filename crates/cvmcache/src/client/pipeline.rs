//! Pipelining: requests are queued without waiting, and their replies are claimed in any order.

use cvmcache_proto::{ClientMessage, Operation, Request};

use super::deadline::Deadline;
use super::pending::Read;
use super::{Client, ClientError, Ticket};

/// Any number of requests can be in flight. Replies come in the order that suits the plugin, and
/// are kept until they are claimed.
///
/// A request that is [submitted](Self::submit) is sent at once. One that is
/// [queued](Self::queue) is sent before the client next waits for something that has not come
/// yet, and so together with others: a loop that waits for the oldest of n requests and queues
/// another sends as many with one write as there were replies in one read.
///
/// There is no bound on requests in flight: replies take memory until they are claimed or
/// [forgotten](Self::forget).
impl Client {
    /// Sends a request, and those that are queued, without waiting for the reply.
    ///
    /// # Errors
    ///
    /// [`ClientError::TooLarge`] if it fits into no frame; [`ClientError::Timeout`] if the plugin
    /// does not take it; [`ClientError::Closed`] and others if the connection is of no more use.
    pub fn submit(&mut self, operation: Operation) -> Result<Ticket, ClientError> {
        let ticket = self.queue(operation)?;
        self.flush_for(ticket)
    }

    /// Has a request sent before the client next waits, or with the next that is submitted, or when
    /// there is much to send: see [`Connection::queue`](super::Connection::queue).
    ///
    /// # Errors
    ///
    /// Those of [`submit`](Self::submit).
    pub fn queue(&mut self, operation: Operation) -> Result<Ticket, ClientError> {
        self.queue_typed(operation, |body| Some(Ok(body)))
    }

    /// Sends a request with a session and a number that need not be the client's own.
    ///
    /// # Errors
    ///
    /// Those of [`submit`](Self::submit).
    pub fn submit_request(&mut self, request: Request) -> Result<Ticket, ClientError> {
        let ticket = self.queue_request(request, |body| Some(Ok(body)))?;
        self.flush_for(ticket)
    }

    /// Sends what is queued, and waits for no reply.
    ///
    /// # Errors
    ///
    /// Those of [`submit`](Self::submit), but for [`ClientError::TooLarge`].
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.connection.flush()
    }

    /// Waits for a reply, and sends before that what is queued. Other replies that arrive meanwhile are
    /// kept.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unexpected`] if the reply is of another kind than the request;
    /// [`ClientError::ForeignTicket`] for a ticket of another client; [`ClientError::Timeout`] if this
    /// reply does not come in time, whatever else does, after which it is [forgotten](Self::forget);
    /// [`ClientError::Closed`] and others if the connection is of no more use. A ticket from
    /// [`submit`](Self::submit) or [`queue`](Self::queue) has the status in the reply, any other has
    /// [`ClientError::Status`] if the request failed.
    pub fn wait<T>(&mut self, ticket: Ticket<T>) -> Result<T, ClientError> {
        let mut deadline = self.connection.deadline();
        self.wait_by(ticket, &mut deadline)
    }

    fn wait_by<T>(&mut self, ticket: Ticket<T>, deadline: &mut Deadline) -> Result<T, ClientError> {
        loop {
            if let Some(body) = self.pending.claim(&ticket)? {
                return ticket.open(body);
            }
            if let Err(error) = self.receive(deadline) {
                self.pending.forget(&ticket);
                return Err(error);
            }
        }
    }

    /// Whether a reply has arrived, so that waiting for it takes no time. Does not wait for the
    /// plugin, but to send what is queued. Once the connection has ended, no more replies arrive,
    /// and [`wait`](Self::wait) returns the reason.
    ///
    /// # Errors
    ///
    /// Those of [`submit`](Self::submit) and [`Connection::receive`](super::Connection::receive);
    /// [`ClientError::Timeout`] if other messages come for so long without a pause.
    pub fn is_ready<T>(&mut self, ticket: &Ticket<T>) -> Result<bool, ClientError> {
        let mut deadline = self.connection.deadline();
        while !self.pending.is_answered(ticket)? {
            match self.connection.try_receive()? {
                Some(message) => self.sort(message),
                None => return Ok(false),
            }
            // Replies to other requests may come without an end.
            deadline.remaining()?;
        }
        Ok(true)
    }

    /// Waits no longer for a reply, which is unclaimed if it comes. The request is not taken back. A
    /// ticket of another client makes no difference.
    pub fn forget<T>(&mut self, ticket: Ticket<T>) {
        self.pending.forget(&ticket);
    }

    /// How many replies have come that belong to no request in flight. A plugin that answers each request once
    /// makes none, but for those that were forgotten.
    pub fn unclaimed_replies(&self) -> u64 {
        self.unclaimed_replies
    }

    /// Sends what is queued; without its ticket, a reply cannot be waited for.
    pub(super) fn flush_for<T>(&mut self, ticket: Ticket<T>) -> Result<Ticket<T>, ClientError> {
        match self.flush() {
            Ok(()) => Ok(ticket),
            Err(error) => {
                self.pending.forget(&ticket);
                Err(error)
            }
        }
    }

    /// Sends a request and waits for its result.
    pub(super) fn call<T>(
        &mut self,
        operation: Operation,
        read: Read<T>,
    ) -> Result<T, ClientError> {
        let mut deadline = self.connection.deadline();
        let (session, id) = (self.session(), self.next_id());
        let request = Request { session, id, operation };
        let ticket = self.queue_by(request, read, &mut deadline)?;
        self.wait_by(ticket, &mut deadline)
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn queue_typed<T>(
        &mut self,
        operation: Operation,
        read: Read<T>,
    ) -> Result<Ticket<T>, ClientError> {
        let (session, id) = (self.session(), self.next_id());
        self.queue_request(Request { session, id, operation }, read)
    }

    pub(super) fn queue_request<T>(
        &mut self,
        request: Request,
        read: Read<T>,
    ) -> Result<Ticket<T>, ClientError> {
        let mut deadline = self.connection.deadline();
        self.queue_by(request, read, &mut deadline)
    }

    fn queue_by<T>(
        &mut self,
        request: Request,
        read: Read<T>,
        deadline: &mut Deadline,
    ) -> Result<Ticket<T>, ClientError> {
        let envelope = request.envelope();
        self.connection.queue_by(ClientMessage::Request(request), deadline)?;
        Ok(self.pending.expect(envelope, read))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use bytes::Bytes;
    use cvmcache_proto::{CacheInfo, Data, Reply, ReplyBody, RequestKind, ServerMessage, Status};

    use super::super::fake::{self, FakePlugin, PluginEnd, object};
    use super::*;

    const INFO: ReplyBody = ReplyBody::Info(Err(Status::NoSupport));

    fn read_reply(bytes: &'static [u8]) -> ReplyBody {
        let data = Data::from(Bytes::from_static(bytes));
        ReplyBody::Read { result: Ok(data), data_crc32: None }
    }

    #[test]
    fn replies_may_come_in_any_order() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            let ids = [(); 3].map(|()| end.request().0);
            end.reply(ids[2], INFO);
            end.reply(ids[1], read_reply(b"second"));
            end.reply(ids[0], read_reply(b"first"));
        });
        let first = client.queue_read(&object(1), 0, 10).unwrap();
        let second = client.queue_read(&object(2), 0, 10).unwrap();
        let third = client.queue(Operation::Info).unwrap();
        assert_eq!(client.wait(first).unwrap().into_bytes(), "first");
        assert_eq!(client.wait(third).unwrap(), INFO);
        assert_eq!(client.wait(second).unwrap().into_bytes(), "second");
        plugin.join();
    }

    #[test]
    fn what_is_queued_is_sent_with_what_is_submitted() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            assert!(matches!(end.request(), (1, Operation::Read { .. })));
            assert!(matches!(end.request(), (2, Operation::Info)));
        });
        let _queued = client.queue_read(&object(1), 0, 10).unwrap();
        let _submitted = client.submit(Operation::Info).unwrap();
        plugin.join();
    }

    #[test]
    fn a_reply_that_has_arrived_is_returned_without_waiting() {
        let (say, is_said) = mpsc::channel();
        let (plugin, mut client) = FakePlugin::with_client(move |end| {
            let (first, _) = end.request();
            let (second, _) = end.request();
            end.reply(first, INFO);
            is_said.recv().unwrap();
            end.reply(second, INFO);
        });
        let first = client.submit(Operation::Info).unwrap();
        let second = client.queue(Operation::Info).unwrap();
        assert!(!client.is_ready(&second).unwrap(), "but now it is sent");
        client.wait(first).unwrap();
        assert!(!client.is_ready(&second).unwrap());
        say.send(()).unwrap();
        while !client.is_ready(&second).unwrap() {}
        plugin.join();
        assert_eq!(client.wait(second).unwrap(), INFO, "it was kept");
    }

    #[test]
    fn unmatched_replies_are_counted() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            let (forgotten, _) = end.request();
            let (id, _) = end.request();
            end.reply(id + 1, INFO);
            end.send(ServerMessage::HandshakeAck(fake::ack()));
            end.reply(forgotten, INFO);
            end.reply(id, ReplyBody::Info(Ok(CacheInfo::default())));
        });
        let forgotten = client.queue(Operation::Info).unwrap();
        client.forget(forgotten);
        assert_eq!(client.info().unwrap(), CacheInfo::default());
        assert_eq!(client.unclaimed_replies(), 3);
        plugin.join();
    }

    #[test]
    fn a_reply_of_another_kind_is_an_error_of_that_request_only() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            for _ in 0..2 {
                let (id, _) = end.request();
                end.reply(id, ReplyBody::Refcount(Ok(())));
            }
            end.serve(Operation::Info, INFO);
        });
        let asked = RequestKind::Info;
        let error = client.info().unwrap_err();
        assert!(matches!(error, ClientError::Unexpected { asked: a, .. } if a == asked), "{error}");
        let ticket = client.submit(Operation::Info).unwrap();
        let error = client.wait(ticket).unwrap_err();
        assert!(matches!(error, ClientError::Unexpected { asked: a, .. } if a == asked), "{error}");
        assert_eq!(client.info().unwrap_err().status(), Some(Status::NoSupport));
        plugin.join();
    }

    #[test]
    fn a_timeout_of_one_request_leaves_the_next_in_flight() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            let (late, _) = end.request();
            let (id, _) = end.request();
            end.reply(late, INFO);
            end.reply(id, INFO);
        });
        client.set_timeout(Some(Duration::from_millis(10))).unwrap();
        assert!(matches!(client.info(), Err(ClientError::Timeout)));
        client.set_timeout(None).unwrap();
        assert_eq!(client.info().unwrap_err().status(), Some(Status::NoSupport));
        assert_eq!(client.unclaimed_replies(), 1);
        plugin.join();
    }

    #[test]
    fn nothing_but_its_reply_extends_the_wait_of_a_request() {
        let foreign = fake::encoded(ServerMessage::Reply(Reply { id: 777, body: INFO }));
        for other in [fake::DETACH.to_vec(), foreign] {
            let (plugin, mut client) = FakePlugin::with_client(move |end| end.repeat(&other));
            client.set_timeout(Some(Duration::from_millis(20))).unwrap();
            assert!(matches!(client.info(), Err(ClientError::Timeout)));
            let ticket = client.queue(Operation::Info).unwrap();
            let is_ready = client.is_ready(&ticket);
            assert!(matches!(is_ready, Ok(false) | Err(ClientError::Timeout)), "{is_ready:?}");
            assert!(matches!(client.quit(), Err(ClientError::Timeout)));
            plugin.join();
        }
    }

    #[test]
    fn a_closed_connection_is_an_error_of_all_requests_in_flight() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            let (first, _) = end.request();
            end.request();
            end.reply(first, INFO);
        });
        let first = client.submit(Operation::Info).unwrap();
        let second = client.submit(Operation::Info).unwrap();
        assert!(matches!(client.wait(second), Err(ClientError::Closed)));
        assert_eq!(client.wait(first).unwrap(), INFO, "what was answered is not lost");
        assert!(matches!(client.info(), Err(ClientError::Closed)));
        plugin.join();
    }

    #[test]
    fn a_ticket_of_another_client_is_an_error() {
        let (a, mut client_a) = FakePlugin::with_client(|end| end.serve(Operation::Info, INFO));
        let (b, mut client_b) = FakePlugin::with_client(PluginEnd::expect_end);
        let ticket = client_a.submit(Operation::Info).unwrap();
        assert!(matches!(client_b.wait(ticket), Err(ClientError::ForeignTicket)));
        drop(client_b);
        a.join();
        b.join();
    }

    #[test]
    fn a_request_can_carry_another_session_id() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            let request = Request { session: 77, id: 88, operation: Operation::Info };
            assert_eq!(end.next(), Some(ClientMessage::Request(request)));
            end.reply(88, INFO);
        });
        let request = Request { session: 77, id: 88, operation: Operation::Info };
        let ticket = client.submit_request(request).unwrap();
        assert_eq!(client.wait(ticket).unwrap(), INFO);
        plugin.join();
    }

    #[test]
    fn large_requests_and_replies_at_once_do_not_deadlock() {
        const LARGE: usize = 4 * 1024 * 1024;
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            // It sends all replies before it reads.
            for _ in 0..8 {
                let result = Ok(Data::from(vec![7; LARGE / 8]));
                end.reply(0, ReplyBody::Read { result, data_crc32: None });
            }
            let (id, _) = end.request();
            end.reply(id, ReplyBody::Breadcrumb(Err(Status::NoEntry)));
        });
        let repository = vec![b'x'; LARGE];
        let error = client.load_breadcrumb(repository).unwrap_err();
        assert_eq!(error.status(), Some(Status::NoEntry));
        assert_eq!(client.unclaimed_replies(), 8);
        plugin.join();
    }
}
