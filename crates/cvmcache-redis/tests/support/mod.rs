//! Redis servers for tests: real processes in temporary directories, which end with the thread
//! that started them, however that ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
#![allow(dead_code, unused_imports, reason = "not every test needs every kind of server")]

mod certificates;
mod cluster;
mod redis_server;

pub(crate) use certificates::Certificates;
pub(crate) use cluster::RedisCluster;
pub(crate) use redis_server::{RedisServer, Setup};

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that will happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it is so, and says what it was about if it never is.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
