//! What is known of a server without asking it, for an administrator.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;

use crate::config::Address;

/// What is known of a server without asking it.
#[derive(Debug, Clone)]
pub(crate) struct ServerState {
    pub(crate) address: String,
    pub(crate) link: Link,
    /// Connections after the first one.
    pub(crate) reconnects: u64,
    /// Requests in flight, and about how many bytes of theirs and of their replies.
    pub(crate) requests_in_flight: u64,
    pub(crate) bytes_in_flight: u64,
}

/// The connection to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    Connected,
    Connecting,
    /// There is a connection, over which the server has refused requests in the last minute, or it lets none in.
    Refusing {
        reason: String,
        since: Duration,
    },
    /// There is none.
    Away {
        reason: String,
        since: Duration,
    },
}

/// What the client of a server shares with the task that connects.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) address: Address,
    /// How many connections there were.
    connections: AtomicU64,
    /// Notified to connect again.
    reconnect: Notify,
}

impl Control {
    pub(super) fn new(address: Address) -> Self {
        Self { address, connections: AtomicU64::new(0), reconnect: Notify::new() }
    }

    /// Has the task connect again.
    pub(super) fn reconnect(&self) {
        self.reconnect.notify_one();
    }

    /// Waits until it is to connect again.
    pub(super) async fn reconnect_asked(&self) {
        self.reconnect.notified().await;
    }

    /// The connection with this number is there. What has asked for one before has it.
    pub(super) fn connected(&self, number: u64) {
        self.connections.store(number, Ordering::Relaxed);
        let _ = self.reconnect.notified().now_or_never();
    }

    /// Connections after the first one.
    pub(super) fn reconnects(&self) -> u64 {
        self.connections.load(Ordering::Relaxed).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_is_the_answer_to_all_that_have_asked_for_one() {
        let control = Control::new(Address::Unix("/run/redis".into()));
        control.connected(1);
        assert_eq!((control.reconnects(), control.reconnect_asked().now_or_never()), (0, None));
        control.reconnect();
        control.reconnect();
        control.connected(2);
        assert_eq!((control.reconnects(), control.reconnect_asked().now_or_never()), (1, None));
        control.reconnect();
        assert_eq!(control.reconnect_asked().now_or_never(), Some(()));
    }
}
