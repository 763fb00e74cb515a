//! Reloads: how references pass from a session to the one that comes after it.
//!
//! A client that reloads announces it (Ioctl +1), quits, connects again under the same name,
//! reports that it is done (Ioctl -1), and goes on with what its old session had open. Between the
//! two there may be no connection at all. What the old session held is its estate, kept under its
//! name; the new session becomes an heir, who may give back from the estate. Mounts of the same
//! name cannot be told apart, so they share one estate: it is given back only when no heir is
//! left and nobody is about to come back. In doubt, references are kept.

use std::collections::HashMap;

use tracing::{debug, warn};

use super::holdings::{Holdings, References};
use super::{OpenSession, Service, lock};
use crate::plugin::ObjectId;

/// The reloads under way and the estates, by the name of the client.
#[derive(Debug, Default)]
pub(super) struct Reloads(HashMap<Vec<u8>, Estate>);

#[derive(Debug, Default)]
struct Estate {
    references: References,
    /// Reloads that were announced and are not done.
    announced: u32,
    /// Sessions that took over.
    heirs: u32,
}

impl Service {
    /// Takes note of a reload: announced by a positive change, done by a negative one. What a client
    /// cannot mean is ignored: to be back from more reloads than were announced under its name. So is
    /// an announcement beyond [`Limits::max_reloads`](crate::Limits::max_reloads).
    pub fn ioctl(&self, open: &OpenSession, connection_change: i32) {
        let session = &open.session;
        let mut holdings = lock(&open.holdings);
        let mut reloads = lock(&self.reloads);
        let count = connection_change.unsigned_abs();
        if connection_change > 0 {
            let is_known = reloads.0.contains_key(session.name());
            if !is_known && reloads.0.len() >= self.limits.max_reloads {
                warn!(%session, "too many reloads under way: what the session holds ends with it");
                return;
            }
            debug!(%session, count, "announced a reload");
            holdings.announced = holdings.announced.saturating_add(count);
            let estate = reloads.0.entry(session.name().to_vec()).or_default();
            estate.announced = estate.announced.saturating_add(count);
        } else if connection_change < 0 {
            match reloads.0.get_mut(session.name()) {
                Some(estate) if estate.announced >= count => {
                    debug!(%session, count, "is back from a reload");
                    estate.announced -= count;
                    if holdings.announced >= count {
                        // It did not go away after all.
                        holdings.announced -= count;
                    } else if !holdings.is_heir {
                        holdings.is_heir = true;
                        estate.heirs += 1;
                    }
                }
                _ => debug!(%session, count, "claims to be back from a reload nobody announced"),
            }
        }
    }

    /// Passes what a session that announced a reload holds to its heirs.
    pub(super) fn leave_to_heirs(&self, open: &OpenSession) {
        let mut holdings = lock(&open.holdings);
        let mut reloads = lock(&self.reloads);
        let estate = reloads.0.get_mut(open.session.name()).filter(|_| holdings.announced > 0);
        if let Some(estate) = estate {
            estate.references.merge(holdings.take_references());
        }
    }

    /// How many reloads clients have announced and not reported done. A supervised server does not
    /// end before that is 0.
    pub fn clients_in_limbo(&self) -> u64 {
        lock(&self.reloads).0.values().map(|estate| u64::from(estate.announced)).sum()
    }
}

impl Reloads {
    /// Takes references from the estate under `name`; false if there are not that many.
    pub(super) fn take(&mut self, name: &[u8], id: &ObjectId, count: u64) -> bool {
        let Some(estate) = self.0.get_mut(name) else { return false };
        let enough = estate.references.count(id) >= count;
        if enough {
            estate.references.remove(id, count);
        }
        enough
    }

    /// A session under `name` has ended: returns the references that nobody claims any more.
    pub(super) fn end(&mut self, name: &[u8], mut holdings: Holdings) -> References {
        let Some(estate) = self.0.get_mut(name) else { return holdings.take_references() };
        if holdings.is_heir {
            estate.heirs -= 1;
        }
        let mut abandoned = References::default();
        if holdings.announced > 0 {
            estate.references.merge(holdings.take_references());
        } else {
            abandoned = holdings.take_references();
        }
        if estate.heirs == 0 && estate.announced == 0 {
            abandoned.merge(std::mem::take(&mut estate.references));
            self.0.remove(name);
        }
        abandoned
    }
}
