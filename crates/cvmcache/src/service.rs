//! The rules of the protocol on the plugin's side, without I/O: `(session, request) -> reply`.
//!
//! A [`Service`] stands between clients and a [`CachePlugin`]. It gates by capability, keeps
//! track of what each session holds (references, uploads, listings), and lets a plugin see only
//! requests that make sense. It names no socket, no thread and no clock, so a test drives it with
//! plain values; the crate's server brings it bytes. Calls for one session may come from several
//! threads at once.
//!
//! # Locks
//!
//! Each session has locks for its holdings, its uploads and its listings, and the service has one for
//! pending reloads, one for the table of sessions and one for what was logged once. No callback of the plugin
//! runs under any of them, so none is held for longer than it takes to change a map. Two of them are held at
//! once in one case: a session's holdings, and then the pending reloads, in this order, because references
//! move between them and must at every moment be counted in exactly one.
//!
//! ```
//! use cvmcache::plugin::*;
//! use cvmcache::service::{Action, Peer, Service};
//! use cvmcache::{CachePlugin, Limits, Session};
//! use cvmcache::client::{ClientMessage, Operation, ReplyBody, Request, ServerMessage};
//! # /// A cache without objects.
//! # struct Empty;
//! # impl CachePlugin for Empty {
//! #     fn capabilities(&self) -> Capabilities { Capabilities::NONE }
//! #     fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> { Err(Status::NoEntry) }
//! #     fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> { Err(Status::NoEntry) }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # fn frame(message: ClientMessage) -> cvmcache_proto::Frame {
//! #     let (message, attachment) = message.into_wire();
//! #     let mut frame = cvmcache_proto::Frame::default();
//! #     (frame.message, frame.attachment) = (Some(message), attachment);
//! #     frame
//! # }
//!
//! let service = Service::new(Box::new(Empty), "empty", Limits::default());
//! let mut peer = Peer::new(None);
//!
//! // A frame comes, the peer returns what to do about it. `frame` makes one of a message.
//! let name = Some("test.cern.ch:1".into());
//! let hello = ClientMessage::Handshake { protocol_version: 1, name };
//! let action = peer.receive(&service, frame(hello));
//! let Action::Answer(ServerMessage::HandshakeAck(ack)) = action else {
//!     panic!("a handshake is answered");
//! };
//! let object = "da39a3ee5e6b4b0d3255bfef95601890afd80709".parse()?;
//! let operation = Operation::ObjectInfo { object };
//! let request = ClientMessage::Request(Request { session: ack.session, id: 7, operation });
//! let Action::Handle(session, request) = peer.receive(&service, frame(request)) else {
//!     panic!("it is the peer's session");
//! };
//! let reply = service.handle(&session, request);
//! assert_eq!((reply.id, reply.body), (7, ReplyBody::ObjectInfo(Err(Status::NoEntry))));
//!
//! // The connection has ended.
//! assert!(service.end(&session, usize::MAX));
//! # Ok(())
//! # }
//! ```

mod callbacks;
mod guard;
mod holdings;
mod listings;
mod peer;
mod references;
mod refusals;
mod reload;
mod report;
mod texts;
mod totals;
mod uploads;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use cvmcache_proto::{
    HandshakeAck, Operation, OperationKind, PROTOCOL_VERSION, Reply, ReplyBody, Request,
};
use parking_lot::Mutex;
use tracing::debug;

use crate::plugin::{
    CacheInfo, CachePlugin, Capabilities, Data, ObjectId, ObjectInfo, PluginResult, Status,
};
use crate::sparse::shrink_if_sparse;
use crate::{Limits, Session};

use callbacks::checksum;
pub(crate) use guard::guard;
use holdings::Holdings;
use listings::Listings;
pub use peer::{Action, Peer};
use refusals::{Refusals, is_refusal};
use reload::Reloads;
pub use report::{SessionReport, UploadReport};
use totals::Totals;
use uploads::Uploads;

