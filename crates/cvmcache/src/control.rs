//! A handle on a running server, for whoever is not a client.

use std::fmt;
use std::sync::Arc;

use crossbeam_channel::Sender;
use mio::Waker;

/// What a [`Control`] tells the I/O thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    AskDetach,
    Terminate,
}

/// A handle by which a plugin, or the program around it, steers the server.
///
/// Handles can be cloned and sent to other threads; they do not keep the server running, and
/// using one after the server has ended does nothing.
#[derive(Clone)]
pub struct Control {
    commands: Sender<Command>,
    waker: Arc<Waker>,
}

impl Control {
    pub(crate) fn new(commands: Sender<Command>, waker: Arc<Waker>) -> Self {
        Self { commands, waker }
    }

    /// Asks all connected clients to close the file catalogs they can do without, so that more of
    /// the cache can be evicted. They do it in their own time, or not at all.
    pub fn ask_detach(&self) {
        self.send(Command::AskDetach);
    }

    /// Ends the server: it accepts nobody any more, answers what it has begun, closes all
    /// connections and removes its socket. Does not wait for that; [`Running::wait`] does.
    ///
    /// [`Running::wait`]: crate::Running::wait
    pub fn terminate(&self) {
        self.send(Command::Terminate);
    }

    fn send(&self, command: Command) {
        // Neither can fail but for a server that has ended, or will wake up anyway.
        let _ = self.commands.send(command);
        let _ = self.waker.wake();
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control")
    }
}
