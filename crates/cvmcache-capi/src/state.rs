//! What a plugin in C shares with its uploads and listings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use cvmcache::ServerHandle;

use crate::callbacks::Callbacks;
use crate::references::References;

/// The callbacks, and what is counted.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) callbacks: Callbacks,
    pub(crate) references: References,
    pub(crate) handle: ServerHandle,
    /// What `cvmcache_process_requests` was given.
    pub(crate) workers: AtomicUsize,
    pub(crate) next_upload: AtomicU64,
    pub(crate) next_listing: AtomicU64,
}

pub(crate) type Shared = Arc<State>;

impl State {
    pub(crate) fn new(callbacks: Callbacks) -> Self {
        Self {
            callbacks,
            references: References::default(),
            handle: ServerHandle::new(),
            workers: AtomicUsize::new(0),
            next_upload: AtomicU64::new(1),
            next_listing: AtomicU64::new(1),
        }
    }
}
