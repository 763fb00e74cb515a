//! Uploads: their parts are checked for order and size, and they end with their session.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use cvmcache_proto::StorePart;
use tracing::debug;

use super::{OpenSession, Service, guard, texts};
use crate::plugin::{Capabilities, NewObject, ObjectId, PluginResult, Status, Transaction};
use crate::sparse::shrink_if_sparse;

/// The uploads of a session, by the number of the request that began them; `None` while the plugin
/// works on one, since the lock is not held then.
#[derive(Default)]
pub(super) struct Uploads {
    pub(super) open: HashMap<u64, Option<Upload>>,
    /// What has been received of them. Invariant: counted in the total of all sessions.
    pub(super) bytes: u64,
    /// What the plugin made of uploads that were idle for too long, to be dropped in steps.
    idle: Vec<(ObjectId, Box<dyn Transaction>)>,
}

pub(super) struct Upload {
    pub(super) object: ObjectId,
    /// When it began, by the service's clock.
    pub(super) since: Duration,
    /// The part that must come next.
    next: u64,
    pub(super) received: u64,
    pub(super) expected: Option<u64>,
    /// What the plugin made of it. After a failure the client still has to abort the upload, and
    /// parts that it had sent before the reply with the failure get the same status.
    transaction: PluginResult<Box<dyn Transaction>>,
    /// How many sweeps have passed since the last part.
    age: u8,
}

/// How many sweeps an upload survives without a part.
const MAX_AGE: u8 = 2;

impl Service {
    /// Takes one part of an upload. A part that is malformed changes nothing.
    pub(super) fn store(&self, open: &OpenSession, id: u64, part: StorePart) -> PluginResult<()> {
        self.require(Capabilities::WRITE)?;
        let (len, max) = (part.data.len(), self.limits.max_object_size as usize);
        if len > max || (len < max && !part.last) {
            return Err(Status::Malformed);
        }
        if part.data_crc32.is_some_and(|crc| crc != crc32fast::hash(&part.data)) {
            debug!(session = %open.session, object = %part.object, "a part came damaged");
            return Err(Status::Corrupted);
        }
        let first = part.number == 1;
        let upload =
            if first { self.begin(open, id, &part)? } else { self.resume(open, id, &part)? };
        let (result, upload) = self.append(open, upload, part);
        // A client whose first part fails does not abort the upload, and may
        // try again under the same number.
        match upload {
            Some(upload) if result.is_ok() || !first => {
                open.uploads.lock().open.insert(id, Some(upload));
            }
            _ => self.forget_upload(open, id),
        }
        result
    }

    /// Aborts an upload.
    pub(super) fn abort(&self, open: &OpenSession, id: u64, object: &ObjectId) -> PluginResult<()> {
        self.require(Capabilities::WRITE)?;
        let mut uploads = open.uploads.lock();
        match uploads.remove(id) {
            Some(Some(upload)) if upload.object == *object => {
                self.discharge(&mut uploads, upload.received);
                drop(uploads);
                self.totals.uploads.remove(1);
                upload.abort()
            }
            Some(other) => {
                uploads.open.insert(id, other);
                Err(Status::Malformed)
            }
            None => Err(Status::Malformed),
        }
    }

    /// Gives up the uploads of a session that have had no part for two sweeps before this one. The server,
    /// which has a clock, sweeps twice in [`Limits::upload_idle`]. A later part of such an upload is
    /// answered [`Status::Timeout`]. Calls no plugin: [`abort_idle`](Self::abort_idle) drops them.
    ///
    /// [`Limits::upload_idle`]: crate::Limits::upload_idle
    pub fn sweep(&self, open: &OpenSession) {
        let mut uploads = open.uploads.lock();
        let Uploads { open: places, idle, .. } = &mut *uploads;
        let mut received = 0;
        for upload in places.values_mut().flatten().filter(|upload| upload.transaction.is_ok()) {
            upload.age += 1;
            if upload.age > MAX_AGE {
                received += mem::take(&mut upload.received);
                let given_up = mem::replace(&mut upload.transaction, Err(Status::Timeout));
                idle.extend(given_up.ok().map(|transaction| (upload.object, transaction)));
            }
        }
        self.discharge(&mut uploads, received);
    }

