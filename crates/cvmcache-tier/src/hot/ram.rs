//! The RAM cache as a hot tier. It counts uses and reads no clock, so the tier notes which use it was at what time.

use std::collections::VecDeque;
use std::time::SystemTime;

use cvmcache::plugin::{ObjectId, PluginResult, Status};
use cvmcache_ram::{IdleObject, RamCache};
use parking_lot::Mutex;

use crate::header::BLOCK;
use crate::hot::{HotObject, Scrubbed};

/// Which use it was at what time, the oldest note first.
#[derive(Debug, Default)]
pub(crate) struct UseNotes {
    notes: Mutex<VecDeque<(SystemTime, u64)>>,
}

/// With more, every second one goes.
const MAX_NOTES: usize = 10_000;

impl UseNotes {
    /// Notes the number of the last use, and returns that of the last one at `until` or earlier, as far as was noted.
    pub(crate) fn last_use(&self, now: SystemTime, uses: u64, until: SystemTime) -> u64 {
        let mut notes = self.notes.lock();
        if notes.len() >= MAX_NOTES {
            let mut keep = false;
            notes.retain(|_| {
                keep = !keep;
                keep
            });
        }
        notes.push_back((now, uses));
        if until >= now {
            return u64::MAX;
        }
        let noted = notes.iter().rev().find(|(at, _)| *at <= until);
        noted.map_or(0, |&(_, uses)| uses)
    }
}

/// Idle objects of the cache.
pub(crate) fn idle_objects(
    cache: &RamCache,
    notes: &UseNotes,
    until: SystemTime,
) -> impl Iterator<Item = HotObject> + Send + use<> {
    let last = notes.last_use(SystemTime::now(), cache.uses(), until);
    cache.idle_objects(last).map(HotObject::from)
}

/// The digests of an object's blocks: memory keeps none.
pub(crate) fn block_digests(cache: &RamCache, id: &ObjectId) -> PluginResult<Vec<[u8; 32]>> {
    let size = cache.object(id)?.info.size;
    let offsets = (0..size).step_by(BLOCK as usize);
    let digests = offsets.map(|offset| {
        let block = cache.read_unused(id, offset, BLOCK as u32)?.into_bytes();
        Ok(*blake3::hash(&block).as_bytes())
    });
    digests.collect()
}

/// Memory is not compared with anything.
pub(crate) fn scrub(cache: &RamCache, progress: &mut dyn FnMut(&Scrubbed) -> bool) {
    let mut scrubbed = Scrubbed::default();
    for object in cache.idle_objects(u64::MAX) {
        scrubbed.good += 1;
        scrubbed.bytes += object.info.size;
        if !progress(&scrubbed) {
            return;
        }
    }
}

pub(crate) fn verify(cache: &RamCache, id: &ObjectId) -> PluginResult<()> {
    cache.object(id).map(|_| ()).map_err(|_| Status::NoEntry)
}

impl From<IdleObject> for HotObject {
    fn from(object: IdleObject) -> Self {
        Self {
            id: object.id,
            len: object.info.size,
            object_type: object.info.object_type,
            description: object.description,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_last_use_before_a_time_is_the_one_that_was_noted_then() {
        let notes = UseNotes::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(notes.last_use(at(100), 7, at(50)), 0, "nothing is known of that time");
        assert_eq!(notes.last_use(at(200), 9, at(150)), 7);
        assert_eq!(notes.last_use(at(300), 20, at(200)), 9);
        assert_eq!(notes.last_use(at(400), 21, at(400)), u64::MAX);
        for second in 1000..1000 + 3 * MAX_NOTES as u64 {
            notes.last_use(at(second), second, at(0));
        }
        assert!(notes.notes.lock().len() <= MAX_NOTES);
    }
}
