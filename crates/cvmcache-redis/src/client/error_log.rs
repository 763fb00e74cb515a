//! Logs failures of requests, each kind once in [`LOG_INTERVAL`] and not once a request. That a server is away
//! is logged by its `Node`.

use std::collections::HashMap;
use std::mem;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::warn;

use super::Failure;

const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The failures of the requests of one client.
#[derive(Default)]
pub(super) struct ErrorLogThrottle(Mutex<HashMap<Kind, Logged>>);

/// A failure without what only this one has, and its code.
type Kind = (mem::Discriminant<Failure>, String);

struct Logged {
    at: Instant,
    /// How many were not logged since.
    suppressed: u64,
    recent: Recent,
}

/// Failures of a kind of which each came within [`LOG_INTERVAL`] of the one before.
#[derive(Clone)]
struct Recent {
    begun: Instant,
    last: Instant,
    requests: u64,
    reason: String,
}

/// Requests that have failed in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecentFailure {
    pub(crate) reason: String,
    pub(crate) requests: u64,
    /// Since when, without a minute in between.
    pub(crate) since: Duration,
    pub(crate) last: Duration,
}

impl ErrorLogThrottle {
    pub(super) fn log(&self, failure: &Failure) {
        if *failure == Failure::Unreachable {
            return;
        }
        let mut logged = self.0.lock();
        let now = Instant::now();
        let kind: Kind = (mem::discriminant(failure), failure.code().to_owned());
        let known = logged.get_mut(&kind);
        let recent = Recent::next(known.as_ref().map(|known| &known.recent), failure, now);
        let suppressed = match known {
            Some(known) if now.duration_since(known.at) < LOG_INTERVAL => {
                known.suppressed += 1;
                known.recent = recent;
                return;
            }
            Some(known) => known.suppressed,
            None => 0,
        };
        logged.insert(kind, Logged { at: now, suppressed: 0, recent });
        warn!(reason = %failure, suppressed, "a request to the Redis server failed");
    }

    pub(super) fn recent(&self, now: Instant) -> Vec<RecentFailure> {
        let logged = self.0.lock();
        let recent = logged.values().map(|logged| &logged.recent);
        let recent = recent.filter(|recent| now.duration_since(recent.last) < LOG_INTERVAL);
        let mut failures: Vec<_> = recent
            .map(|recent| RecentFailure {
                reason: recent.reason.clone(),
                requests: recent.requests,
                since: now.duration_since(recent.begun),
                last: now.duration_since(recent.last),
            })
            .collect();
        failures.sort_by(|a, b| a.reason.cmp(&b.reason));
        failures
    }
}

impl Recent {
    fn next(before: Option<&Self>, failure: &Failure, now: Instant) -> Self {
        let before = before.filter(|before| now.duration_since(before.last) < LOG_INTERVAL);
        Self {
            begun: before.map_or(now, |before| before.begun),
            last: now,
            requests: before.map_or(0, |before| before.requests) + 1,
            reason: failure.to_string(),
        }
    }
}
