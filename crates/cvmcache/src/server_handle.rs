//! A handle by which a plugin, or the program around it, steers the server.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

/// What a handle can ask the server for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Command {
    AskDetach = 1,
    Report = 2,
    Terminate = 4,
}

impl Command {
    const ALL: [Self; 3] = [Self::AskDetach, Self::Report, Self::Terminate];
}

/// A handle by which a plugin, or the program around it, steers the server.
///
/// It can be made before the server, so that the plugin can be given it, and is attached with
/// [`ServerBuilder::handle`](crate::ServerBuilder::handle). Handles can be cloned and sent to other
/// threads; they do not keep the server running. What is asked for before the server runs, it does
/// when it starts; after it has ended, nothing happens.
///
/// ```
/// # use cvmcache::{CachePlugin, Server, ServerBuilder, ServerHandle};
/// # fn builder<P: CachePlugin>(my_cache: fn(ServerHandle) -> P) -> ServerBuilder {
/// let handle = ServerHandle::new();
/// Server::builder(my_cache(handle.clone())).handle(handle)
/// # }
/// ```
#[derive(Clone, Default)]
pub struct ServerHandle(Arc<Shared>);

/// Invariant: a command is set in `pending` before the waker is called, and the waker is attached
/// before `pending` is read for the first time: no command is missed.
#[derive(Default)]
struct Shared {
    /// The commands that the server has not taken, a bit each: asking twice is asking once, so that
    /// a handle without a server does not grow.
    pending: AtomicU8,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl ServerHandle {
    /// A handle on no server yet. Tests of a plugin need no other.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks all connected clients to close the file catalogs they can do without, so that more of
    /// the cache can be evicted. They do it in their own time, or not at all. Does not wait, so
    /// that a callback may do it.
    pub fn ask_detach(&self) {
        self.send(Command::AskDetach);
    }

    /// Has the server write to the log what it holds: its sessions with their names, what each of
    /// them has open, the oldest uploads, and the limits. A report has at most about a hundred lines;
    /// requests within one second of a report are ignored.
    pub fn report(&self) {
        self.send(Command::Report);
    }

    /// Ends the server: it accepts no more connections, answers the requests in flight, closes all
    /// connections and removes its socket. Does not wait for that; [`RunningServer::wait`] does.
    ///
    /// [`RunningServer::wait`]: crate::RunningServer::wait
    pub fn terminate(&self) {
        self.send(Command::Terminate);
    }

    fn send(&self, command: Command) {
        self.0.pending.fetch_or(command as u8, Ordering::AcqRel);
        if let Some(wake) = self.0.wake.get() {
            wake();
        }
    }

    /// Has `wake` called after each command, by the server that is to [take](Self::take) them. False
    /// if another server has been attached before.
    pub(crate) fn attach(&self, wake: impl Fn() + Send + Sync + 'static) -> bool {
        let attached = self.0.wake.set(Box::new(wake)).is_ok();
        if let (true, Some(wake)) = (attached, self.0.wake.get()) {
            wake();
        }
        attached
    }

    /// The commands since the last call.
    pub(crate) fn take(&self) -> impl Iterator<Item = Command> + use<> {
        let pending = self.0.pending.swap(0, Ordering::AcqRel);
        Command::ALL.into_iter().filter(move |&command| pending & command as u8 != 0)
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerHandle")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn commands_before_a_server_are_taken_once_by_it() {
        let handle = ServerHandle::new();
        handle.terminate();
        handle.ask_detach();
        handle.ask_detach();
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        assert!(handle.attach(move || _ = counter.fetch_add(1, Ordering::Relaxed)));
        assert_eq!(wakes.load(Ordering::Relaxed), 1, "a server that sleeps has to be woken");
        assert_eq!(handle.take().collect::<Vec<_>>(), [Command::AskDetach, Command::Terminate]);
        assert_eq!(handle.take().count(), 0);
        handle.report();
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
        assert_eq!(handle.take().collect::<Vec<_>>(), [Command::Report]);
    }

    #[test]
    fn a_handle_is_attached_to_one_server_only() {
        let handle = ServerHandle::new();
        assert!(handle.attach(|| ()));
        assert!(!handle.attach(|| ()));
    }
}
