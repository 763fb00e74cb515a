//! The back-off between connections to a server.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

pub(super) const MIN_PAUSE: Duration = Duration::from_millis(50);
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause while requests wait.
pub(super) const MAX_PAUSE_OF_WAITERS: Duration = Duration::from_millis(250);

pub(super) type Pauses = <ExponentialBuilder as BackoffBuilder>::Backoff;

/// Pauses that grow exponentially, with jitter.
pub(super) fn pauses() -> Pauses {
    ExponentialBuilder::default()
        .with_min_delay(MIN_PAUSE)
        .with_max_delay(MAX_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}
