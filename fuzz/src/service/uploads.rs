//! The uploads of a session as they should be.

use std::collections::BTreeMap;

use bytes::Bytes;
use cvmcache::plugin::*;
use cvmcache_proto::StorePart;
use cvmcache_testkit::Callback;

use super::plugin::{Faults, Stored};
use super::{MAX_OBJECT_SIZE, MAX_TEXT, MAX_UPLOADS};

/// By the number of the request that began them.
#[derive(Default)]
pub(super) struct Uploads(BTreeMap<u64, Upload>);

struct Upload {
    object: ObjectId,
    next: u64,
    expected: Option<u64>,
    object_type: ObjectType,
    description: Option<Bytes>,
    /// The parts that were accepted, or what they are refused with after a failure.
    data: PluginResult<Vec<u8>>,
}

impl Uploads {
    /// How many transactions the plugin should have open.
    pub(super) fn transactions(&self) -> usize {
        self.0.values().filter(|upload| upload.data.is_ok()).count()
    }

    /// The part that an upload waits for: the first one, if there is no such upload.
    pub(super) fn next(&self, id: u64) -> u64 {
        self.0.get(&id).map_or(1, |upload| upload.next)
    }

    /// Takes a part; returns the object if it is to be committed.
    pub(super) fn store(
        &mut self,
        id: u64,
        part: StorePart,
        faults: &Faults,
    ) -> PluginResult<Option<(ObjectId, Stored)>> {
        let fails = |callback| match faults.get(&callback) {
            Some(fault) => Err(fault.status(callback)),
            None => Ok(()),
        };
        let len = part.data.len() as u64;
        let full = u64::from(MAX_OBJECT_SIZE);
        if len > full || (len < full && !part.last) {
            return Err(Status::Malformed);
        }
        let first = part.number == 1;
        if first {
            check_total(0, &part, part.expected_size)?;
            if self.0.contains_key(&id) {
                return Err(Status::Malformed);
            }
            if self.0.len() >= MAX_UPLOADS {
                return Err(Status::NoSpace);
            }
            fails(Callback::Begin)?;
            let upload = Upload {
                object: part.object,
                next: 1,
                expected: part.expected_size,
                object_type: part.object_type,
                description: part.description.clone().map(cut_text),
                data: Ok(Vec::new()),
            };
            self.0.insert(id, upload);
        }
        let upload = self.0.get_mut(&id).ok_or(Status::Malformed)?;
        let data = upload.data.as_mut().map_err(|status| *status)?;
        if upload.object != part.object || upload.next != part.number {
            return Err(Status::Malformed);
        }
        check_total(data.len() as u64, &part, upload.expected)?;
        upload.next += 1;
        if len > 0
            && let Err(status) = fails(Callback::Write)
        {
            upload.data = Err(status);
            // A client does not abort an upload that failed with its first part.
            if first {
                self.0.remove(&id);
            }
            return Err(status);
        }
        data.extend_from_slice(&part.data);
        if !part.last {
            return Ok(None);
        }
        let done = self.0.remove(&id).expect("it is there");
        fails(Callback::Commit)?;
        let (object_type, description) = (done.object_type, done.description);
        Ok(Some((done.object, Stored { data: done.data?, object_type, description })))
    }

    pub(super) fn abort(&mut self, id: u64, object: &ObjectId) -> PluginResult<()> {
        match self.0.get(&id) {
            Some(upload) if upload.object == *object => drop(self.0.remove(&id)),
            _ => return Err(Status::Malformed),
        }
        Ok(())
    }
}

fn check_total(received: u64, part: &StorePart, expected: Option<u64>) -> PluginResult<()> {
    let total = received + part.data.len() as u64;
    let fits = expected.is_none_or(|all| if part.last { total == all } else { total <= all });
    if fits { Ok(()) } else { Err(Status::Malformed) }
}

/// A text of a client within its limit. All that are over it are ASCII.
pub(super) fn cut_text(mut text: Bytes) -> Bytes {
    text.truncate(MAX_TEXT);
    text
}
