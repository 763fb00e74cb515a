//! The access of a case to the plugin: clients, connections, and objects of its own.

use std::cell::RefCell;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cvmcache::client::{Client, ClientError, Connection};
use cvmcache::plugin::{CacheInfo, Capabilities, HashAlgorithm, ObjectId};
use cvmcache::{Locator, ServerHandle, threads};

use super::client::TestClient;
use super::object::TestObject;
use super::step::{Checked, Stop, Trace};

/// The access of a case to the plugin.
#[derive(Debug)]
pub(super) struct Probe<'a> {
    /// Where the plugin listens.
    pub(super) locator: &'a Locator,
    /// What it has declared.
    pub(super) capabilities: Capabilities,
    /// How large a part of an upload is.
    pub(super) part: usize,
    /// The timeout of a reply.
    pub(super) timeout: Duration,
    /// How much may be stored to fill the cache, in bytes.
    pub(super) max_fill: u64,
    /// What the case has done.
    pub(super) trace: Trace,
    /// A handle on the server, if it is in this process.
    pub(super) handle: Option<&'a ServerHandle>,
    pub(super) rng: RefCell<fastrand::Rng>,
    /// Random numbers for names, which may have to differ between runs.
    pub(super) names: RefCell<fastrand::Rng>,
}

impl Probe<'_> {
    /// A client of a mount like any other.
    pub(super) fn client(&self) -> Checked<TestClient> {
        self.client_named(&b"test.cern.ch:conformance"[..])
    }

    /// A client that gives this name.
    pub(super) fn client_named(&self, name: impl Into<Bytes>) -> Checked<TestClient> {
        let name = name.into();
        let sent = format!("handshake as \"{}\"", name.escape_ascii());
        let builder = Client::builder().name(name).timeout(self.timeout);
        let client = self.trace.step(&*sent, builder.connect(self.locator)).ok()?;
        Ok(TestClient::new(client, self.trace.clone()))
    }

    /// A connection without a session.
    pub(super) fn connection(&self) -> Checked<Connection> {
        let connected = Connection::connect_within(self.locator, Some(self.timeout));
        self.trace.step("connect", connected).ok()
    }

    /// That another client is served as if nothing had happened.
    pub(super) fn others_are_served(&self) -> Checked<()> {
        let mut other = self.client_named(&b"other.cern.ch:bystander"[..])?;
        let id = self.id();
        let step = other.object_info(&id);
        step.fails(cvmcache::plugin::Status::NoEntry)?;
        other.quit()
    }

    /// A name that no object has.
    pub(super) fn id(&self) -> ObjectId {
        self.id_by(HashAlgorithm::Sha1)
    }

    /// A name that no object has.
    pub(super) fn id_by(&self, algorithm: HashAlgorithm) -> ObjectId {
        let mut digest = [0; ObjectId::DIGEST_LEN];
        self.names.borrow_mut().fill(&mut digest);
        ObjectId::new(algorithm, digest)
    }

    /// Bytes by chance.
    pub(super) fn content(&self, len: usize) -> Bytes {
        let mut content = BytesMut::zeroed(len);
        self.rng.borrow_mut().fill(&mut content);
        content.freeze()
    }

    /// An object that no other client has.
    pub(super) fn object(&self, len: usize) -> TestObject {
        TestObject { id: self.id(), content: self.content(len) }
    }

    /// Objects that no other client has.
    pub(super) fn objects(&self, count: usize, len: usize) -> Vec<TestObject> {
        (0..count).map(|_| self.object(len)).collect()
    }

    /// A number below `end`.
    pub(super) fn below(&self, end: u64) -> u64 {
        self.rng.borrow_mut().u64(..end)
    }

    /// How full the cache is, if it is small enough to be filled in a test.
    pub(super) fn fillable(&self, client: &mut TestClient) -> Checked<CacheInfo> {
        let info = client.info().ok()?;
        if info.size_bytes > self.max_fill {
            return Err(skip(format!(
                "the cache takes {} MiB, and filling it would take too long: try one of at most \
                 {} MiB",
                info.size_bytes >> 20,
                self.max_fill >> 20
            )));
        }
        Ok(info)
    }

    /// Compares what was seen with what should have been.
    pub(super) fn check(
        &self,
        holds: bool,
        sent: impl Into<String>,
        expected: impl std::fmt::Display,
        received: impl std::fmt::Display,
    ) -> Checked<()> {
        if holds { Ok(()) } else { Err(self.trace.failure(sent, expected, received)) }
    }

    /// What came of something that is no request.
    pub(super) fn did<T: std::fmt::Debug>(
        &self,
        sent: impl Into<String>,
        got: Result<T, ClientError>,
    ) -> Checked<T> {
        self.trace.step(sent, got).ok()
    }
}

/// Ends a case that does not apply.
pub(super) fn skip(why: impl Into<String>) -> Stop {
    Stop::Skipped(why.into())
}

/// Starts a thread of a case. A case for which the system has no threads to spare is skipped, since that
/// says nothing about the plugin.
pub(super) fn start_thread<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    body: impl FnOnce() -> T + Send + 'scope,
) -> Checked<ScopedJoinHandle<'scope, T>> {
    threads::spawn_scoped(scope, "client", body).map_err(|error| skip(error.to_string()))
}
