//! A client that does no harm, and has no patience: it pings, and notes how long that takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cvmcache::Locator;
use cvmcache::client::Client;

use super::broken::{Broken, Expect, Kept};
use super::client::TIMEOUT;
use super::object::Object;

const PAUSE: Duration = Duration::from_millis(1);

/// A bystander at work.
#[derive(Debug)]
pub(super) struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Kept<Latencies>>,
}

/// How long pings took, sorted.
#[derive(Debug, Default)]
pub(super) struct Latencies(Vec<Duration>);

impl Bystander {
    pub(super) fn start(locator: Locator) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Self { stop, thread: thread::spawn(move || ping(&locator, &stopped)) }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    pub(super) fn finish(self) -> Kept<Latencies> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| Broken::new("the bystander to finish", "it panicked");
        self.thread.join().map_err(panicked)?
    }
}

fn ping(locator: &Locator, stop: &AtomicBool) -> Kept<Latencies> {
    let builder = Client::builder().name("soak.cern.ch:bystander").timeout(TIMEOUT);
    let mut client = builder.connect(locator).or_broken("the bystander to be let in")?;
    let object = Object::numbered(0, 0).id;
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let before = Instant::now();
        client.exists(&object).or_broken("the bystander to be answered")?;
        latencies.push(before.elapsed());
        thread::sleep(PAUSE);
    }
    client.quit().or_broken("the bystander to be let go")?;
    latencies.sort_unstable();
    Ok(Latencies(latencies))
}

impl Latencies {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last * percent / 100).copied().unwrap_or_default()
    }
}