// Invariant: no lock of a service or a session is held while a plugin is called, and plugins are only
// called behind `guard`: so no panic leaves half a change under a lock.

/// How many uploads of a session that has ended are dropped at once: each may be of many objects' memory.
const UPLOADS_AT_ONCE: usize = 16;

/// The rules of the protocol, around a plugin.
pub struct Service {
    plugin: Box<dyn CachePlugin>,
    capabilities: Capabilities,
    /// The plugin is told of references.
    takes_references: bool,
    limits: Limits,
    name: Bytes,
    checksum_replies: bool,
    trust: Trust,
    next_session: AtomicU64,
    reloads: Mutex<Reloads>,
    totals: Totals,
    /// All sessions by number; empty unless [`Trust::foreign_sessions`].
    sessions: Mutex<HashMap<u64, Weak<OpenSession>>>,
    /// Methods that belong to a declared capability and answered NOSUPPORT.
    unsupported: Mutex<Vec<&'static str>>,
    refusals: Refusals,
    /// The last time that was set, in microseconds since the start. For reports only.
    clock: AtomicU64,
}

/// Relaxed isolation between sessions. By default, none is relaxed, and an invalid or hostile client
/// affects no other session.
///
/// For tests: requests that the service refuses reach the plugin, so its own checks can be tested.
/// CernVM-FS clients need none of it, although libcvmfs_cache isolates no sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Trust {
    /// A connection may send requests for a session that another one has opened. It ends, and
    /// reloads, only its own.
    pub foreign_sessions: bool,
    /// A session may release references of others, if the plugin counts that many.
    pub foreign_references: bool,
}

/// A session that is open, and what it holds. Dropping it gives nothing back: see [`Service::end`].
#[derive(Debug)]
pub struct OpenSession {
    session: Session,
    /// When it began, by the service's clock.
    since: Duration,
    holdings: Mutex<Holdings>,
    uploads: Mutex<Uploads>,
    listings: Mutex<Listings>,
}

impl Service {
    /// Puts the rules around a plugin, which clients know as `name`. The limits are not checked: that is
    /// the server's.
    ///
    /// # Panics
    ///
    /// If the plugin panics in its method `capabilities`.
    pub fn new(plugin: Box<dyn CachePlugin>, name: impl Into<Bytes>, limits: Limits) -> Self {
        let (capabilities, takes_references) = (plugin.capabilities(), plugin.takes_references());
        let totals = Totals::new(&limits);
        Self {
            plugin,
            capabilities,
            takes_references,
            limits,
            name: name.into(),
            checksum_replies: false,
            trust: Trust::default(),
            sessions: Mutex::default(),
            next_session: AtomicU64::new(1),
            reloads: Mutex::default(),
            totals,
            unsupported: Mutex::default(),
            refusals: Refusals::default(),
            clock: AtomicU64::new(0),
        }
    }

    /// Sends a CRC-32 with every answer to a read, see [`ServerBuilder::checksum_replies`]; default false.
    ///
    /// [`ServerBuilder::checksum_replies`]: crate::ServerBuilder::checksum_replies
    #[must_use]
    pub fn checksum_replies(mut self, on: bool) -> Self {
        self.checksum_replies = on;
        self
    }

