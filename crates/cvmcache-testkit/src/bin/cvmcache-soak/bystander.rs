//! A client that does no harm, and has no patience: it pings, and notes how long that takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cvmcache::Locator;
use cvmcache::client::Client;

use crate::broken::{Broken, Expect, Kept};
use crate::client::TIMEOUT;
use crate::object::Object;

const PAUSE: Duration = Duration::from_millis(1);

/// A bystander at work.
#[derive(Debug)]
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Kept<Latencies>>,
}

/// How long pings took, sorted.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Bystander {
    pub(crate) fn start(locator: Locator) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Self { stop, thread: thread::spawn(move || ping(&locator, &stopped)) }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    pub(crate) fn finish(self) -> Kept<Latencies> {
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
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last * percent / 100).copied().unwrap_or_default()
    }
}