    /// Aborts uploads that [`sweep`](Self::sweep) has given up, at most so many; returns how many.
    pub fn abort_idle(&self, open: &OpenSession, at_most: usize) -> usize {
        let mut uploads = open.uploads.lock();
        let rest = uploads.idle.len().saturating_sub(at_most);
        let idle = uploads.idle.split_off(rest);
        if rest == 0 {
            uploads.idle = Vec::new();
        }
        drop(uploads);
        let count = idle.len();
        for (object, transaction) in idle {
            debug!(session = %open.session, %object, "upload aborted: idle");
            let _logged = drop_transaction(transaction);
        }
        count
    }

    fn begin(&self, open: &OpenSession, id: u64, part: &StorePart) -> PluginResult<Upload> {
        check_total(part, 0, part.expected_size)?;
        self.admit(open, &part.object)?;
        let mut uploads = open.uploads.lock();
        if uploads.open.contains_key(&id) {
            return Err(Status::Malformed);
        }
        if uploads.open.len() >= self.limits.max_uploads {
            debug!(session = %open.session, "too many open uploads");
            return Err(Status::NoSpace);
        }
        if !self.totals.uploads.admits(uploads.open.len(), self.totals.sessions()) {
            debug!(session = %open.session, "too many open uploads in all");
            return Err(Status::NoSpace);
        }
        uploads.open.insert(id, None);
        self.totals.uploads.add(1);
        drop(uploads);
        let object = NewObject {
            id: part.object,
            object_type: part.object_type,
            expected_size: part.expected_size,
            description: part
                .description
                .clone()
                .map(|text| texts::cut(text, self.limits.max_text)),
        };
        let begin = || self.plugin.begin(&open.session, object);
        let transaction = self.call(Capabilities::WRITE, "begin", begin);
        let transaction = transaction.inspect_err(|_| self.forget_upload(open, id))?;
        Ok(Upload {
            object: part.object,
            since: self.clock(),
            next: 1,
            received: 0,
            expected: part.expected_size,
            transaction: Ok(transaction),
            age: 0,
        })
    }

    /// Aborts uploads of a session that has ended, at most so many. False if there are more.
    pub(super) fn end_uploads(&self, open: &OpenSession, at_most: usize) -> bool {
        if self.abort_idle(open, at_most) == at_most {
            return false;
        }
        let mut uploads = open.uploads.lock();
        let numbers: Vec<u64> = uploads.open.keys().copied().take(at_most).collect();
        let ended: Vec<_> = numbers.iter().filter_map(|id| uploads.remove(*id)).collect();
        let received = ended.iter().flatten().map(|upload| upload.received).sum();
        self.discharge(&mut uploads, received);
        let all = uploads.open.is_empty();
        drop(uploads);
        self.totals.uploads.remove(ended.len());
        for upload in ended.into_iter().flatten() {
            debug!(session = %open.session, object = %upload.object, "upload aborted with its session");
            let _logged = upload.abort();
        }
        all
    }

    fn forget_upload(&self, open: &OpenSession, id: u64) {
        if open.uploads.lock().remove(id).is_some() {
            self.totals.uploads.remove(1);
        }
    }

    fn resume(&self, open: &OpenSession, id: u64, part: &StorePart) -> PluginResult<Upload> {
        let mut uploads = open.uploads.lock();
        let place = uploads.open.get_mut(&id).ok_or(Status::Malformed)?;
        let upload = place.as_ref().ok_or(Status::Malformed)?;
        upload.transaction.as_ref().map_err(|status| *status)?;
        if upload.object != part.object || upload.next != part.number {
            return Err(Status::Malformed);
        }
        check_total(part, upload.received, upload.expected)?;
        place.take().ok_or(Status::Malformed)
    }

