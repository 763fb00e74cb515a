//! The thread that archives what has gone cold, now and then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::archive::ArchiveProgress;
use crate::hot::HotTier;
use crate::tier::Tier;

/// Objects go cold within days; with less than an hour, this is a fraction of it.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Archives until `stop` is disconnected.
pub(crate) fn run<H: HotTier>(tier: &Arc<Tier<H>>, stop: &Receiver<()>) {
    let Some(after) = tier.config.archive_after else { return };
    let pause = (after / 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    while stop.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let Some(until) = SystemTime::now().checked_sub(after) else { continue };
        let progress = ArchiveProgress::default();
        let objects = Stoppable { objects: tier.hot.idle_objects(until), stop };
        if let Err(error) = tier.runtime.block_on(tier.archive(objects, &progress)) {
            tier.statistics.warn(&error);
        }
        let archived = progress.archived.load(Ordering::Relaxed);
        if archived > 0 {
            let bytes = progress.bytes.load(Ordering::Relaxed);
            tracing::info!("archived {archived} objects, {bytes} bytes, not used for {after:?}");
        }
    }
}

/// Ends with the thread.
struct Stoppable<'a, I> {
    objects: I,
    stop: &'a Receiver<()>,
}

impl<I: Iterator> Iterator for Stoppable<'_, I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let goes_on = self.stop.try_recv().is_err_and(|error| error.is_empty());
        if goes_on { self.objects.next() } else { None }
    }
}
