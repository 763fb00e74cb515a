//! What the cache holds, and what of it goes when there is no room.

use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};
use cvmcache::Session;
use cvmcache::plugin::*;

use super::flaw::Flaw;
use super::{PART, SIZE};

/// What the cache holds.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) flaw: Option<Flaw>,
    /// References are not counted, as they are not declared.
    pub(crate) is_uncounted: bool,
    pub(crate) objects: HashMap<ObjectId, Object>,
    pub(crate) uploads: BTreeMap<u64, Upload>,
    /// The number of the upload that began last.
    pub(crate) last_upload: u64,
    pub(crate) breadcrumbs: HashMap<Vec<u8>, Breadcrumb>,
    /// Where everything is written to with [`Flaw::OneBuffer`].
    pub(crate) buffer: Vec<Bytes>,
    /// How many uploads were refused because there was another.
    pub(crate) refusals: u64,
    /// The listing that was started last.
    pub(crate) listing: u64,
    pub(crate) used: u64,
    pub(crate) pinned: u64,
    clean_ups: u64,
    clock: u64,
    was_full: bool,
}

#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) content: Bytes,
    pub(crate) object_type: ObjectType,
    pub(crate) description: Option<Bytes>,
    pub(crate) references: u64,
    pub(crate) was_open: bool,
    /// The session that stored it.
    owner: u64,
    last_use: u64,
    /// Reported as evicted, with [`Flaw::KeepsEvicted`].
    is_evicted: bool,
}

/// An open upload.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) id: ObjectId,
    pub(crate) len: u64,
    pub(crate) is_dead: bool,
}

impl State {
    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    pub(crate) fn key(&self, id: &ObjectId) -> ObjectId {
        match self.flaw {
            Some(Flaw::IgnoresAlgorithm) => ObjectId::new(HashAlgorithm::Sha1, *id.digest()),
            _ => *id,
        }
    }

    pub(crate) fn find(&mut self, session: &Session, id: &ObjectId) -> PluginResult<&mut Object> {
        self.clock += 1;
        let (key, is_private) = (self.key(id), self.has(Flaw::PrivateObjects));
        let object = self.objects.get_mut(&key).ok_or(Status::NoEntry)?;
        if is_private && object.owner != session.id() {
            return Err(Status::NoEntry);
        }
        object.last_use = self.clock;
        Ok(object)
    }

    pub(crate) fn change(&mut self, session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        let flaw = self.flaw;
        let Ok(object) = self.find(session, id) else {
            let granted = match flaw {
                Some(Flaw::LooksAreGranted) => by == 0,
                Some(Flaw::OpensWhatIsAbsent) => by > 0,
                Some(Flaw::ClosesWhatIsAbsent) => by < 0,
                _ => false,
            };
            return if granted { Ok(()) } else { Err(Status::NoEntry) };
        };
        let by = match flaw {
            Some(Flaw::StepsOfOne) => by.signum(),
            Some(Flaw::LooksOpen) if by == 0 => 1,
            Some(Flaw::OneOpener) if by > 0 && object.references > 0 => {
                return Err(Status::Forbidden);
            }
            _ => by,
        };
        let (count, result) = match object.references.checked_add_signed(by.into()) {
            Some(_) if flaw == Some(Flaw::CloseClosesForAll) && by < 0 => (0, Ok(())),
            Some(count) => (count, Ok(())),
            None => match flaw {
                Some(Flaw::Saturates) => (0, Ok(())),
                Some(Flaw::FailedCloseClosesAll) => (0, Err(Status::BadCount)),
                _ => (object.references, Err(Status::BadCount)),
            },
        };
        let key = self.key(id);
        self.set_references(&key, count);
        if flaw == Some(Flaw::GoesWhenClosed) && by < 0 && count == 0 {
            self.evict(&key);
        }
        result
    }

    fn set_references(&mut self, key: &ObjectId, count: u64) {
        let Some(object) = self.objects.get_mut(key) else { return };
        let len = object.content.len() as u64;
        match (object.references, count) {
            (0, 1..) => self.pinned += len,
            (1.., 0) => self.pinned -= len,
            _ => {}
        }
        object.references = count;
        object.was_open |= count > 0;
    }

    /// Has an object appear, or be there once more, with references.
    pub(crate) fn store(
        &mut self,
        session: &Session,
        new: &NewObject,
        content: Bytes,
        references: u64,
    ) -> PluginResult<()> {
        let key = self.key(&new.id);
        if let Some(there) = self.objects.get_mut(&key) {
            let count = there.references;
            let more = match self.flaw {
                Some(Flaw::RefusesSecondStore) => return Err(Status::IoErr),
                Some(Flaw::SecondStoreEmpties) => {
                    there.content.clear();
                    references
                }
                Some(Flaw::SecondCommitHoldsNothing) => 0,
                _ => references,
            };
            self.set_references(&key, count + more);
            return Ok(());
        }
        let len = content.len() as u64;
        let clean_ups = self.clean_ups;
        self.make_room(len)?;
        if self.has(Flaw::FullTakesNothing) && self.clean_ups > clean_ups {
            return Ok(());
        }
        self.clock += 1;
        let object = Object {
            content,
            object_type: new.object_type,
            description: new.description.clone(),
            references: 0,
            was_open: false,
            owner: session.id(),
            last_use: self.clock,
            is_evicted: false,
        };
        self.objects.insert(key, object);
        self.used += len;
        self.set_references(&key, references);
        Ok(())
    }

