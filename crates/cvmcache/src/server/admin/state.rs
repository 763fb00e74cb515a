//! What the threads of the administration socket share.

use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use super::calls::Caller;
use super::windows::Windows;
use crate::ServerHandle;
use crate::admin::AdminSocket;
use crate::server::telemetry::{Counts, Sessions, Statistics, WorkerLoad};
use crate::service::Service;

/// The server, as the administration socket sees it.
#[derive(Debug)]
pub(crate) struct Administered {
    /// The server's name, escaped.
    pub(crate) name: String,
    pub(crate) handle: ServerHandle,
    /// Weak, so that the I/O thread is the one that drops the plugin.
    pub(crate) service: Weak<Service>,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) sessions: Sessions,
    /// `None`: there are no workers.
    pub(crate) load: Option<Arc<WorkerLoad>>,
    pub(crate) started: Instant,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) server: Administered,
    pub(super) socket: AdminSocket,
    pub(super) caller: Caller,
    pub(super) windows: Mutex<Windows>,
    pub(super) started_at: SystemTime,
}

impl State {
    pub(super) fn new(server: Administered, socket: AdminSocket, caller: Caller) -> Self {
        let windows = Mutex::new(Windows::new(server.started));
        Self { server, socket, caller, windows, started_at: SystemTime::now() }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { evicted: self.server.handle.evicted(), ..self.server.statistics.counts() }
    }
}
