//! References: which of them a session holds, and may release.
//!
//! The plugin counts the references of an object over all sessions. The service counts them by
//! session, so that a session gives back only what it holds, and all of it when it ends.

use tracing::{debug, warn};

use super::callbacks::attempt;
use super::references::{HandedOver, References};
use super::{OpenSession, Service};
use crate::plugin::{Capabilities, ObjectId, PluginResult, Status};

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
    orphaned: Option<HandedOver>,
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
            if by > 0 {
                self.admit(open, id)?;
            }
            self.change(open, id, by)?;
            self.hold(open, *id, count);
            Ok(())
        }
    }

    /// The same without waiting; `None` if that cannot be, and for what is refused: a worker finds the reason.
    pub(super) fn try_change_refcount(
        &self,
        open: &OpenSession,
        id: &ObjectId,
        by: i32,
    ) -> Option<PluginResult<()>> {
        if !self.takes_references {
            let found = || self.try_object_info(open, id).map(|info| info.map(|_| ()));
            return if by < 0 { Some(Ok(())) } else { found() };
        }
        let taken = match by {
            -1 => self.take(open, id, 1)?,
            0 => 0,
            1 => {
                self.admit(open, id).ok()?;
                0
            }
            // It may take several steps.
            _ => return None,
        };
        let result = attempt("try_change_refcount", || {
            self.plugin.try_change_refcount(&open.session, id, by)
        });
        match (by, &result) {
            (1, Some(Ok(()))) => self.hold(open, *id, 1),
            // As in `close`.
            (-1, Some(Ok(()) | Err(Status::NoEntry))) => {}
            (-1, _) => self.hold(open, *id, taken),
            _ => {}
        }
        result
    }

    /// Checks that a session may hold one more object.
    pub(super) fn admit(&self, open: &OpenSession, id: &ObjectId) -> PluginResult<()> {
        let references = &self.totals.references;
        if references.is_ample() {
            return Ok(());
        }
        let holdings = open.holdings.lock();
        let own = holdings.references.objects();
        let is_held = holdings.references.count(id) > 0;
        if is_held || references.admits(own, self.totals.sessions()) {
            return Ok(());
        }
        debug!(session = %open.session, objects = own, "too many open objects");
        Err(Status::NoSpace)
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
                holdings.is_successor.then(|| self.reloads.lock().take(name, id, count - own));
            if let Some(Some(fewer)) = handed_over {
                self.totals.references.remove(fewer);
                taken = count;
            } else if !self.trust.foreign_references {
                return None;
            }
        }
        if holdings.references.remove(id, own) {
            self.totals.references.remove(1);
        }
        Some(taken)
    }

    /// Notes references that the plugin has given to the session.
    pub(super) fn hold(&self, open: &OpenSession, id: ObjectId, count: u64) {
        // Without references, there is nothing to give back.
        if self.takes_references && open.holdings.lock().references.add(id, count) {
            self.totals.references.add(1);
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
                self.totals.session_ended();
                self.end_in_reloads(open, held)
            }
        };
        let now = orphaned.pop(at_most);
        let all = orphaned.is_empty();
        holdings.orphaned = Some(orphaned);
        drop(holdings);
        self.totals.references.remove(now.len());
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
