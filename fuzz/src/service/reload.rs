//! Reloads and the end of a session as they should be: which references are given back, and when.

use super::MAX_RELOADS;
use super::model::{Model, merge};

impl Model {
    pub(super) fn ioctl(&mut self, session: u64, change: i32) {
        let holder = self.sessions.get_mut(&session).expect("it is open");
        let count = change.unsigned_abs();
        if change > 0 {
            if self.handovers.contains_key(&holder.name) || self.handovers.len() < MAX_RELOADS {
                let handover = self.handovers.entry(holder.name.clone()).or_default();
                handover.announced = handover.announced.saturating_add(count);
                holder.announced = holder.announced.saturating_add(count);
            }
        } else if let Some(handover) = self.handovers.get_mut(&holder.name)
            && change < 0
            && handover.announced >= count
        {
            handover.announced -= count;
            if holder.announced >= count {
                holder.announced -= count;
            } else if !holder.is_successor {
                holder.is_successor = true;
                handover.successors += 1;
            }
        }
    }

    pub(super) fn retire(&mut self, session: u64) {
        let holder = self.sessions.get_mut(&session).expect("it is open");
        let handover = self.handovers.get_mut(&holder.name).filter(|_| holder.announced > 0);
        if let Some(handover) = handover {
            merge(&mut handover.references, std::mem::take(&mut holder.references));
        }
    }

    /// Decides what an ending session gives back, once.
    pub(super) fn leave(&mut self, session: u64) {
        let holder = self.sessions.get_mut(&session).expect("it is open");
        if holder.leaving.is_some() {
            return;
        }
        (holder.uploads, holder.listings) = Default::default();
        let mut leaving = std::mem::take(&mut holder.references);
        if let Some(handover) = self.handovers.get_mut(&holder.name) {
            handover.successors -= u32::from(holder.is_successor);
            if holder.announced > 0 {
                merge(&mut handover.references, std::mem::take(&mut leaving));
            }
            if handover.successors == 0 && handover.announced == 0 {
                merge(&mut leaving, std::mem::take(&mut handover.references));
                self.handovers.remove(&holder.name);
            }
        }
        holder.leaving = Some(leaving);
    }
}
