//! Calls for the administration socket, which are made where callbacks of the plugin are.

use std::time::Instant;

use super::EventLoop;
use crate::server::workers::{Job, Ticket};

impl EventLoop {
    /// Makes the calls that wait: on this thread, or by workers if there are any.
    pub(super) fn make_calls(&mut self, now: Instant) {
        let Some(admin) = &self.admin else { return };
        while let Some(call) = admin.calls.next() {
            match &mut self.workers {
                None => call.run(&self.service),
                Some(workers) => workers.dispatch(None, Job::Call(call), Ticket::new(now)),
            }
        }
    }
}
