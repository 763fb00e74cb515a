//! The builder of a server, and the server that it returns: bound, then running.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::Poll;
use tracing::{info, warn};

use super::accept::{Acceptor, Access, LISTENER, Listener, Networks, Users};
#[cfg(feature = "admin")]
use super::admin::{AdminThreads, Administered};
use super::buffers::Buffers;
use super::busy_poll::BusyPoll;
use super::error::ServerError;
#[cfg(feature = "admin")]
use super::event_loop::Admin;
use super::event_loop::{EventLoop, State, Telemetry, WAKER};
use super::telemetry::{Heartbeat, HeartbeatTimer, Metrics, Sessions, Statistics, WorkerLoad};
use super::waker::Waker;
use super::workers::Workers;
#[cfg(feature = "admin")]
use crate::admin::AdminSocket;
#[cfg(feature = "admin")]
use crate::config_keys::{ADMIN, WORKERS};
use crate::service::{Service, Trust, guard};
use crate::{CachePlugin, Limits, Locator, MemoryLimit, ServerHandle, threads, watchdog};

/// The longest name, in bytes: it has to fit into a message beside the other fields of a handshake.
const MAX_NAME: usize = 60 * 1024;

/// How long to poll for requests before sleeping, by default.
const POLL_FOR: Duration = Duration::from_micros(200);

/// A plugin as a part of a program: where a server begins, see [`Server::builder`].
///
/// A program that is nothing but a plugin calls [`run`](crate::run) instead.
#[derive(Debug)]
#[non_exhaustive]
pub struct Server;

impl Server {
    /// Prepares a server for a plugin.
    ///
    /// ```no_run
    /// # fn serve(plugin: impl cvmcache::CachePlugin) -> Result<(), cvmcache::ServerError> {
    /// use cvmcache::Server;
    ///
    /// let locator = "unix=/tmp/plugin.socket".parse().expect("a locator");
    /// let running = Server::builder(plugin).workers(4).listen(&locator)?.spawn()?;
    /// // Elsewhere in the program: running.handle().terminate();
    /// running.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(plugin: impl CachePlugin) -> ServerBuilder {
        ServerBuilder {
            plugin: Box::new(plugin),
            name: Bytes::from_static(b"cvmcache"),
            limits: Limits::default(),
            workers: None,
            supervised: false,
            poll_for: POLL_FOR,
            checksum_replies: false,
            metrics: false,
            trust: Trust::default(),
            access: Access::default(),
            heartbeat: HeartbeatTimer::default(),
            handle: ServerHandle::new(),
            #[cfg(feature = "admin")]
            admin: None,
        }
    }
}

/// A server to be, see [`Server::builder`].
#[must_use = "a builder does nothing until it listens"]
pub struct ServerBuilder {
    plugin: Box<dyn CachePlugin>,
    name: Bytes,
    limits: Limits,
    /// `None`: as many as the plugin requests.
    workers: Option<usize>,
    supervised: bool,
    poll_for: Duration,
    checksum_replies: bool,
    metrics: bool,
    trust: Trust,
    access: Access,
    heartbeat: HeartbeatTimer,
    handle: ServerHandle,
    #[cfg(feature = "admin")]
    admin: Option<AdminSocket>,
}

