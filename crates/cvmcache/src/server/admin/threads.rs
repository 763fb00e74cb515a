//! The threads of the administration socket.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::{Events, Poll, Registry, Token};
use tracing::{debug, info, warn};

use super::calls::{self, Calls};
use super::pool::{Full, Pool};
use super::state::{Administered, State};
use super::{routes, windows};
use crate::admin::AdminSocket;
use crate::http::{self, Bounds, Request, Response, StatusCode};
use crate::server::accept::{Acceptor, Access, LISTENER, ListenError, Listener};
use crate::server::socket::Socket;
use crate::server::waker::Waker;
use crate::{Locator, threads, watchdog};

/// What a connection may take, besides what the answer takes to be made.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(5), head: 8 * 1024, body: 64 * 1024 };

/// How long the end of the server waits for a connection that is served.
const END: Duration = Duration::from_secs(2);

const WAKER: Token = Token(0);

/// The threads. Dropping this ends them, and removes the socket.
#[derive(Debug)]
pub(crate) struct AdminThreads {
    ends: Arc<AtomicBool>,
    waker: Arc<Waker>,
    /// Disconnected once the last of them has ended.
    alive: Receiver<()>,
}

impl AdminThreads {
    /// Binds the socket and starts the threads. What they want of the plugin comes by way of [`Calls`].
    ///
    /// # Errors
    ///
    /// If the socket cannot be bound, or the system has no descriptors or threads to spare: the server goes
    /// on without the socket.
    pub(crate) fn start(
        socket: AdminSocket,
        server: Administered,
    ) -> Result<(Self, Calls), StartError> {
        let locator = Locator::Unix(socket.path.clone());
        // The plugin's own user and root, and no others.
        let access = Access::default();
        let mut listener = Listener::bind(&locator, access.socket_mode())?;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        listener.register(poll.registry(), LISTENER)?;
        let mut acceptor = Acceptor::new(listener, access);
        let woken = waker.clone();
        acceptor.watch(move || woken.wake());

        let (caller, calls) = calls::channel(server.handle.clone());
        let path = socket.path.display().to_string();
        let state = Arc::new(State::new(server, socket, caller));
        let (alive, all_ended) = bounded(0);
        let attendant = Attendant { state: state.clone(), _alive: alive.clone() };
        let pool = Pool::new(move |socket| attendant.serve(socket));
        let ends = Arc::new(AtomicBool::new(false));
        let acceptance =
            Acceptance { poll, waker: waker.clone(), acceptor, ends: ends.clone(), pool, state };
        threads::spawn("admin", move || {
            watchdog::prepare_thread();
            acceptance.run();
            drop(alive);
        })?;
        info!("the administration socket is {path}");
        Ok((Self { ends, waker, alive: all_ended }, calls))
    }
}

impl Drop for AdminThreads {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        self.waker.wake();
        let _ = self.alive.recv_timeout(END);
    }
}

/// Why there is no administration socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The thread that accepts.
struct Acceptance {
    poll: Poll,
    waker: Arc<Waker>,
    acceptor: Acceptor,
    ends: Arc<AtomicBool>,
    pool: Pool<UnixStream>,
    state: Arc<State>,
}

impl Acceptance {
    fn run(mut self) {
        let mut events = Events::with_capacity(16);
        let mut next_count = Instant::now() + windows::PERIOD;
        // While `accept` backs off, its socket stays ready without an event.
        let mut back_off = None;
        while !self.ends.load(Ordering::Acquire) {
            let until_count = next_count.saturating_duration_since(Instant::now());
            let timeout = match back_off.take() {
                Some(time) => until_count.min(time),
                // It accepts a few at a time, and `epoll` has reported the others.
                None if self.acceptor.is_ready() => Duration::ZERO,
                None => until_count,
            };
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return warn!(%error, "the administration socket is not served any more");
                }
                _ => {}
            }
            self.waker.acknowledge();
            if events.iter().any(|event| event.token() == LISTENER) {
                self.acceptor.set_ready();
            }
            self.acceptor.renew(self.poll.registry());
            self.acceptor.retry_now();
            let Self { poll, acceptor, pool, .. } = &mut self;
            back_off = acceptor.accept(poll.registry(), |_, socket, _| {
                pass_on(pool, poll.registry(), socket);
            });
            let now = Instant::now();
            if now >= next_count {
                let counts = self.state.counts();
                self.state.windows.lock().keep(now, counts);
                next_count = now + windows::PERIOD;
            }
        }
    }
}

/// Passes a connection to a thread that serves it; refuses it if there are too many.
fn pass_on(pool: &Pool<UnixStream>, registry: &Registry, socket: Socket) {
    let Socket::Unix(mut socket) = socket else { return };
    let _ = registry.deregister(&mut socket);
    let blocking = UnixStream::from(OwnedFd::from(socket));
    if let Err(error) = blocking.set_nonblocking(false) {
        return debug!(%error, "an administrator is not served");
    }
    if let Err(Full(mut socket)) = pool.take(blocking) {
        let bounds = Bounds { time: Duration::from_millis(100), ..BOUNDS };
        let busy = |_: &_| {
            Response::text(StatusCode::ServiceUnavailable, "too many connections: try again\n")
        };
        let _ = http::serve(&mut socket, &bounds, busy);
    }
}

/// What the threads that serve share.
struct Attendant {
    state: Arc<State>,
    /// Until the last of them has ended.
    _alive: Sender<()>,
}

impl Attendant {
    fn serve(&self, mut socket: UnixStream) {
        let respond = |request: &Request| routes::respond(&self.state, request);
        if let Err(error) = http::serve(&mut socket, &BOUNDS, respond) {
            debug!(%error, "an administrator did not take the answer");
        }
    }
}