    /// Writes a part that fits and, if it is the last one, commits. Returns what is left of the
    /// upload.
    fn append(
        &self,
        open: &OpenSession,
        mut upload: Upload,
        part: StorePart,
    ) -> (PluginResult<()>, Option<Upload>) {
        let len = part.data.len() as u64;
        (upload.next, upload.age) = (part.number + 1, 0);
        let last = part.last;
        let charged = self.charge(open, len);
        let result = charged.and_then(|()| {
            upload.received += len;
            upload.write(part)
        });
        match result {
            Ok(()) if last => {
                self.discharge(&mut open.uploads.lock(), upload.received);
                (self.commit(open, upload), None)
            }
            Ok(()) => (Ok(()), Some(upload)),
            Err(status) => {
                self.discharge(&mut open.uploads.lock(), mem::take(&mut upload.received));
                upload.fail(status);
                (Err(status), Some(upload))
            }
        }
    }

    /// Counts bytes of open uploads.
    fn charge(&self, open: &OpenSession, len: u64) -> PluginResult<()> {
        let mut uploads = open.uploads.lock();
        let bytes = uploads.bytes.saturating_add(len);
        if bytes > self.limits.max_upload_bytes {
            debug!(session = %open.session, "too many bytes in open uploads");
            return Err(Status::NoSpace);
        }
        // A session may always have one part.
        let is_one_part = bytes <= self.limits.max_object_size.into();
        let total = &self.totals.upload_bytes;
        if !is_one_part
            && !total.has_room(saturated(uploads.bytes), saturated(len), self.totals.sessions())
        {
            debug!(session = %open.session, "too many bytes in open uploads of all sessions");
            return Err(Status::NoSpace);
        }
        uploads.bytes = bytes;
        total.add(saturated(len));
        Ok(())
    }

    /// Counts bytes no more that are received, given up or refused.
    fn discharge(&self, uploads: &mut Uploads, len: u64) {
        uploads.bytes -= len;
        self.totals.upload_bytes.remove(saturated(len));
    }

    fn commit(&self, open: &OpenSession, mut upload: Upload) -> PluginResult<()> {
        // The object comes with a reference.
        if let Err(status) = self.admit(open, &upload.object) {
            upload.fail(status);
        }
        let transaction = upload.transaction?;
        guard("commit", || transaction.commit())?;
        self.hold(open, upload.object, 1);
        Ok(())
    }
}

/// A number of bytes for a quota.
fn saturated(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// That a part does not exceed what was announced, and the last one completes it.
fn check_total(part: &StorePart, received: u64, expected: Option<u64>) -> PluginResult<()> {
    let total = received.checked_add(part.data.len() as u64).ok_or(Status::Malformed)?;
    match expected {
        Some(expected) if total > expected || (part.last && total < expected) => {
            Err(Status::Malformed)
        }
        _ => Ok(()),
    }
}

impl Upload {
    /// Hands the part's bytes to the plugin.
    fn write(&mut self, part: StorePart) -> PluginResult<()> {
        let transaction = self.transaction.as_mut().map_err(|status| *status)?;
        if part.data.is_empty() { Ok(()) } else { guard("write", || transaction.write(part.data)) }
    }

    /// Ends the plugin's transaction after a failure.
    fn fail(&mut self, status: Status) {
        let failed = mem::replace(&mut self.transaction, Err(status));
        let _logged = failed.map_or(Ok(()), drop_transaction);
    }

    fn abort(self) -> PluginResult<()> {
        self.transaction.map_or(Ok(()), drop_transaction)
    }
}

/// The plugin's code runs when a transaction is dropped, too.
fn drop_transaction(transaction: Box<dyn Transaction>) -> PluginResult<()> {
    guard("drop of a transaction", || {
        drop(transaction);
        Ok(())
    })
}

impl Uploads {
    fn remove(&mut self, id: u64) -> Option<Option<Upload>> {
        let removed = self.open.remove(&id);
        shrink_if_sparse(&mut self.open);
        removed
    }
}

impl std::fmt::Debug for Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uploads")
            .field("open", &self.open)
            .field("bytes", &self.bytes)
            .field("idle", &self.idle.len())
            .finish()
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("object", &self.object)
            .field("next", &self.next)
            .field("received", &self.received)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}