    /// Relaxes isolation between sessions; by default not at all.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// The limits that the service applies.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Opens a session, under a number that no other has had. `pid` is sent to the client; it should
    /// be `None` for one on another machine. The session is to be [ended](Self::end). A name that is
    /// longer than [`Limits::max_text`] is cut: to refuse it would cost the mount.
    pub fn handshake(
        &self,
        name: Option<Bytes>,
        pid: Option<u64>,
    ) -> (HandshakeAck, Arc<OpenSession>) {
        let name = texts::cut(name.unwrap_or_default(), self.limits.max_text);
        let id = self.next_session.fetch_add(1, Ordering::Relaxed);
        let session = Session::new(id, name);
        debug!(%session, "session opened");
        let ack = HandshakeAck {
            result: Ok(()),
            name: self.name.clone(),
            protocol_version: PROTOCOL_VERSION,
            session: id,
            max_object_size: self.limits.max_object_size,
            capabilities: self.capabilities,
            pid,
        };
        self.totals.session_opened();
        let open = OpenSession {
            session,
            since: self.clock(),
            holdings: Mutex::default(),
            uploads: Mutex::default(),
            listings: Mutex::default(),
        };
        let open = Arc::new(open);
        if self.trust.foreign_sessions {
            self.sessions.lock().insert(id, Arc::downgrade(&open));
        }
        (ack, open)
    }

    /// A session that is not the connection's own, if that is allowed.
    fn foreign_session(&self, id: u64) -> Option<Arc<OpenSession>> {
        self.sessions.lock().get(&id).and_then(Weak::upgrade)
    }

    /// Handles a request of a session, and returns the one reply. The plugin is called on this thread, and
    /// for as long as it takes; if it panics, that is logged and answered with [`Status::IoErr`].
    ///
    /// `request` is taken for one of this session, whatever it names: see [`Peer::receive`].
    pub fn handle(&self, open: &OpenSession, request: Request) -> Reply {
        let (operation, object) = (request.operation.kind(), request.operation.object().copied());
        let body = match request.operation {
            Operation::Refcount { object, change_by } => {
                ReplyBody::Refcount(self.change_refcount(open, &object, change_by))
            }
            Operation::Read { object, offset, size } => {
                self.read_reply(self.read(open, &object, offset, size))
            }
            Operation::ObjectInfo { object } => {
                ReplyBody::ObjectInfo(self.object_info(open, &object))
            }
            Operation::Store(part) => {
                let number = part.number;
                ReplyBody::Store { result: self.store(open, request.id, part), part: number }
            }
            Operation::StoreAbort { object } => {
                ReplyBody::Store { result: self.abort(open, request.id, &object), part: 0 }
            }
            Operation::Info => ReplyBody::Info(self.info(Some(&open.session))),
            Operation::Shrink { target } => match self.shrink(&open.session, target) {
                Ok(used) if used <= target => {
                    ReplyBody::Shrink { result: Ok(()), used_bytes: used }
                }
                Ok(used) => ReplyBody::Shrink { result: Err(Status::Partial), used_bytes: used },
                Err(status) => ReplyBody::Shrink { result: Err(status), used_bytes: 0 },
            },
            Operation::List { listing, object_type } => self.list(open, listing, object_type),
            Operation::BreadcrumbStore { repository, breadcrumb } => {
                let result = self.store_breadcrumb(open, &repository, breadcrumb);
                ReplyBody::Breadcrumb(result.map(|()| None))
            }
            Operation::BreadcrumbLoad { repository } => {
                let result = self.load_breadcrumb(open, &repository);
                ReplyBody::Breadcrumb(result.map(|breadcrumb| Some((repository, breadcrumb))))
            }
            // Of a later revision of the protocol.
            unknown => unknown.refusal(Status::NoSupport),
        };
        self.reply(open, request.id, operation, object, body)
    }

    /// Handles a request without waiting, if the plugin can; `None` if not, and nothing has changed then.
    pub(crate) fn try_handle(&self, open: &OpenSession, request: &Request) -> Option<Reply> {
        let body = match &request.operation {
            Operation::Refcount { object, change_by } => {
                ReplyBody::Refcount(self.try_change_refcount(open, object, *change_by)?)
            }
            Operation::Read { object, offset, size } => {
                self.read_reply(self.try_read(open, object, *offset, *size)?)
            }
            Operation::ObjectInfo { object } => {
                ReplyBody::ObjectInfo(self.try_object_info(open, object)?)
            }
            _ => return None,
        };
        let (operation, object) = (request.operation.kind(), request.operation.object().copied());
        Some(self.reply(open, request.id, operation, object, body))
    }

