//! Reloads: how references pass from a session to its successor.
//!
//! A client that reloads announces it (Ioctl +1), quits, connects again under the same name, reports
//! that it is done (Ioctl -1), and goes on with what its old session had open. In between, there may be
//! no connection at all. The references of the old session are handed over: kept under its name, where
//! the new session, its successor, may release them. Clients of the same name cannot be distinguished, so
//! they share one handover: it ends, and its references are given back, when no successor is open and
//! no reload is pending. In doubt, references are kept.

use std::collections::HashMap;

use tracing::{debug, warn};

use super::holdings::Holdings;
use super::references::HandedOver;
use super::{OpenSession, Service};
use crate::plugin::ObjectId;

/// The handovers, by the name of the client.
#[derive(Debug, Default)]
pub(super) struct Reloads(HashMap<Vec<u8>, HandoverState>);

/// A handover between sessions of one name.
///
/// Invariant: once all sessions of the name have ended, `successors` is 0; and then, unless a reload is
/// pending, there is no handover under that name.
#[derive(Debug, Default)]
struct HandoverState {
    /// What no open session holds. Invariant: a reference that is not being given back is here or in the
    /// [`Holdings`] of one session, and moves between the two while both are locked.
    references: HandedOver,
    /// Reloads that were announced and not reported done.
    pending: u32,
    /// Open sessions that reported a reload done. Invariant: as many as have
    /// [`Holdings::is_successor`] under this name.
    successors: u32,
}

impl Service {
    /// Takes note of a reload: announced by a positive change, reported done by a negative one. A client
    /// cannot report more reloads done than are pending under its name: such a report is ignored, and so
    /// is an announcement beyond [`Limits::max_reloads`](crate::Limits::max_reloads).
    pub fn ioctl(&self, open: &OpenSession, connection_change: i32) {
        let session = &open.session;
        let mut holdings = open.holdings.lock();
        let mut reloads = self.reloads.lock();
        let count = connection_change.unsigned_abs();
        if connection_change > 0 {
            let is_known = reloads.0.contains_key(session.name());
            if !is_known && reloads.0.len() >= self.limits.max_reloads {
                warn!(%session, "too many pending reloads: what the session holds ends with it");
                return;
            }
            debug!(%session, count, "announced a reload");
            holdings.announced = holdings.announced.saturating_add(count);
            let handover = reloads.0.entry(session.name().to_vec()).or_default();
            handover.pending = handover.pending.saturating_add(count);
        } else if connection_change < 0 {
            match reloads.0.get_mut(session.name()) {
                Some(handover) if handover.pending >= count => {
                    debug!(%session, count, "reported a reload done");
                    handover.pending -= count;
                    if holdings.announced >= count {
                        // The session that announced it has not ended.
                        holdings.announced -= count;
                    } else if !holdings.is_successor {
                        holdings.is_successor = true;
                        handover.successors += 1;
                    }
                }
                _ => debug!(%session, count, "reported a reload done that is not pending"),
            }
        }
    }

    /// Hands over the references of a session that announced a reload.
    pub(super) fn hand_over(&self, open: &OpenSession) {
        let mut holdings = open.holdings.lock();
        let mut reloads = self.reloads.lock();
        if holdings.announced == 0 || !self.can_hand_over(&reloads, &holdings) {
            return;
        }
        if let Some(handover) = reloads.0.get_mut(open.session.name()) {
            let fewer = handover.references.push(holdings.take_references());
            self.totals.references.remove(fewer);
        }
    }

    /// A session has ended: returns the references that no session will release.
    pub(super) fn end_in_reloads(&self, open: &OpenSession, holdings: Holdings) -> HandedOver {
        let mut reloads = self.reloads.lock();
        let is_handed_over = holdings.announced > 0 && self.can_hand_over(&reloads, &holdings);
        if holdings.announced > 0 && !is_handed_over {
            let session = &open.session;
            warn!(%session, "too many references in pending reloads: those of the session end with it");
        }
        let (orphaned, fewer) = reloads.end(open.session.name(), holdings, is_handed_over);
        self.totals.references.remove(fewer);
        orphaned
    }

    /// True if what all sessions have handed over, and this one is to, is within its part of the limit: what is
    /// never taken back must leave something for the sessions that are open.
    fn can_hand_over(&self, reloads: &Reloads, holdings: &Holdings) -> bool {
        let handed_over: usize = reloads.0.values().map(|state| state.references.objects()).sum();
        handed_over + holdings.references.objects() <= self.totals.references.half()
    }

    /// How many reloads clients have announced and not reported done. A supervised server does not
    /// end before that is 0.
    pub fn pending_reloads(&self) -> u64 {
        self.reloads.lock().0.values().map(|handover| u64::from(handover.pending)).sum()
    }
}

impl Reloads {
    /// Takes references that were handed over under `name`: `None` if there are not that many, else how
    /// many entries there are fewer.
    pub(super) fn take(&mut self, name: &[u8], id: &ObjectId, count: u64) -> Option<usize> {
        self.0.get_mut(name)?.references.take(id, count)
    }

    /// A session under `name` has ended: returns the references that no session will release, and how many
    /// entries there are fewer.
    fn end(
        &mut self,
        name: &[u8],
        mut holdings: Holdings,
        is_handed_over: bool,
    ) -> (HandedOver, usize) {
        let mut orphaned = HandedOver::default();
        let references = holdings.take_references();
        let Some(handover) = self.0.get_mut(name) else {
            let fewer = orphaned.push(references);
            return (orphaned, fewer);
        };
        if holdings.is_successor {
            handover.successors -= 1;
        }
        let to = if is_handed_over { &mut handover.references } else { &mut orphaned };
        let mut fewer = to.push(references);
        if handover.successors == 0 && handover.pending == 0 {
            fewer += orphaned.append(std::mem::take(&mut handover.references));
            self.0.remove(name);
        }
        (orphaned, fewer)
    }
}
