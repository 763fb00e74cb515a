//! Accepts connections, a few at a time, and backs off when the system has no resources for them.

use std::io;
use std::time::Duration;

use mio::{Registry, Token};
use tracing::{info, warn};

use super::access::{Access, Origin};
use super::errors::ListenError;
use super::listener::Listener;
use super::named_listener::{NamedListener, Renewed, is_drained};
use super::watch::Watch;
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
    /// A connection that was accepted, and that `epoll` had no memory for.
    unregistered: Option<(Socket, Origin)>,
    /// `None` if there is no file to watch, or no thread for it.
    watch: Option<Watch>,
    /// Why the socket or its lock file is not in place, as it was logged.
    problem: Option<String>,
}

impl Acceptor {
    pub(crate) fn new(listener: Listener, access: Access) -> Self {
        Self {
            listener: Some(listener),
            access,
            accepted: 0,
            is_ready: false,
            is_backing_off: false,
            unregistered: None,
            watch: None,
            problem: None,
        }
    }

    /// Has the files of a unix socket watched. `wake` is called on another thread when
    /// [`renew`](Self::renew) has something to do.
    pub(crate) fn watch(&mut self, wake: impl Fn() + Send + 'static) {
        let Some(Listener::Unix(socket)) = &self.listener else { return };
        if !socket.is_in_place() {
            let problem = lost(socket);
            warn!("{problem}");
            self.problem = Some(problem);
        }
        match Watch::start(socket.places(), wake) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                warn!(%error, "the socket is not watched: if its file is removed, no client can connect");
            }
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.listener.is_none()
    }

    /// Accepts no more connections, and removes the socket.
    pub(crate) fn close(&mut self) {
        self.watch = None;
        self.listener = None;
        self.unregistered = None;
    }

    /// Notes that `epoll` has reported a connection.
    pub(crate) fn set_ready(&mut self) {
        self.is_ready = true;
    }

    /// True if there may be something to accept at once.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready && !self.is_backing_off && !self.is_closed()
    }

    /// True if `accept` has reported EAGAIN since the last event: the backlog is empty.
    pub(crate) fn is_drained(&self) -> bool {
        !self.is_ready
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
        mut admit: impl FnMut(Token, Socket, Origin),
    ) -> Option<Duration> {
        for _ in 0..ACCEPT_AT_ONCE {
            if !self.is_ready() {
                break;
            }
            let token = Token(FIRST_CONNECTION + self.accepted);
            match self.next(registry, token) {
                Ok((_, origin)) if !self.access.admits(origin) => {
                    warn!(%origin, "connection refused");
                }
                Ok((socket, origin)) => {
                    self.accepted += 1;
                    admit(token, socket, origin);
                }
                Err(error) => match error.kind() {
                    _ if is_drained(&error) => self.is_ready = false,
                    // An error of this connection only: see accept(2).
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

    /// The next connection, registered with `epoll`.
    fn next(&mut self, registry: &Registry, token: Token) -> io::Result<(Socket, Origin)> {
        let next = match (self.unregistered.take(), &mut self.listener) {
            (Some(next), _) => Ok(next),
            (None, Some(listener)) => {
                listener.accept().inspect(|(socket, _)| socket.enlarge_send_buffer())
            }
            (None, None) => Err(io::ErrorKind::WouldBlock.into()),
        };
        let (mut socket, origin) = next?;
        match socket.register(registry, token) {
            Ok(()) => Ok((socket, origin)),
            Err(error) => {
                self.unregistered = Some((socket, origin));
                Err(error)
            }
        }
    }

    /// Refuses connections from now on; those that wait already can still be accepted.
    pub(crate) fn stop_listening(&mut self) {
        self.listener.iter_mut().for_each(Listener::stop);
        // `epoll` may not have reported them yet.
        self.is_ready = true;
    }

    /// Listens again after [`Acceptor::stop_listening`].
    pub(crate) fn resume_listening(&mut self, registry: &Registry) {
        let Some(listener) = &mut self.listener else { return };
        let problem = listener.resume(registry, LISTENER).err().map(unbound);
        self.on_renewed(problem);
    }

    /// Makes the socket and its lock file again if they were reported not to be in place.
    pub(crate) fn renew(&mut self, registry: &Registry) {
        if !self.watch.as_ref().is_some_and(Watch::take_report) {
            return;
        }
        let Some(Listener::Unix(socket)) = &mut self.listener else { return };
        let path = socket.path().display().to_string();
        let problem = match socket.renew(registry, LISTENER) {
            Ok(Renewed::InPlace) => {
                if self.problem.is_some() {
                    info!("the socket {path} and its lock file are in place again");
                }
                None
            }
            Ok(Renewed::Bound) => {
                warn!("the socket {path} was removed: it is bound again, and clients can connect");
                None
            }
            Ok(Renewed::Lost) => Some(lost(socket)),
            Err(error) if socket.is_in_place() => Some(format!(
                "{error}: the lock file was removed, and cannot be made again yet; clients can connect all the same"
            )),
            Err(_) if socket.is_inherited() => Some(lost(socket)),
            Err(error) => Some(unbound(error)),
        };
        self.on_renewed(problem);
    }

    /// Goes on with a socket that is in place, or tries again later. A problem is logged once.
    fn on_renewed(&mut self, problem: Option<String>) {
        // `epoll` reports nothing of the socket before, which may have a backlog.
        self.is_ready = true;
        if let Some(problem) = &problem
            && self.problem.as_ref() != Some(problem)
        {
            warn!("{problem}");
        }
        if let (Some(watch), Some(Listener::Unix(socket))) = (&self.watch, &self.listener) {
            watch.set_places(problem.is_none().then(|| socket.places()));
        }
        self.problem = problem;
    }
}

fn unbound(error: ListenError) -> String {
    format!(
        "{error}: the socket is gone, and cannot be bound again yet: only clients that are connected \
         are served"
    )
}

fn lost(socket: &NamedListener) -> String {
    format!(
        "the inherited socket is not at {path}, which belongs to the service manager, so it is not bound again: \
         only clients that are connected are served; unmount all repositories, and then start the socket \
         unit anew",
        path = socket.path().display()
    )
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
            let mode = Access::default().socket_mode();
            let listener = Listener::bind(&Locator::Unix(path.clone()), mode).unwrap();
            let acceptor = Acceptor::new(listener, Access::default());
            Self { acceptor, poll: Poll::new().unwrap(), path, _directory: directory }
        }

        fn accept(&mut self) -> (Vec<Token>, Option<Duration>) {
            let mut tokens = Vec::new();
            let admit = |token, _, _| tokens.push(token);
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
