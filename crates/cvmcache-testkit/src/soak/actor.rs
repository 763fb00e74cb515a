//! The state of a client: its session, its random numbers, and what it holds open.

use cvmcache::Locator;
use cvmcache::client::Client;
use fastrand::Rng;

use super::counts::Counter;
use super::object::Object;
use super::violation::{CheckResult, Expect};

/// How many objects a client holds open, so that all clients together do not fill the cache.
const MAX_HELD: usize = 4;

/// A client and what it knows.
pub(super) struct Actor {
    pub(super) client: Client,
    pub(super) locator: Locator,
    pub(super) name: String,
    pub(super) rng: Rng,
    pub(super) counter: Counter,
    /// What the client holds open, once each.
    pub(super) held: Vec<Object>,
    /// The seed of all objects, and their number.
    pub(super) world: u64,
    pub(super) objects: u64,
    pub(super) cache_size: u64,
}

impl Actor {
    /// An object; small numbers are picked more often.
    pub(super) fn pick(&mut self) -> Object {
        let place = self.rng.f64();
        Object::numbered(self.world, (place.powi(3) * self.objects as f64) as u64)
    }

    /// An object that no client commits.
    pub(super) fn absent_object(&mut self) -> Object {
        Object::numbered(!self.world, self.rng.u64(..))
    }

    /// Holds an object that is open, or closes it.
    pub(super) fn hold_or_close(&mut self, object: Object) -> CheckResult {
        if self.held.len() < MAX_HELD && !self.held.contains(&object) && self.rng.bool() {
            self.held.push(object);
            return Ok(());
        }
        self.close(&object)
    }

    pub(super) fn close(&mut self, object: &Object) -> CheckResult {
        self.client.close(&object.id).expect_ok(format_args!("to close {}", object.id))
    }
}