    fn make_room(&mut self, len: u64) -> PluginResult<()> {
        if self.fits(len) {
            return Ok(());
        }
        if len <= SIZE && !self.has(Flaw::RefusesWhenFull) {
            self.evict_to(SIZE - len);
        }
        if self.fits(len) {
            return Ok(());
        }
        self.was_full = true;
        if self.has(Flaw::RefusalLosesOpen) {
            let open = self.objects.iter().find(|(_, object)| object.references > 0);
            if let Some((&key, _)) = open {
                self.evict(&key);
            }
        }
        Err(Status::NoSpace)
    }

    fn fits(&self, len: u64) -> bool {
        match self.flaw {
            Some(Flaw::NoQuota) => true,
            Some(Flaw::OneTooMany) => self.used <= SIZE,
            Some(Flaw::NoRoomAgain) if self.was_full => false,
            _ => self.used + len <= SIZE,
        }
    }

    /// Evicts what was not used for the longest time until no more than `target` bytes are used.
    pub(crate) fn evict_to(&mut self, target: u64) {
        if self.used <= target {
            return;
        }
        self.clean_ups += 1;
        let may_go =
            |object: &Object| object.references == 0 || self.flaw == Some(Flaw::EvictsOpen);
        let candidates = self.objects.iter().filter(|(_, o)| may_go(o) && !o.is_evicted);
        let mut victims: Vec<_> = candidates.map(|(key, object)| (object.last_use, *key)).collect();
        victims.sort_unstable_by_key(|(last_use, _)| *last_use);
        if self.has(Flaw::KeepsOne) {
            victims.pop();
        }
        for (_, key) in victims {
            if self.used <= target {
                break;
            }
            self.evict(&key);
        }
    }

    fn evict(&mut self, key: &ObjectId) {
        self.set_references(key, 0);
        let Some(object) = self.objects.get_mut(key) else { return };
        let len = object.content.len() as u64;
        match self.flaw {
            Some(Flaw::KeepsEvicted) => {
                object.is_evicted = true;
                self.used -= len;
            }
            Some(Flaw::CountsEvicted) => drop(self.objects.remove(key)),
            _ => {
                self.objects.remove(key);
                self.used -= len;
            }
        }
    }

    pub(crate) fn info(&self) -> CacheInfo {
        let sum = |count: fn(&Object) -> u64| -> u64 {
            self.objects.values().map(|o| count(o) * o.content.len() as u64).sum()
        };
        let mut info =
            CacheInfo::new(SIZE, self.used, self.pinned).with_shrink_count(self.clean_ups);
        match self.flaw {
            Some(Flaw::PinnedBeyondUsed) => info.pinned_bytes = info.used_bytes + 1,
            Some(Flaw::UsedBeyondSize) => info.used_bytes = SIZE + 1,
            Some(Flaw::NoSize) => info.size_bytes = 0,
            Some(Flaw::SmallIsFree) => {
                info.used_bytes = sum(|object| (object.content.len() >= 4096).into());
            }
            Some(Flaw::PinnedByReference) => info.pinned_bytes = sum(|object| object.references),
            Some(Flaw::StaysPinned) => info.pinned_bytes = sum(|object| object.was_open.into()),
            Some(Flaw::NothingCountsAsPinned) => info.pinned_bytes = 0,
            Some(Flaw::NoCleanUps) => info.shrink_count = None,
            Some(Flaw::UploadsCount) => info.used_bytes += self.uploading(),
            _ => {}
        }
        info
    }

    pub(crate) fn shrink(&mut self, target: u64) -> u64 {
        match self.flaw {
            Some(Flaw::ShrinkDoesNothing) => return self.used.min(target),
            Some(Flaw::ShrinkEvictsAll) => self.evict_to(0),
            Some(Flaw::ShrinksByHalf) => {
                self.evict_to(self.used - self.used.saturating_sub(target) / 2);
            }
            Some(Flaw::ShrinkEndsUploads) => {
                self.uploads.values_mut().for_each(|upload| upload.is_dead = true);
                self.evict_to(target);
            }
            _ => self.evict_to(target),
        }
        match self.flaw {
            Some(Flaw::NeverPartial) => self.used.min(target),
            Some(Flaw::UploadsCount) => self.used + self.uploading(),
            _ => self.used,
        }
    }

    fn uploading(&self) -> u64 {
        self.uploads.values().map(|upload| upload.len).sum()
    }
}

impl Object {
    pub(crate) fn read(&self, flaw: Option<Flaw>, offset: u64, len: u32) -> PluginResult<Bytes> {
        let (size, part, len) = (self.content.len() as u64, PART as u64, u64::from(len));
        let offset = match flaw {
            Some(Flaw::Offsets32) => offset & 0xffff_ffff,
            Some(Flaw::Offsets24) => offset & 0xff_ffff,
            Some(Flaw::OffByOneAtParts) if offset > 0 && offset.is_multiple_of(part) => offset - 1,
            _ => offset,
        };
        match flaw {
            Some(Flaw::BeyondTheEndIsEmpty) if offset > size => return Ok(Bytes::new()),
            Some(Flaw::TheEndIsOutOfBounds) if offset == size => return Err(Status::OutOfBounds),
            Some(Flaw::LosesFullLastPart) if offset + part == size => return Ok(Bytes::new()),
            _ if offset > size => return Err(Status::OutOfBounds),
            Some(Flaw::RefusesShortReads) if offset + len > size => {
                return Err(Status::OutOfBounds);
            }
            _ => {}
        }
        let end = match flaw {
            Some(Flaw::StopsAtParts) => size.min((offset / part + 1) * part),
            _ => size,
        };
        let piece = self.content.slice(offset as usize..end.min(offset + len) as usize);
        if flaw != Some(Flaw::PadsShortReads) {
            return Ok(piece);
        }
        let mut padded = BytesMut::from(piece);
        padded.resize(len as usize, 0);
        Ok(padded.freeze())
    }
}
