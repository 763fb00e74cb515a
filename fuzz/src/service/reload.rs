//! Reloads and the end of a session as they should be: who gives which references back, and when.

use super::MAX_RELOADS;
use super::model::{Model, merge};

impl Model {
    pub(super) fn ioctl(&mut self, session: u64, change: i32) {
        let holder = self.sessions.get_mut(&session).expect("it is open");
        let count = change.unsigned_abs();
        if change > 0 {
            if self.estates.contains_key(&holder.name) || self.estates.len() < MAX_RELOADS {
                let estate = self.estates.entry(holder.name.clone()).or_default();
                estate.announced = estate.announced.saturating_add(count);
                holder.announced = holder.announced.saturating_add(count);
            }
        } else if let Some(estate) = self.estates.get_mut(&holder.name)
            && change < 0
            && estate.announced >= count
        {
            estate.announced -= count;
            if holder.announced >= count {
                holder.announced -= count;
            } else if !holder.is_heir {
                holder.is_heir = true;
                estate.heirs += 1;
            }
        }
    }

    pub(super) fn retire(&mut self, session: u64) {
        let holder = self.sessions.get_mut(&session).expect("it is open");
        let estate = self.estates.get_mut(&holder.name).filter(|_| holder.announced > 0);
        if let Some(estate) = estate {
            merge(&mut estate.references, std::mem::take(&mut holder.references));
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
        if let Some(estate) = self.estates.get_mut(&holder.name) {
            estate.heirs -= u32::from(holder.is_heir);
            if holder.announced > 0 {
                merge(&mut estate.references, std::mem::take(&mut leaving));
            }
            if estate.heirs == 0 && estate.announced == 0 {
                merge(&mut leaving, std::mem::take(&mut estate.references));
                self.estates.remove(&holder.name);
            }
        }
        holder.leaving = Some(leaving);
    }
}