impl ServerBuilder {
    /// Runs callbacks on `count` threads; 0 runs them on the I/O thread, one at a time. By default,
    /// as many as the plugin requests with [`CachePlugin::workers`], which is 0 for most.
    ///
    /// Callbacks that never wait are fastest on the I/O thread. Callbacks that wait, for a disk or
    /// a network, want as many workers as requests should wait at once. There is no bound but what
    /// the system has: [`BoundServer::spawn`] fails if that is exceeded.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = Some(count);
        self
    }

    /// Keeps clients within these bounds instead of the default ones. They are checked when the
    /// server [listens](Self::listen).
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The name in handshakes, metrics and reports; at most 60 KiB, default `cvmcache`.
    pub fn name(mut self, name: impl Into<Bytes>) -> Self {
        self.name = name.into();
        self
    }

    /// Ends with the last client: when the last connection has closed and no reload is pending. For
    /// plugins that a client starts; default false. Until the first client has connected, the server
    /// waits.
    pub fn supervised(mut self, supervised: bool) -> Self {
        self.supervised = supervised;
        self
    }

    /// How long the I/O thread polls for requests before it sleeps; default 200 us, and zero is not at
    /// all.
    ///
    /// Busy polling saves clients that wait for each reply the time that it takes to wake a thread. It
    /// is adaptive: the thread polls as long as most polls find something within this time, and backs
    /// off exponentially otherwise. An idle plugin takes no processor time.
    pub fn poll_for(mut self, time: Duration) -> Self {
        self.poll_for = time;
        self
    }

    /// Sends a CRC-32 (that of zlib) with every answer to a read; default false. The client of the
    /// 2.12 line does not check it. What clients upload is checked in any case, if they send one.
    pub fn checksum_replies(mut self, on: bool) -> Self {
        self.checksum_replies = on;
        self
    }

    /// Measures requests, and what the server holds; default false, and then next to nothing.
    ///
    /// Everything goes through the crate [`metrics`](https://docs.rs/metrics), to the recorder that
    /// is current on the thread that calls [`BoundServer::spawn`]. The names are in
    /// `docs/operations.md`. The plugin's `info` is called every two seconds for this, if it declares
    /// [`INFO`](crate::plugin::Capabilities::INFO): on a worker, or without workers on the I/O thread.
    pub fn metrics(mut self, on: bool) -> Self {
        self.metrics = on;
        self
    }

    /// Lets only clients in these networks connect to a TCP socket; by default, all can. On a
    /// unix socket it makes no difference. A connection that is not allowed is closed without an answer.
    pub fn allow_networks(mut self, networks: Networks) -> Self {
        self.access.networks = Some(networks);
        self
    }

    /// Lets clients of these users connect to a unix socket; by default, those of the plugin's own
    /// user and of root. On a TCP socket it makes no difference.
    ///
    /// If there are others, [`listen`](Self::listen) makes a socket of mode 0666 in place of 0600, and the
    /// server closes connections of users that are not named (SO_PEERCRED). The directories of the socket
    /// have to let them in, too, and so has the mode of a socket that is [handed over](Self::listen_on).
    pub fn allow_users(mut self, users: Users) -> Self {
        self.access.users = users;
        self
    }

    /// Relaxes the isolation between sessions, for tests; by default not at all.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Calls `beat` on the I/O thread at once, then whenever `period` has passed, and when the
    /// server begins to end: for reports to a service manager, which acts if they stop because a callback is
    /// stuck there.
    ///
    /// No client is served while it runs: it must not wait. A beat that panics is the last. A `period`
    /// of zero keeps the thread busy. The last call of this counts.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use cvmcache::{ServerBuilder, Heartbeat};
    ///
    /// fn watched(builder: ServerBuilder) -> ServerBuilder {
    ///     builder.heartbeat(Duration::from_secs(10), |heartbeat| match heartbeat {
    ///         Heartbeat::Alive { clients } => println!("alive, with {clients} clients"),
    ///         _ => println!("about to end"),
    ///     })
    /// }
    /// ```
    pub fn heartbeat(
        mut self,
        period: Duration,
        beat: impl FnMut(Heartbeat) + Send + 'static,
    ) -> Self {
        self.heartbeat = HeartbeatTimer::new(period, Box::new(beat));
        self
    }

    /// Steers the server by this handle, which the plugin may have, too; by default, by a new one. A
    /// handle is for one server only: [`BoundServer::spawn`] fails if it has had another.
    pub fn handle(mut self, handle: ServerHandle) -> Self {
        self.handle = handle;
        self
    }

    /// Serves an [administration socket](crate::admin) as long as the server runs; by default, none.
    ///
    /// If it cannot be bound, that is a warning in the log, and the server goes on without it. Its rules are
    /// those of the plugin's own socket (see [`listen`](Self::listen)), but only the plugin's user and root
    /// can connect.
    #[cfg(feature = "admin")]
    pub fn admin(mut self, socket: AdminSocket) -> Self {
        self.admin = Some(socket);
        self
    }

    /// Binds the socket. From now on clients can connect; they are served once the server runs.
    ///
    /// A unix socket has mode 0600, or 0666 if [others](Self::allow_users) than its own user and root are
    /// let in, and a lock file beside it (`PATH.lock`) that keeps a second plugin away. What a plugin that
    /// was killed has left behind is removed, and no socket that a process has open. A lock that is held
    /// by a process that does not listen, such as one that is about to end, is waited for, but no longer
    /// than 2 s. Dropping what this returns removes the socket, if it is still this one; the lock file
    /// stays. As long as the server runs, it binds the socket again if its file is removed.
    ///
    /// # Errors
    ///
    /// [`ServerError::Limit`] if one of the [`Limits`] is out of its bounds, and
    /// [`ServerError::NameTooLong`]; [`ServerError::Listen`] if the socket cannot be bound, and
    /// [`is_in_use`](ServerError::is_in_use) if that is because another process serves there.
    pub fn listen(self, locator: &Locator) -> Result<BoundServer, ServerError> {
        self.check()?;
        let listener = Listener::bind(locator, self.access.socket_mode())?;
        Ok(self.bound(listener, locator))
    }

    /// Listens on a socket that another process has made (socket activation), such as
    /// [a service manager](crate::ServiceManager::take_socket), and that clients find at `locator`.
    ///
    /// A unix socket's file belongs to that process: it is neither removed at the end nor, if it was removed,
    /// bound again, which is logged. Its lock file is made and locked if that is possible. A
    /// [supervised](Self::supervised) server refuses no connection at its end: one that is made then waits for
    /// the process that inherits the socket next.
    ///
    /// # Errors
    ///
    /// [`ServerError::Limit`] and [`ServerError::NameTooLong`] as with [`listen`](Self::listen), and
    /// [`ServerError::Listen`]: if the socket is no stream socket, does not listen, or listens elsewhere, or
    /// another process holds the lock.
    pub fn listen_on(self, socket: OwnedFd, locator: &Locator) -> Result<BoundServer, ServerError> {
        self.check()?;
        let listener = Listener::take_over(socket, locator)?;
        Ok(self.bound(listener, locator))
    }

    fn check(&self) -> Result<(), ServerError> {
        self.limits.check()?;
        let len = self.name.len();
        if len > MAX_NAME { Err(ServerError::NameTooLong { len }) } else { Ok(()) }
    }

    fn bound(self, listener: Listener, locator: &Locator) -> BoundServer {
        if listener.is_exposed() && self.access.networks.is_none() {
            warn!(
                "{locator}: any host that reaches this address can read and fill the cache; name the \
                 networks that may (CVMFS_CACHE_PLUGIN_ALLOW), or listen on a loopback address"
            );
        }
        if let Some(networks) = &self.access.networks
            && let Some(address) = listener.ip()
            && let Some(reason) = networks.closed_at(locator, &[address])
        {
            warn!("{reason}");
        }
        if let Locator::Unix(path) = locator {
            let users = &self.access.users;
            info!("clients of {users} can connect to {locator}");
            let closed =
                users.closed_directories(path).into_iter().chain(users.closed_socket(path));
            closed.for_each(|reason| warn!("{reason}"));
        }
        BoundServer { builder: self, listener }
    }
}

