//! A handle on a running server, for whoever is not a client.

use std::fmt;
use std::sync::Arc;

/// What a handle can tell the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    AskDetach,
    Report,
    Terminate,
}

/// A handle by which a plugin, or the program around it, steers the server.
///
/// Handles can be cloned and sent to other threads; they do not keep the server running, and
/// using one after the server has ended does nothing.
#[derive(Clone)]
pub struct ServerHandle(Arc<dyn Fn(Command) + Send + Sync>);

impl ServerHandle {
    pub(crate) fn new(send: impl Fn(Command) + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }

    /// A handle on no server, for the tests of a plugin.
    pub fn disconnected() -> Self {
        Self::new(|_| {})
    }

    /// Asks all connected clients to close the file catalogs they can do without, so that more of
    /// the cache can be evicted. They do it in their own time, or not at all. Does not wait, so
    /// that a callback may do it.
    pub fn ask_detach(&self) {
        (self.0)(Command::AskDetach);
    }

    /// Has the server write to the log what it holds: its sessions with their names, what each of
    /// them has open, the oldest uploads, and the limits. It is at most about a hundred lines, and once
    /// a second: who asks again before has just been answered.
    pub fn report(&self) {
        (self.0)(Command::Report);
    }

    /// Ends the server: it accepts nobody any more, answers what it has begun, closes all
    /// connections and removes its socket. Does not wait for that; [`RunningServer::wait`] does.
    ///
    /// [`RunningServer::wait`]: crate::RunningServer::wait
    pub fn terminate(&self) {
        (self.0)(Command::Terminate);
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerHandle")
    }
}
