//! Accepts connections, a few at a time, and backs off when the system has no resources for them.

use std::io;
use std::time::Duration;

use mio::{Registry, Token};
use tracing::warn;

use super::access::Access;
use super::listener::Listener;
use crate::server::socket::Socket;

pub(crate) const LISTENER: Token = Token(1);
const FIRST_CONNECTION: usize = 2;

/// How many connections are accepted before the others get their turns.
const ACCEPT_AT_ONCE: usize = 64;

/// How long to wait after `accept` failed for want of descriptors or memory (EMFILE, ENFILE, ENOBUFS,
/// ENOMEM). The socket stays ready all that time, so trying at once would be a busy loop.
const BACK_OFF: Duration = Duration::from_millis(500);

/// The listener, and whether there is something to accept.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// `None` once it is closed for good.
    listener: Option<Listener>,
    access: Access,
    /// How many connections were accepted: what their tokens are made of.
    accepted: usize,
    /// A connection may be waiting: `epoll` has reported one, and `accept` not yet EAGAIN.
    is_ready: bool,
    is_backing_off: bool,
}

impl Acceptor {
    pub(crate) fn new(listener: Listener, access: Access) -> Self {
        let listener = Some(listener);
        Self { listener, access, accepted: 0, is_ready: false, is_backing_off: false }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.listener.is_none()
    }

    /// Accepts no more connections, and removes the socket.
    pub(crate) fn close(&mut self) {
        self.listener = None;
    }

    /// Notes that `epoll` has reported a connection.
    pub(crate) fn set_ready(&mut self) {
        self.is_ready = true;
    }

    /// True if there may be something to accept at once.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready && !self.is_backing_off && !self.is_closed()
    }

    /// Ends a back-off: time has passed, or a connection has closed and left its descriptor.
    pub(crate) fn retry_now(&mut self) {
        self.is_backing_off = false;
    }

    /// Accepts what is there, each under a token that is never used again. A connection that is not
    /// allowed is closed. If the system has no resources for another one, returns how long to wait
    /// before [`retry_now`](Self::retry_now).
    pub(crate) fn accept(
        &mut self,
        registry: &Registry,
        mut admit: impl FnMut(Token, Socket),
    ) -> Option<Duration> {
        for _ in 0..ACCEPT_AT_ONCE {
            let Some(listener) = self.listener.as_ref().filter(|_| self.is_ready()) else { break };
            let token = Token(FIRST_CONNECTION + self.accepted);
            let accepted = listener.accept().and_then(|(mut socket, origin)| {
                socket.register(registry, token).map(|()| (socket, origin))
            });
            match accepted {
                Ok((_, origin)) if !self.access.admits(origin) => {
                    warn!(%origin, "connection refused");
                }
                Ok((socket, _)) => {
                    self.accepted += 1;
                    admit(token, socket);
                }
                Err(error) => match error.kind() {
                    // EINVAL is the error of a socket that does not listen any more.
                    io::ErrorKind::WouldBlock | io::ErrorKind::InvalidInput => {
                        self.is_ready = false;
                    }
                    // One connection that came to nothing.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        warn!(%error, "cannot accept a connection: it waits until there is room");
                        self.is_backing_off = true;
                        return Some(BACK_OFF);
                    }
                },
            }
        }
        None
    }

    /// Refuses connections from now on; those that wait already can still be accepted.
    pub(crate) fn stop_listening(&mut self) {
        self.listener.iter().for_each(Listener::stop);
        // `epoll` may not have reported them yet.
        self.is_ready = true;
    }

    /// Listens again after [`Acceptor::stop_listening`].
    pub(crate) fn resume_listening(&mut self, registry: &Registry) {
        let resumed = self.listener.as_mut().map(|listener| listener.resume(registry, LISTENER));
        if let Some(Err(error)) = resumed {
            warn!(%error, "cannot listen again: only clients that are connected are served");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    use mio::Poll;

    use super::*;
    use crate::Locator;

    struct Fixture {
        acceptor: Acceptor,
        poll: Poll,
        path: PathBuf,
        _directory: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("socket");
            let listener = Listener::bind(&Locator::Unix(path.clone())).unwrap();
            let acceptor = Acceptor::new(listener, Access::default());
            Self { acceptor, poll: Poll::new().unwrap(), path, _directory: directory }
        }

        fn accept(&mut self) -> (Vec<Token>, Option<Duration>) {
            let mut tokens = Vec::new();
            let admit = |token, _| tokens.push(token);
            let back_off = self.acceptor.accept(self.poll.registry(), admit);
            (tokens, back_off)
        }

        fn connect(&self) -> UnixStream {
            UnixStream::connect(&self.path).unwrap()
        }
    }

    #[test]
    fn connections_are_accepted_once_epoll_has_reported_them_and_under_tokens_of_their_own() {
        let mut f = Fixture::new();
        let _clients = [f.connect(), f.connect()];
        assert!(!f.acceptor.is_ready());
        assert_eq!(f.accept(), (vec![], None));
        f.acceptor.set_ready();
        assert!(f.acceptor.is_ready());
        assert_eq!(f.accept(), (vec![Token(2), Token(3)], None));
        assert!(!f.acceptor.is_ready(), "there are no more");
        let _third = f.connect();
        f.acceptor.set_ready();
        assert_eq!(f.accept(), (vec![Token(4)], None), "although the others have closed");
    }

    #[test]
    fn a_burst_is_accepted_in_parts() {
        let mut f = Fixture::new();
        let _clients: Vec<_> = (0..ACCEPT_AT_ONCE + 1).map(|_| f.connect()).collect();
        f.acceptor.set_ready();
        assert_eq!(f.accept().0.len(), ACCEPT_AT_ONCE);
        assert!(f.acceptor.is_ready());
        assert_eq!(f.accept().0.len(), 1);
    }

    #[test]
    fn during_a_back_off_nothing_is_accepted() {
        let mut f = Fixture::new();
        let _client = f.connect();
        f.acceptor.set_ready();
        f.acceptor.is_backing_off = true;
        assert!(!f.acceptor.is_ready());
        assert_eq!(f.accept(), (vec![], None));
        f.acceptor.retry_now();
        assert_eq!(f.accept().0.len(), 1);
    }

    #[test]
    fn a_socket_that_stopped_listening_has_its_backlog_accepted_and_listens_again() {
        let mut f = Fixture::new();
        let _early = f.connect();
        f.acceptor.stop_listening();
        UnixStream::connect(&f.path).unwrap_err();
        assert_eq!(f.accept().0.len(), 1);
        f.acceptor.resume_listening(f.poll.registry());
        let _again = f.connect();
        f.acceptor.set_ready();
        assert_eq!(f.accept().0.len(), 1);
    }

    #[test]
    fn a_closed_acceptor_removes_its_socket_and_accepts_nothing() {
        let mut f = Fixture::new();
        let _client = f.connect();
        f.acceptor.set_ready();
        f.acceptor.close();
        assert!(f.acceptor.is_closed() && !f.acceptor.is_ready());
        assert_eq!(f.accept(), (vec![], None));
        assert!(!f.path.exists());
    }
}