/// A server that listens, but does not serve yet.
#[must_use = "no client is served until it is spawned"]
pub struct BoundServer {
    builder: ServerBuilder,
    listener: Listener,
}

impl BoundServer {
    /// Where it listens: for TCP, the address in place of the host's name and, for port 0, the port
    /// that the system chose.
    ///
    /// # Errors
    ///
    /// Those of the system, for TCP sockets.
    pub fn locator(&self) -> io::Result<Locator> {
        self.listener.locator()
    }

    /// Starts the I/O thread and the workers. Does not wait for clients.
    ///
    /// # Errors
    ///
    /// [`ServerError::Io`] if the system has no threads or descriptors to spare,
    /// [`ServerError::HandleInUse`] if the [handle](ServerBuilder::handle) has had another server, and
    /// [`ServerError::PluginPanicked`] if the plugin panics when it is asked for its
    /// [`workers`](CachePlugin::workers) or [`capabilities`](CachePlugin::capabilities).
    pub fn spawn(self) -> Result<RunningServer, ServerError> {
        let Self { builder, mut listener } = self;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        listener.register(poll.registry(), LISTENER)?;
        check_spare_descriptors()?;
        let handle = builder.handle;
        let woken_by_handle = waker.clone();
        if !handle.attach(move || woken_by_handle.wake()) {
            return Err(ServerError::HandleInUse);
        }
        let plugin = builder.plugin;
        let workers = builder.workers.map_or_else(|| call("workers", || plugin.workers()), Ok)?;
        let name = builder.name.escape_ascii().to_string();
        let pid = listener.is_local().then(|| std::process::id().into());
        let limits = builder.limits.resolve(MemoryLimit::usable().bytes);
        let buffers = Buffers::new(&limits);
        let service = call("capabilities", || Service::new(plugin, builder.name, limits))?;
        let service = service.checksum_replies(builder.checksum_replies).trust(builder.trust);
        let service = Arc::new(service);
        #[cfg(feature = "admin")]
        let socket = builder.admin.map(|socket| with_values_in_force(socket, workers));
        let workers = Workers::start(workers, &service, &waker)?;
        let metrics = builder.metrics.then(|| Metrics::new(&name));
        let started = Instant::now();
        let (statistics, sessions) = (Arc::new(Statistics::default()), Sessions::default());
        let load = workers.is_some().then(Arc::<WorkerLoad>::default);
        #[cfg(feature = "admin")]
        let admin = socket.and_then(|socket| {
            let server = Administered {
                name: name.clone(),
                handle: handle.clone(),
                service: Arc::downgrade(&service),
                statistics: statistics.clone(),
                sessions: sessions.clone(),
                load: load.clone(),
                started,
            };
            administer(socket, server)
        });
        let telemetry =
            Telemetry::new(name, started, builder.heartbeat, statistics, sessions, load, metrics);
        let mut acceptor = Acceptor::new(listener, builder.access);
        let woken_by_watch = waker.clone();
        acceptor.watch(move || woken_by_watch.wake());
        let event_loop = EventLoop {
            poll,
            waker,
            control: handle.clone(),
            service,
            acceptor,
            workers,
            pid,
            is_supervised: builder.supervised,
            busy_poll: BusyPoll::new(builder.poll_for),
            buffers,
            telemetry,
            #[cfg(feature = "admin")]
            admin,
            state: State::default(),
        };
        let thread = threads::spawn("io", || {
            watchdog::prepare_thread();
            event_loop.run()
        })?;
        Ok(RunningServer { handle, thread })
    }
}