    fn read_reply(&self, result: PluginResult<Data>) -> ReplyBody {
        let data = result.as_ref().ok().filter(|_| self.checksum_replies);
        ReplyBody::Read { data_crc32: data.map(checksum), result }
    }

    fn reply(
        &self,
        open: &OpenSession,
        id: u64,
        operation: OperationKind,
        object: Option<ObjectId>,
        body: ReplyBody,
    ) -> Reply {
        if let Err(status) = body.status()
            && is_refusal(status)
        {
            self.on_refusal(open, operation.name(), object, status);
        }
        Reply { id, body }
    }

    /// How full the cache is, if the plugin reports it: for metrics and status reports. The plugin's
    /// `info` is called without a session.
    pub fn usage(&self) -> Option<CacheInfo> {
        self.info(None).ok()
    }

    /// Evicts objects until at most `target` bytes are used, for an administrator: the plugin's `shrink` is
    /// called with session 0.
    #[cfg(feature = "admin")]
    pub(crate) fn shrink_for_administrator(&self, target: u64) -> PluginResult<u64> {
        self.shrink(&Session::new(0, Bytes::new()), target)
    }

    /// The plugin, for what is no callback.
    #[cfg(feature = "admin")]
    pub(crate) fn plugin(&self) -> &dyn CachePlugin {
        &*self.plugin
    }

    /// Takes note that a session will send no more requests: if it announced a reload, its references
    /// are its successor's from now on, even while requests of it are in flight. It has to be
    /// [ended](Self::end) all the same.
    pub fn retire(&self, open: &OpenSession) {
        self.hand_over(open);
    }

    /// Ends a session: drops its uploads and listings, and gives its references back, unless it
    /// announced a reload. No other call for the session may be in flight.
    ///
    /// Gives back the references to `at_most` objects, and drops some of the uploads; false if there are
    /// more, and this has to be called again. References that the plugin does not take back are logged, and given up.
    pub fn end(&self, open: &OpenSession, at_most: usize) -> bool {
        let listings = std::mem::take(&mut *open.listings.lock());
        self.totals.listings.remove(listings.open.len());
        listings.drop_all();
        if !self.end_uploads(open, UPLOADS_AT_ONCE.max(at_most / UPLOADS_AT_ONCE)) {
            return false;
        }
        let ended = self.end_holdings(open, at_most);
        if ended {
            let mut sessions = self.sessions.lock();
            sessions.remove(&open.session.id());
            shrink_if_sparse(&mut sessions);
            drop(sessions);
            debug!(session = %open.session, "session ended");
        }
        ended
    }
}

impl OpenSession {
    /// The session as callbacks see it.
    pub fn session(&self) -> &Session {
        &self.session
    }
}

impl Drop for Service {
    /// Drops the plugin behind the guard: a panic there must not keep the server from its clean-up.
    fn drop(&mut self) {
        let plugin = std::mem::replace(&mut self.plugin, Box::new(Dropped));
        let _logged = guard("drop of the plugin", || {
            drop(plugin);
            Ok(())
        });
        self.log_suppressed_refusals(Duration::MAX);
    }
}

/// Stands where the plugin was, once that has been dropped. Never called.
struct Dropped;

impl CachePlugin for Dropped {
    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }

    fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
        Err(Status::IoErr)
    }

    fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
        Err(Status::IoErr)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsInDrop;

    impl CachePlugin for PanicsInDrop {
        fn capabilities(&self) -> Capabilities {
            Capabilities::empty()
        }

        fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
            Err(Status::NoEntry)
        }

        fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
            Err(Status::NoEntry)
        }
    }

    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("in the drop of the plugin");
        }
    }

    #[test]
    fn a_panic_in_the_drop_of_the_plugin_is_caught() {
        drop(Service::new(Box::new(PanicsInDrop), "test", Limits::default()));
    }
}
