//! How a connection ends: what is under way is waited for, the session ends, and last answers are
//! seen off.

use std::io;

use cvmcache_proto::FrameError;
use tracing::{debug, info};

use super::{Connection, Context, Turn};
use crate::server::workers::pool::{Job, Work};
use crate::service::Service;

/// How many references of a session that has ended are given back in a turn.
const END_STEP: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Requests are taken.
    Open,
    /// No more requests are taken; those under way are waited for.
    Finishing,
    /// A worker ends the session.
    Ending,
    /// The session has ended; last answers are on their way.
    Ended,
}

/// Why no more requests are taken.
#[derive(Debug)]
pub(crate) enum CloseReason {
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
    /// Takes no more requests. What is under way is still answered.
    pub(crate) fn finish(&mut self, service: &Service) {
        if self.is_open() {
            self.stage = Phase::Finishing;
            self.peer.session().into_iter().for_each(|open| service.retire(open));
        }
    }

    /// Gives up on the client: nothing more is received or sent.
    pub(crate) fn abandon(&mut self, service: &Service) {
        self.finish(service);
        self.socket = None;
        self.turn_deaf();
    }

    pub(crate) fn turn_deaf(&mut self) {
        self.is_deaf = true;
        self.outbox.clear();
    }

    pub(crate) fn end_of_input(&mut self, service: &Service, end: CloseReason) {
        match end {
            CloseReason::Quit => {}
            CloseReason::Eof => {
                debug!(session = ?self.session(), "the client has closed the connection")
            }
            CloseReason::Frame(error) => {
                info!(%error, session = ?self.session(), "connection closed: not a frame");
            }
            CloseReason::Io(error) => {
                debug!(%error, session = ?self.session(), "cannot receive");
                self.abandon(service);
            }
        }
        self.finish(service);
    }

    /// Once no more requests are taken: waits for those under way, ends the session, and sees
    /// the last answers off.
    pub(crate) fn wind_up(&mut self, context: &Context<'_>) -> Turn {
        if self.stage == Phase::Finishing && self.calls.len() == 0 {
            self.stage = Phase::Ended;
            match (self.peer.session(), context.workers) {
                (Some(open), None) if !context.service.end(open, END_STEP) => {
                    self.stage = Phase::Finishing;
                    return Turn::Again;
                }
                (Some(open), Some(workers)) => {
                    self.stage = Phase::Ending;
                    let work = Work::EndSession(open.clone());
                    workers.submit(Job { token: self.token, work, lane: None });
                }
                _ => {}
            }
        }
        if self.stage == Phase::Ended && self.outbox.is_empty() { Turn::Over } else { Turn::Wait }
    }
}
