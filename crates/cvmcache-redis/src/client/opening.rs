//! The first bytes that a server sends, kept for the message in case that the login fails: the server's own
//! words say more than that a connection was closed.

use std::sync::Arc;

use parking_lot::Mutex;

/// How many bytes are kept.
const MAX: usize = 256;

/// The first bytes that were received on a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Opening(Arc<Mutex<Vec<u8>>>);

impl Opening {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().clone()
    }

    /// Adds what was received. Whether more of it is to be kept.
    pub(super) fn add(&self, bytes: &[u8]) -> bool {
        let mut kept = self.0.lock();
        let room = MAX - kept.len().min(MAX);
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        kept.len() < MAX
    }
}
