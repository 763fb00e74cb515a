//! Reports of what each session holds, and since when.
//!
//! There is no clock here: the server passes the time now and then, and ages are as exact as that.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{OpenSession, Service};
use crate::plugin::ObjectId;

/// What a session holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionReport {
    /// How long it has been open, by the time that is [set](Service::set_clock).
    pub age: Duration,
    /// How many objects it has open.
    pub objects: usize,
    /// How many uploads it has begun and not ended.
    pub uploads: usize,
    /// How many bytes have been received of them. Those of uploads that have failed do not count.
    pub upload_bytes: u64,
    /// The upload that began first. One that the plugin works on at this moment is not seen.
    pub oldest_upload: Option<UploadReport>,
    /// How many listings it has not read to their ends.
    pub listings: usize,
}

/// An open upload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadReport {
    /// The object that it is to become.
    pub object: ObjectId,
    /// How long ago it began, by the time that is [set](Service::set_clock).
    pub age: Duration,
    /// How many bytes have been received.
    pub received: u64,
    /// How many bytes there will be, if the client announced it.
    pub expected: Option<u64>,
}

impl Service {
    /// Passes the time since an instant of the caller's choice. Only reports and the log use it: until the
    /// first call, all ages are 0.
    pub fn set_clock(&self, now: Duration) {
        // It lasts for half a million years.
        self.clock.store(now.as_micros() as u64, Ordering::Relaxed);
        self.log_suppressed_refusals(now);
    }

    pub(super) fn clock(&self) -> Duration {
        Duration::from_micros(self.clock.load(Ordering::Relaxed))
    }

    /// How many uploads a session has begun and not ended, and how many bytes it has sent of them.
    pub fn uploads(&self, open: &OpenSession) -> (usize, u64) {
        let uploads = open.uploads.lock();
        (uploads.open.len(), uploads.bytes)
    }

    /// How many objects sessions have open: one for each session and object, with those that were handed
    /// over in reloads. It is what [`Limits::max_references`](crate::Limits::max_references) bounds.
    pub fn references(&self) -> usize {
        self.totals.references.used()
    }

    /// How many objects a session has open, and how many listings. No lock is held for longer than a look.
    #[cfg(feature = "admin")]
    pub(crate) fn objects_and_listings(&self, open: &OpenSession) -> (usize, usize) {
        let objects = open.holdings.lock().references.objects();
        (objects, open.listings.lock().open.len())
    }

    /// What a session holds.
    pub fn report(&self, open: &OpenSession) -> SessionReport {
        let now = self.clock();
        let objects = open.holdings.lock().references.objects();
        let listings = open.listings.lock().open.len();
        let uploads = open.uploads.lock();
        let oldest = uploads.open.values().flatten().min_by_key(|upload| upload.since);
        SessionReport {
            age: now.saturating_sub(open.since),
            objects,
            uploads: uploads.open.len(),
            upload_bytes: uploads.bytes,
            oldest_upload: oldest.map(|upload| UploadReport {
                object: upload.object,
                age: now.saturating_sub(upload.since),
                received: upload.received,
                expected: upload.expected,
            }),
            listings,
        }
    }
}