/// The socket, with the values in force of settings that only the server knows.
#[cfg(feature = "admin")]
fn with_values_in_force(mut socket: AdminSocket, workers: usize) -> AdminSocket {
    let path = socket.path.display().to_string();
    socket.set_in_force(&ADMIN, path);
    socket.set_in_force(&WORKERS, workers);
    socket
}

/// Starts the administration socket. A server without one is better than none.
#[cfg(feature = "admin")]
fn administer(socket: AdminSocket, server: Administered) -> Option<Admin> {
    let path = socket.path.display().to_string();
    // It must not have the last of what clients need: the I/O thread, the watch of their socket, and descriptors.
    let started = AdminThreads::start(socket, server).and_then(|started| {
        check_spare_descriptors()?;
        threads::check(CLIENTS_THREADS)?;
        Ok(started)
    });
    match started {
        Ok((threads, calls)) => Some(Admin { calls, _threads: threads }),
        Err(error) => {
            warn!("there is no administration socket {path}: {error}");
            None
        }
    }
}

/// The threads that start after those of the administration socket, and one more: see [`threads::check`].
#[cfg(feature = "admin")]
const CLIENTS_THREADS: usize = 3;

/// A server that listens, but can accept no connection, would have its first client wait for ever: so a few
/// descriptors have to be left.
fn check_spare_descriptors() -> io::Result<()> {
    // For the first connection, and for what accepting it opens for a moment.
    const PIPES: usize = 4;
    let spare: io::Result<Vec<_>> = (0..PIPES).map(|_| io::pipe()).collect();
    spare.map(drop)
}

/// Calls the plugin behind the guard. Its message is logged there.
fn call<T>(callback: &'static str, call: impl FnOnce() -> T) -> Result<T, ServerError> {
    guard(callback, || Ok(call())).map_err(|_| ServerError::PluginPanicked { callback })
}

/// A server that runs, until it is terminated or, if supervised, its last connection has closed.
///
/// Dropping this does not end it.
#[derive(Debug)]
pub struct RunningServer {
    handle: ServerHandle,
    thread: JoinHandle<io::Result<()>>,
}

impl RunningServer {
    /// A handle to steer the server by.
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// Waits for the server to end, without terminating it: see [`ServerHandle::terminate`]. Not to be called
    /// from a callback, which would wait for itself.
    ///
    /// # Errors
    ///
    /// [`ServerError::Io`] if the system did not let it go on, [`ServerError::Panicked`] if it
    /// failed by a bug of its own.
    pub fn wait(self) -> Result<(), ServerError> {
        self.thread.join().map_err(|_| ServerError::Panicked)?.map_err(Into::into)
    }
}

impl std::fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("name", &self.name)
            .field("limits", &self.limits)
            .field("workers", &self.workers)
            .field("supervised", &self.supervised)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundServer")
            .field("builder", &self.builder)
            .field("listener", &self.listener)
            .finish()
    }
}
