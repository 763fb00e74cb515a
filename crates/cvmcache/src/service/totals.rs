//! What all sessions hold together, within the limits on that.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Limits;
use crate::quota::SharedQuota;

#[derive(Debug)]
pub(super) struct Totals {
    /// Sessions that have not ended.
    sessions: AtomicUsize,
    /// References: one for each object that a session, or one that was handed over, has open.
    pub(super) references: SharedQuota,
    pub(super) uploads: SharedQuota,
    /// What was received of open uploads.
    pub(super) upload_bytes: SharedQuota,
    pub(super) listings: SharedQuota,
}

impl Totals {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            sessions: AtomicUsize::new(0),
            references: SharedQuota::new(limits.max_references.unwrap_or(usize::MAX)),
            uploads: SharedQuota::new(limits.max_uploads_total),
            upload_bytes: SharedQuota::new(
                usize::try_from(limits.max_upload_bytes_total).unwrap_or(usize::MAX),
            ),
            listings: SharedQuota::new(limits.max_listings_total),
        }
    }

    pub(super) fn session_opened(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn session_ended(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }
}
