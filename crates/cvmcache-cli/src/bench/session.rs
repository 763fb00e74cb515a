//! A session as a link of the closed loop, and idle sessions.

use std::time::Duration;

use cvmcache::Locator;
use cvmcache::client::{
    Client, ClientError, ClientMessage, Connection, Operation, ReplyBody, Request, ServerMessage,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::driver::Link;
use super::error::Error;
use crate::error::{self, Result};

/// The timeout of a reply.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Descriptors that are needed for anything but connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// Opens a session.
pub(super) fn connect(locator: &Locator) -> Result<Client, ClientError> {
    Client::builder().name("cvmcache:bench").timeout(TIMEOUT).connect(locator)
}

/// A session whose request ids encode the task: id modulo the number of tasks.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    session: u64,
    /// The requests that each task has sent; all parts of an upload are one.
    sent: Vec<u64>,
}

impl Session {
    pub(super) fn open(locator: &Locator, tasks: usize) -> Result<Self, ClientError> {
        let client = connect(locator)?;
        let session = client.session();
        Ok(Self { connection: client.into_connection(), session, sent: vec![0; tasks] })
    }
}

/// The id of the last request of a task.
fn id(sent: &[u64], task: usize) -> u64 {
    sent[task] * sent.len() as u64 + task as u64
}

impl Link for Session {
    type Request = Operation;
    type Reply = ReplyBody;

    fn queue(&mut self, task: usize, operation: Operation) -> Result<(), ClientError> {
        // All parts of an upload have the number of the first.
        let goes_on = matches!(&operation, Operation::Store(part) if part.number > 1);
        self.sent[task] += u64::from(!goes_on);
        let request = Request { session: self.session, id: id(&self.sent, task), operation };
        self.connection.queue(ClientMessage::Request(request))
    }

    fn receive(&mut self) -> Result<(usize, ReplyBody), ClientError> {
        let Self { connection, sent, .. } = self;
        let answer = connection.receive_first(|message| match message {
            ServerMessage::Reply(reply) => {
                let task = (reply.id % sent.len() as u64) as usize;
                (reply.id == id(sent, task)).then_some(Ok((task, reply.body)))
            }
            // The session has no open object that it could close.
            ServerMessage::Detach => None,
            _ => Some(Err(ClientError::BadMessage)),
        });
        answer?.ok_or(ClientError::Closed)?
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // If that fails, the connection has ended anyway.
        let _ = self.connection.send(ClientMessage::Quit { session: self.session });
    }
}

/// Opens idle sessions.
pub(super) fn idle(locator: &Locator, count: u64) -> Result<Vec<Client>, ClientError> {
    (0..count).map(|_| connect(locator)).collect()
}

/// Raises the soft limit of descriptors (RLIMIT_NOFILE) for that many connections.
pub(super) fn allow_descriptors(connections: u64) -> Result<()> {
    let wanted = connections.saturating_add(OTHER_DESCRIPTORS);
    let failed = |error: nix::Error| error::Error::System(error.into());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if wanted > hard {
        return Err(Error::Descriptors { wanted, allowed: hard }.into());
    }
    // A plugin that is started inherits the limit, and needs as many for its ends.
    if soft < hard && wanted > soft {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed)?;
    }
    Ok(())
}
