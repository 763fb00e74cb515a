//! The control channel: commands of a program, or of a plugin, to its server.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

#[cfg(feature = "admin")]
use crate::evictions::Evicted;
use crate::evictions::{EvictionCounter, Evictions};

const ASK_DETACH: u8 = 1;
const REPORT: u8 = 2;
const TERMINATE: u8 = 4;
/// Only with the feature `admin`.
const CALL: u8 = 16;
const COMMANDS: u8 = ASK_DETACH | REPORT | TERMINATE | CALL;
/// The server runs, and can be woken.
const ATTACHED: u8 = 8;

/// A handle by which a plugin, or the program around it, steers the server.
///
/// It can be made before the server, so that a plugin has it from the beginning:
///
/// ```
/// # use cvmcache::{CachePlugin, Server, ServerBuilder, ServerHandle};
/// # fn builder<P: CachePlugin>(my_cache: fn(ServerHandle) -> P) -> ServerBuilder {
/// let handle = ServerHandle::new();
/// Server::builder(my_cache(handle.clone())).handle(handle)
/// # }
/// ```
///
/// Handles can be cloned and sent to other threads, and a callback may use one: nothing here waits.
/// They do not keep the server running. A command that is repeated before the server gets to it is done
/// once; a command before the start is done at the start; and after the end of the server, or
/// without one, nothing comes of it. So in the tests of a plugin, a new handle is enough.
#[derive(Clone, Default)]
pub struct ServerHandle(Arc<Shared>);

/// What handles and the server share.
///
/// Invariant: `wake` is set before `ATTACHED`. All changes of `flags` are in one order, so a command
/// either comes before `ATTACHED`, and then the server finds it at its start, or after, and then the
/// handle finds `wake`.
#[derive(Default)]
struct Shared {
    flags: AtomicU8,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Set once the plugin counts them.
    evictions: OnceLock<Arc<Evictions>>,
}

/// The commands of handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Commands {
    pub(crate) ask_detach: bool,
    pub(crate) report: bool,
    pub(crate) terminate: bool,
    /// The administration socket has calls.
    #[cfg(feature = "admin")]
    pub(crate) call: bool,
}

impl ServerHandle {
    /// A handle for a server to be, see [`ServerBuilder::handle`](crate::ServerBuilder::handle).
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks all connected clients to close the file catalogs they can do without, so that more of
    /// the cache can be evicted. They do it in their own time, or not at all. Does not wait, so
    /// that a callback may do it.
    pub fn ask_detach(&self) {
        self.command(ASK_DETACH);
    }

    /// Has the server write to the log what it holds: its sessions with their names, what each of
    /// them has open, the oldest uploads, and the limits. It is at most about a hundred lines, and at
    /// most once a second: a report that is requested within a second of the last one is left out.
    pub fn report(&self) {
        self.command(REPORT);
    }

    /// Ends the server: it accepts no more connections, answers what it has begun, closes all
    /// connections and removes its socket. Does not wait for that; [`RunningServer::wait`] does. A
    /// server that has not started ends as soon as it does.
    ///
    /// [`RunningServer::wait`]: crate::RunningServer::wait
    pub fn terminate(&self) {
        self.command(TERMINATE);
    }

    /// A counter for a plugin that evicts objects: what it counts is in the server's statistics and metrics.
    /// Made when the plugin is made, so that both begin with 0.
    ///
    /// ```
    /// let handle = cvmcache::ServerHandle::new();
    /// let evictions = handle.eviction_counter();
    /// // Whenever objects were evicted: how many, and what they took.
    /// evictions.count(2, 70_000);
    /// ```
    pub fn eviction_counter(&self) -> EvictionCounter {
        EvictionCounter::new(self.0.evictions.get_or_init(Arc::default).clone())
    }

    /// The evictions since the start; `None` if the plugin does not count them.
    #[cfg(feature = "admin")]
    pub(crate) fn evicted(&self) -> Option<Evicted> {
        self.0.evictions.get().map(|evictions| evictions.get())
    }

    /// Has the server make the calls of its administration socket.
    #[cfg(feature = "admin")]
    pub(crate) fn call(&self) {
        self.command(CALL);
    }

    fn command(&self, command: u8) {
        let before = self.0.flags.fetch_or(command, Ordering::AcqRel);
        let is_new = before & command == 0;
        if is_new
            && before & ATTACHED != 0
            && let Some(wake) = self.0.wake.get()
        {
            wake();
        }
    }

    /// Attaches the handle to its server, which is woken by `wake`. False if it has one already.
    pub(crate) fn attach(&self, wake: impl Fn() + Send + Sync + 'static) -> bool {
        if self.0.wake.set(Box::new(wake)).is_err() {
            return false;
        }
        let before = self.0.flags.fetch_or(ATTACHED, Ordering::AcqRel);
        if before & COMMANDS != 0
            && let Some(wake) = self.0.wake.get()
        {
            wake();
        }
        true
    }

    /// Takes the commands since this was last called. `None`, if there are none, costs no
    /// more than a load.
    pub(crate) fn take_commands(&self) -> Option<Commands> {
        if self.0.flags.load(Ordering::Acquire) & COMMANDS == 0 {
            return None;
        }
        let taken = self.0.flags.fetch_and(!COMMANDS, Ordering::AcqRel);
        let has = |command| taken & command != 0;
        Some(Commands {
            ask_detach: has(ASK_DETACH),
            report: has(REPORT),
            terminate: has(TERMINATE),
            #[cfg(feature = "admin")]
            call: has(CALL),
        })
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

    /// Attaches a handle; returns what counts how often the server is woken.
    fn attach(handle: &ServerHandle) -> Option<Arc<AtomicUsize>> {
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        let is_attached = handle.attach(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        is_attached.then_some(woken)
    }

    #[test]
    fn a_command_before_the_start_is_done_at_the_start() {
        let handle = ServerHandle::new();
        handle.clone().terminate();
        let woken = attach(&handle).unwrap();
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        let commands = handle.take_commands().unwrap();
        assert_eq!(
            (commands.ask_detach, commands.report, commands.terminate),
            (false, false, true)
        );
        assert_eq!(handle.take_commands(), None);
    }

    #[test]
    fn a_command_that_is_repeated_is_done_once() {
        let handle = ServerHandle::new();
        let woken = attach(&handle).unwrap();
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        (0..3).for_each(|_| handle.ask_detach());
        handle.report();
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        let commands = handle.take_commands().unwrap();
        assert_eq!((commands.ask_detach, commands.report, commands.terminate), (true, true, false));
        handle.ask_detach();
        assert_eq!(woken.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_handle_is_attached_to_one_server() {
        let handle = ServerHandle::new();
        attach(&handle).unwrap();
        assert!(attach(&handle.clone()).is_none());
    }
}
