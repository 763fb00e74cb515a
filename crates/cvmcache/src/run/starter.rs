//! The supervisor or service manager that started the plugin process, and the report of the result of
//! the start.

use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;

use tracing::{info, warn};

use super::Failure;
use crate::{Locator, ServerBuilder, ServiceManager, Supervisor};

/// A supervisor, a service manager, or a shell, which waits for no report.
pub(super) struct Starter {
    client: Option<Supervisor>,
    manager: ServiceManager,
}

impl Starter {
    /// To be called once, before the program opens any file.
    pub(super) fn from_env() -> Result<Self, Failure> {
        let client = Supervisor::from_env()?;
        let manager = match client {
            // The variables of a client that starts plugins are for the client.
            Some(_) => ServiceManager::default(),
            None => ServiceManager::from_env()?,
        };
        Ok(Self { client, manager })
    }

    pub(super) fn is_client(&self) -> bool {
        self.client.is_some()
    }

    /// The socket that is handed over.
    pub(super) fn socket(&self) -> Option<&OwnedFd> {
        self.manager.socket()
    }

    pub(super) fn take_socket(&mut self) -> Option<OwnedFd> {
        self.manager.take_socket()
    }

    /// Has the server report heartbeats, if the service manager requires them.
    pub(super) fn report_on(&self, builder: ServerBuilder, locator: &Locator) -> ServerBuilder {
        self.manager.report_on(builder, locator)
    }

    /// Tells that clients can connect to `locator`.
    pub(super) fn ready(&mut self, locator: &Locator) {
        self.tell_client(Supervisor::ready);
        if let Err(error) = self.manager.ready(locator) {
            warn!(%error, "cannot tell the service manager that clients can connect");
        }
    }

    /// Tells a client to connect to another process, which serves the locator already.
    pub(super) fn leave_to_other_process(&mut self, error: &dyn Error) {
        info!(%error, "leaving the client to the other process");
        self.tell_client(Supervisor::ready);
    }

    pub(super) fn failed(&mut self) {
        self.tell_client(Supervisor::failed);
    }

    /// A client that has gone meanwhile is no reason to end: others may come.
    fn tell_client(&mut self, what: fn(&mut Supervisor) -> io::Result<()>) {
        if let Some(Err(error)) = self.client.as_mut().map(what) {
            warn!(%error, "cannot tell the client that waits for this plugin");
        }
    }
}
