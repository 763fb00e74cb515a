//! References: which of them a session holds, and may release.
//!
//! The plugin counts the references of an object over all sessions. The service counts them by
//! session, so that a session gives back only what it holds, and all of it when it ends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tracing::warn;

use super::{OpenSession, Service};
use crate::plugin::{Capabilities, ObjectId, PluginResult, Status};

/// References by object. None of the counts is zero.
#[derive(Debug, Default)]
pub(super) struct References(HashMap<ObjectId, u64>);

/// What a session holds, and its part in a reload.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    pub(super) references: References,
    /// How many reloads the session has announced: then its references outlive it.
    pub(super) announced: u32,
    /// True if the session is the successor of one that announced a reload: then it may give back
    /// what was handed over under its name.
    pub(super) is_successor: bool,
    /// Once the session has ended: what is still to be given back. Invariant: `references` is empty
    /// then, so nothing is given back twice.
    orphaned: Option<Vec<(ObjectId, u64)>>,
}

impl Service {
    /// Opens or closes an object, or checks whether it exists.
    pub(super) fn change_refcount(
        &self,
        open: &OpenSession,
        id: &ObjectId,
        by: i32,
    ) -> PluginResult<()> {
        if !self.takes_references {
            // Clients open and close whatever the plugin declares.
            return if by < 0 { Ok(()) } else { self.object_info(open, id).map(|_| ()) };
        }
        let count = u64::from(by.unsigned_abs());
        if by < 0 {
            self.close(open, id, count)
        } else {
            self.change(open, id, by)?;
            self.hold(open, *id, count);
            Ok(())
        }
    }

    fn close(&self, open: &OpenSession, id: &ObjectId, count: u64) -> PluginResult<()> {
        let Some(taken) = self.take(open, id, count) else {
            // Whether there is such an object comes first, as with every other request.
            self.change(open, id, 0)?;
            return Err(Status::BadCount);
        };
        let result = self.give_back(open, id, count);
        // An object that is gone has no references. Otherwise the plugin still counts them, and
        // the end of the session gets another try.
        if result.is_err_and(|status| status != Status::NoEntry) {
            self.hold(open, *id, taken);
        }
        result
    }

    /// Takes references from what the session holds and, if it is a successor, from what was handed
    /// over to it. Returns how many of `count` those were: all of them, unless the session may give
    /// back what others hold.
    fn take(&self, open: &OpenSession, id: &ObjectId, count: u64) -> Option<u64> {
        let mut holdings = open.holdings.lock();
        let own = holdings.references.count(id).min(count);
        let mut taken = own;
        if own < count {
            let name = open.session.name();
            let handed_over =
                holdings.is_successor && self.reloads.lock().take(name, id, count - own);
            if handed_over {
                taken = count;
            } else if !self.trust.foreign_references {
                return None;
            }
        }
        holdings.references.remove(id, own);
        Some(taken)
    }

    /// Notes references that the plugin has given to the session.
    pub(super) fn hold(&self, open: &OpenSession, id: ObjectId, count: u64) {
        // Without references, there is nothing to give back.
        if self.takes_references {
            open.holdings.lock().references.add(id, count);
        }
    }

    /// Ends what a session holds: hands its references over, if it announced a reload, or else gives
    /// those to `at_most` objects back to the plugin. False if there are more.
    pub(super) fn end_holdings(&self, open: &OpenSession, at_most: usize) -> bool {
        let mut holdings = open.holdings.lock();
        let mut orphaned = match holdings.orphaned.take() {
            Some(orphaned) => orphaned,
            None => {
                let held = std::mem::take(&mut *holdings);
                self.reloads.lock().end(open.session.name(), held).0.into_iter().collect()
            }
        };
        let now = orphaned.split_off(orphaned.len().saturating_sub(at_most));
        let all = orphaned.is_empty();
        holdings.orphaned = Some(orphaned);
        drop(holdings);
        for (id, count) in now {
            if let Err(status) = self.give_back(open, &id, count) {
                warn!(session = %open.session, %id, count, %status, "cannot give references back");
            }
        }
        all
    }

    /// Gives references back: in several steps if they are more than a change can express.
    fn give_back(&self, open: &OpenSession, id: &ObjectId, mut count: u64) -> PluginResult<()> {
        while count > 0 {
            let step = i32::try_from(count).unwrap_or(i32::MAX);
            self.change(open, id, -step)?;
            count -= u64::from(step.unsigned_abs());
        }
        Ok(())
    }

    fn change(&self, open: &OpenSession, id: &ObjectId, by: i32) -> PluginResult<()> {
        self.call(Capabilities::REFCOUNT, "change_refcount", || {
            self.plugin.change_refcount(&open.session, id, by)
        })
    }
}

impl Holdings {
    /// Hands over what is held.
    pub(super) fn take_references(&mut self) -> References {
        std::mem::take(&mut self.references)
    }
}

impl References {
    pub(super) fn count(&self, id: &ObjectId) -> u64 {
        self.0.get(id).copied().unwrap_or(0)
    }

    /// How many objects there are references to.
    pub(super) fn objects(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(&mut self, id: ObjectId, count: u64) {
        if count > 0 {
            let held = self.0.entry(id).or_insert(0);
            *held = held.saturating_add(count);
        }
    }

    /// Removes `count` references, or as many as there are.
    pub(super) fn remove(&mut self, id: &ObjectId, count: u64) {
        if let Entry::Occupied(mut held) = self.0.entry(*id) {
            if *held.get() > count {
                *held.get_mut() -= count;
            } else {
                held.remove();
            }
        }
    }

    pub(super) fn merge(&mut self, other: References) {
        for (id, count) in other.0 {
            self.add(id, count);
        }
    }
}
