//! The waker: wakes the event loop from another thread.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::{Registry, Token};

/// Wakes the event loop, which otherwise sleeps in `epoll_wait`.
///
/// Wake-ups coalesce: as long as the loop has not seen the first one, others make no system call.
///
/// Invariant: a thread publishes what it has for the loop (a completion, a flag) before it wakes it,
/// and the loop acknowledges before it checks. So a wake-up that was left out because one was pending
/// is never lost: the loop has not looked yet.
#[derive(Debug)]
pub(crate) struct Waker {
    waker: mio::Waker,
    is_pending: AtomicBool,
}

impl Waker {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let waker = mio::Waker::new(registry, token)?;
        Ok(Self { waker, is_pending: AtomicBool::new(false) })
    }

    /// Wakes the loop. After its end this does nothing of consequence.
    pub(crate) fn wake(&self) {
        if !self.is_pending.swap(true, Ordering::AcqRel) {
            // It fails only if the epoll descriptor is gone, and the loop with it.
            let _ = self.waker.wake();
        }
    }

    /// The loop is awake: from now on, a wake-up is needed again.
    pub(crate) fn acknowledge(&self) {
        self.is_pending.swap(false, Ordering::AcqRel);
    }
}
