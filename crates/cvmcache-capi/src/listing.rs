//! A listing of a plugin in C, by its number: read to its end, and ended once.

use cvmcache::Session;
use cvmcache::plugin::{ListEntry, PluginResult, Status};

use crate::state::Shared;

/// A listing that the plugin has begun.
pub(crate) struct Entries {
    shared: Shared,
    session: Session,
    id: u64,
    open: bool,
}

impl Entries {
    pub(crate) fn new(shared: Shared, session: Session, id: u64) -> Self {
        Self { shared, session, id, open: true }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            self.shared.callbacks.listing_end(&self.session, self.id);
        }
    }
}

impl Iterator for Entries {
    type Item = PluginResult<ListEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.open {
            return None;
        }
        match self.shared.callbacks.listing_next(&self.session, self.id) {
            Err(Status::OutOfBounds) => {
                self.end();
                None
            }
            entry => Some(entry),
        }
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.end();
    }
}
