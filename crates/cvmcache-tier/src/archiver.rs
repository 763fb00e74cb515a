//! The thread that archives what has gone cold, now and then.

use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::cold::ColdError;
use crate::hot::HotTier;
use crate::jobs::Progress;
use crate::marker_list::ListError;
use crate::tier::Tier;

/// Objects go cold within days; with less than an hour, this is a fraction of it.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// After a start, clients come first.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The list of markers is written as often, since `gc` believes no old ones.
const LIST_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Archives until `stop` is disconnected, or the store turns out to be read only.
pub(crate) fn run<H: HotTier>(tier: &Arc<Tier<H>>, workspace: &Path, stop: &Receiver<()>) {
    let after = tier.config.archive_after;
    let pause = after.map_or(LONGEST_PAUSE, |after| after / 10);
    let pause = pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    let mut list_due = Instant::now();
    let mut wait = pause.min(FIRST_PAUSE);
    while stop.recv_timeout(mem::replace(&mut wait, pause)) == Err(RecvTimeoutError::Timeout) {
        if list_due <= Instant::now() {
            let Some(result) = tier.run(tier.upload_list(workspace)) else { return };
            match result {
                Ok(()) => list_due = Instant::now() + LIST_INTERVAL,
                // Nothing can be archived either.
                Err(ListError::Cold(ColdError::ReadOnly)) => return,
                Err(error) => {
                    tier.statistics
                        .warn(&format_args!("cannot write the list of markers: {error}"));
                }
            }
        }
        let Some(after) = after else { continue };
        let Some(until) = SystemTime::now().checked_sub(after) else { continue };
        let progress = Progress::default();
        let objects = tier.hot.idle_objects(until);
        let Some(result) = tier.run(tier.archive(objects, &progress)) else { return };
        if let Err(error) = result {
            tier.statistics.warn(&error);
        }
        let (archived, bytes) = progress.counts();
        if archived > 0 {
            tracing::info!("archived {archived} objects, {bytes} bytes, not used for {after:?}");
        }
    }
}
