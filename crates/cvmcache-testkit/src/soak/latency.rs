//! A client that measures latencies by repeated requests for an absent object.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cvmcache::{Locator, threads};

use super::object::Object;
use super::plugin;
use super::violation::{CheckResult, Expect, Violation};

/// The pause between two pings.
const PAUSE: Duration = Duration::from_millis(1);

/// A thread that measures latencies.
#[derive(Debug)]
pub(super) struct LatencyProbe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<CheckResult<Latencies>>,
}

/// The latencies of pings, in ascending order.
#[derive(Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl LatencyProbe {
    pub(super) fn start(locator: Locator) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = threads::spawn("latency", move || ping(&locator, &stopped))?;
        Ok(Self { stop, thread })
    }

    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    pub(super) fn finish(self) -> CheckResult<Latencies> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| Violation::new("the latency probe to finish", "it panicked");
        self.thread.join().map_err(panicked)?
    }
}

fn ping(locator: &Locator, stop: &AtomicBool) -> CheckResult<Latencies> {
    let session = plugin::connect(locator, "soak.cern.ch:latency");
    let mut client = session.expect_ok("a session for the latency probe")?;
    let object = Object::numbered(0, 0).id;
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let before = Instant::now();
        client.exists(&object).expect_ok("a reply to the latency probe")?;
        latencies.push(before.elapsed());
        thread::sleep(PAUSE);
    }
    client.quit().expect_ok("the latency probe to quit")?;
    latencies.sort_unstable();
    Ok(Latencies(latencies))
}

impl Latencies {
    /// How many pings there were.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The latency that so many percent of the pings did not exceed; the longest for 100.
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last * percent / 100).copied().unwrap_or_default()
    }
}
