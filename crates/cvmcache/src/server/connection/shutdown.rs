//! The shutdown of a connection: it waits for requests in flight, ends the session, and drains the
//! outbox.

use std::io;
use std::time::Instant;

use cvmcache_proto::FrameError;
use tracing::{debug, info};

use super::{Connection, Context, Turn, WriteHalf};
use crate::server::workers::{Job, Ticket};
use crate::service::Service;

/// How many references of a session that has ended are given back in a turn.
const END_STEP: usize = 256;

/// How far a connection is. It only moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests are taken.
    Open,
    /// No more requests are taken; those in flight are waited for.
    Draining,
    /// A worker ends the session.
    EndingSession,
    /// The session has ended; the last replies are sent.
    Ended,
}

/// Why no more requests are taken.
#[derive(Debug)]
pub(super) enum CloseReason {
    Quit,
    Eof,
    Frame(FrameError),
    Io(io::Error),
}

impl From<FrameError> for CloseReason {
    fn from(error: FrameError) -> Self {
        CloseReason::Frame(error)
    }
}

impl From<io::Error> for CloseReason {
    fn from(error: io::Error) -> Self {
        CloseReason::Io(error)
    }
}

impl Connection {
    /// Takes no more requests. Those in flight are still answered.
    pub(crate) fn drain(&mut self, service: &Service) {
        if self.is_open() {
            self.phase = Phase::Draining;
            self.waiting = None;
            self.peer.session().into_iter().for_each(|open| service.retire(open));
        }
    }

    /// Gives up on the client: nothing more is received or sent.
    pub(crate) fn abort(&mut self, service: &Service) {
        self.drain(service);
        self.socket = None;
        self.close_write_half();
    }

    /// Sends nothing more. What the client has sent before is still read: it may announce a reload.
    pub(super) fn close_write_half(&mut self) {
        self.write_half = WriteHalf::Closed;
        self.outbox.clear();
    }

    pub(super) fn close(&mut self, service: &Service, reason: CloseReason) {
        match reason {
            CloseReason::Quit => {}
            CloseReason::Eof => {
                debug!(session = ?self.session(), "the client has closed the connection");
            }
            CloseReason::Frame(error) => {
                info!(%error, session = ?self.session(), "connection closed: not a frame");
            }
            CloseReason::Io(error) => {
                debug!(%error, session = ?self.session(), "cannot receive");
                self.abort(service);
            }
        }
        self.drain(service);
    }

    /// Moves a connection that takes no more requests on: waits for those in flight, ends the session,
    /// and waits until the last replies are sent.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>, now: Instant) -> Turn {
        if self.phase == Phase::Draining && self.in_flight.requests == 0 {
            self.phase = Phase::Ended;
            match (self.peer.session(), &mut context.workers) {
                (Some(open), None) if !context.service.end(open, END_STEP) => {
                    self.phase = Phase::Draining;
                    return Turn::Again;
                }
                (Some(open), Some(access)) => {
                    self.phase = Phase::EndingSession;
                    access.workers.dispatch(Job::EndSession(open.clone()), Ticket::new(now));
                }
                _ => {}
            }
        }
        if self.phase == Phase::Ended && self.outbox.is_empty() { Turn::Over } else { Turn::Wait }
    }
}
