//! Redis servers for tests: real processes in temporary directories, which end with the thread
//! that started them (`PR_SET_PDEATHSIG`).

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod certificates;
mod cluster;
mod proxy;
mod redis_server;

pub use certificates::Certificates;
pub use cluster::RedisCluster;
pub use proxy::Proxy;
pub use redis_server::{RedisServer, Setup};

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for anything that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `is_so`, and panics with `what` if that takes longer than [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
