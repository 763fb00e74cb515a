//! What each connection holds and has done, for readers on other threads: the I/O thread publishes it at
//! the end of each turn, and is never asked for it.
//!
//! Invariant: the I/O thread alone writes the counters. It takes the lock of the table for a connection
//! that begins or ends, and a reader for as long as it takes to copy a pointer for each connection: some
//! 20 us for a thousand.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use mio::Token;
use parking_lot::Mutex;

use super::request_record::Answered;
use super::statistics::Count;
use crate::server::accept::Origin;
use crate::service::OpenSession;
use crate::sparse::shrink_if_sparse;

/// The table of all connections. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<HashMap<Token, Arc<SessionCounters>>>>);

/// What is published of a connection.
#[derive(Debug)]
pub(crate) struct SessionCounters {
    pub(crate) origin: Origin,
    /// When it was accepted.
    opened: Instant,
    /// The session, from the handshake on.
    session: OnceLock<Arc<OpenSession>>,
    pub(crate) requests: Count,
    pub(crate) hits: Count,
    pub(crate) misses: Count,
    pub(crate) in_flight: Count,
    pub(crate) unsent_bytes: Count,
    pub(crate) buffered_bytes: Count,
}

impl Sessions {
    /// Adds a connection.
    pub(crate) fn add(&self, token: Token, origin: Origin) -> Arc<SessionCounters> {
        let counters = Arc::new(SessionCounters::new(origin));
        self.0.lock().insert(token, Arc::clone(&counters));
        counters
    }

    /// Forgets a connection that is over.
    pub(crate) fn remove(&self, token: Token) {
        let mut connections = self.0.lock();
        let removed = connections.remove(&token);
        shrink_if_sparse(&mut connections);
        drop(connections);
        // Outside of the lock: it may be the last reference to a session.
        drop(removed);
    }

    /// All connections, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<SessionCounters>> {
        self.0.lock().values().cloned().collect()
    }
}

impl SessionCounters {
    pub(crate) fn new(origin: Origin) -> Self {
        Self {
            origin,
            opened: Instant::now(),
            session: OnceLock::new(),
            requests: Count::default(),
            hits: Count::default(),
            misses: Count::default(),
            in_flight: Count::default(),
            unsent_bytes: Count::default(),
            buffered_bytes: Count::default(),
        }
    }

    /// When the connection was accepted.
    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    /// The session; `None` before the handshake.
    pub(crate) fn session(&self) -> Option<&Arc<OpenSession>> {
        self.session.get()
    }

    /// Publishes the session.
    pub(crate) fn set_session(&self, session: &Arc<OpenSession>) {
        self.session.get_or_init(|| Arc::clone(session));
    }

    /// Counts a request that was answered.
    #[inline]
    pub(crate) fn record(&self, answered: Answered) {
        self.requests.add(1);
        match answered.is_hit() {
            Some(true) => self.hits.add(1),
            Some(false) => self.misses.add(1),
            None => {}
        }
    }
}
