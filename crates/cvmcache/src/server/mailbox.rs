//! What other threads tell the I/O thread, and how it wakes up to hear it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};
use mio::Waker;

use super::workers::Done;

/// A message to the I/O thread.
#[derive(Debug)]
pub(super) enum Note {
    /// A worker has finished a job.
    Done(Done),
}

/// The end that other threads hold. It does not keep the server running.
#[derive(Debug, Clone)]
pub(super) struct Mailbox {
    notes: Sender<Note>,
    bell: Arc<Bell>,
}

/// The end that the I/O thread holds.
#[derive(Debug)]
pub(super) struct Inbox {
    notes: Receiver<Note>,
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    waker: Waker,
    /// Rung, and not answered yet: whoever comes now need not ring again, which is a system call.
    rung: AtomicBool,
}

pub(super) fn mailbox(waker: Waker) -> (Mailbox, Inbox) {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let bell = Arc::new(Bell { waker, rung: AtomicBool::new(false) });
    (Mailbox { notes: sender, bell: bell.clone() }, Inbox { notes: receiver, bell })
}

impl Mailbox {
    /// Leaves a note. After the end of the server nobody reads it.
    pub(super) fn send(&self, note: Note) {
        if self.notes.send(note).is_ok() {
            self.wake();
        }
    }

    /// Wakes the I/O thread, which looks for notes and for commands.
    pub(super) fn wake(&self) {
        if !self.bell.rung.swap(true, Ordering::AcqRel) {
            // The waker fails only if the poll is gone.
            let _ = self.bell.waker.wake();
        }
    }
}

impl Inbox {
    /// Takes the notes that are there.
    pub(super) fn drain(&self) -> impl Iterator<Item = Note> {
        // Answered first: a note that comes from now on rings again.
        self.bell.rung.swap(false, Ordering::AcqRel);
        self.notes.try_iter()
    }
}
