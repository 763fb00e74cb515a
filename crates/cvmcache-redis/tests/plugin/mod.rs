//! The real plugin, as a process, and clients that check every byte they read.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use cvmcache::client::{Client, ClientError, NewUpload};
use cvmcache::plugin::{HashAlgorithm, ObjectId, ObjectType, Status};
use cvmcache_testkit::{PluginCommand, PluginProcess};

use redis_test_servers::eventually;

/// How long a client waits for a reply: several timeouts of the plugins here. A request that waits
/// longer was lost.
const FORGOTTEN: Duration = Duration::from_secs(90);

/// The program of the Redis cache.
const PROGRAM: &str = env!("CARGO_BIN_EXE_cvmcache-redis");

/// A plugin for the server at this URL, with a timeout that a busy machine keeps.
pub(crate) fn command(url: &str) -> PluginCommand {
    PluginCommand::new(PROGRAM)
        .option("CVMFS_CACHE_PLUGIN_REDIS_URL", url)
        .option("CVMFS_CACHE_PLUGIN_REDIS_TIMEOUT", "20000")
        .option("CVMFS_CACHE_PLUGIN_REDIS_LEASE", "600")
        .option("CVMFS_CACHE_PLUGIN_SIZE", "500")
}

pub(crate) fn start(url: &str) -> PluginProcess {
    command(url).start().unwrap_or_else(|error| panic!("{error}"))
}

/// A plugin whose requests wait for a server that is away for two seconds, so that clients notice soon.
pub(crate) fn start_impatient(url: &str) -> PluginProcess {
    let timeout = "CVMFS_CACHE_PLUGIN_REDIS_TIMEOUT";
    command(url).option(timeout, "2000").start().unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn connect(plugin: &PluginProcess, name: &str) -> Client {
    Client::builder().name(name.to_owned()).timeout(FORGOTTEN).connect(plugin.locator()).unwrap()
}

/// The object number `n`: its id and its content.
pub(crate) fn object(n: u64) -> (ObjectId, Vec<u8>) {
    let mut random = fastrand::Rng::with_seed(n);
    let mut digest = [0; 20];
    random.fill(&mut digest);
    // From nothing to several parts.
    let size = [0, 10, 5_000, 70_000, 600_000][(n % 5) as usize];
    let mut content = vec![0; size];
    random.fill(&mut content);
    (ObjectId::new(HashAlgorithm::Sha1, digest), content)
}

/// The result of a request: done, or a status. Any other error of the client is a plugin that has
/// failed its client.
#[track_caller]
pub(crate) fn status<T>(outcome: Result<T, ClientError>) -> Result<T, Status> {
    outcome.map_err(|error| match error {
        ClientError::Status(status) => status,
        error => panic!("a client must always get an answer: {error}"),
    })
}

/// The result of a request once the plugin is connected to its server again.
#[track_caller]
pub(crate) fn finally<T>(mut attempt: impl FnMut() -> Result<T, Status>) -> Result<T, Status> {
    let mut outcome = attempt();
    eventually("the plugin serves again", || {
        if matches!(outcome, Err(Status::IoErr | Status::Timeout)) {
            outcome = attempt();
        }
        !matches!(outcome, Err(Status::IoErr | Status::Timeout))
    });
    outcome
}

#[track_caller]
pub(crate) fn store(client: &mut Client, n: u64) -> Result<(), Status> {
    let (id, content) = object(n);
    let kind = if n.is_multiple_of(3) { ObjectType::Volatile } else { ObjectType::Regular };
    status(client.store(NewUpload::new(id).object_type(kind), content))
}

/// Reads a whole object, and checks its content if it exists.
#[track_caller]
pub(crate) fn read(client: &mut Client, n: u64) -> Result<(), Status> {
    let (id, content) = object(n);
    let read = status(client.read_all(&id))?;
    assert!(read == content, "object {n} is not what was stored");
    Ok(())
}

#[track_caller]
pub(crate) fn open(client: &mut Client, n: u64) -> Result<(), Status> {
    status(client.open(&object(n).0))
}

#[track_caller]
pub(crate) fn close(client: &mut Client, n: u64) -> Result<(), Status> {
    status(client.close(&object(n).0))
}

/// Clients that store, open, read and close until they are stopped. They check what they read,
/// and accept only statuses that a cache may return.
pub(crate) struct Jobs<'scope> {
    ending: &'scope AtomicBool,
    good: &'scope AtomicUsize,
    bad: &'scope AtomicUsize,
}

#[derive(Default)]
pub(crate) struct Counts {
    ending: AtomicBool,
    good: AtomicUsize,
    bad: AtomicUsize,
}

const JOBS: u64 = 4;

/// Runs jobs on this plugin while `fault` runs. Afterwards, each job still has its connection.
pub(crate) fn with_jobs(plugin: &PluginProcess, fault: impl FnOnce(&Jobs<'_>)) {
    let counts = Counts::default();
    thread::scope(|scope| {
        for job in 0..JOBS {
            let counts = &counts;
            scope.spawn(move || {
                let mut client = connect(plugin, &format!("test.cern.ch:{job}"));
                work(&mut client, job, counts);
                // Its connection has never closed.
                client.quit().unwrap();
            });
        }
        let jobs = Jobs { ending: &counts.ending, good: &counts.good, bad: &counts.bad };
        // A test that fails ends the jobs, too.
        let _end = End(&counts.ending);
        jobs.recover();
        fault(&jobs);
    });
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Jobs<'_> {
    /// Waits until their requests fail.
    pub(crate) fn notice(&self) {
        self.more("the jobs notice", self.bad);
    }

    /// Waits until their requests succeed again.
    pub(crate) fn recover(&self) {
        self.more("the jobs get what they want", self.good);
    }

    fn more(&self, what: &str, counter: &AtomicUsize) {
        let before = counter.load(Ordering::Relaxed);
        let much = before + 10 * JOBS as usize;
        eventually(what, || counter.load(Ordering::Relaxed) >= much);
    }

    /// How many of their requests have failed.
    pub(crate) fn failures(&self) -> usize {
        self.bad.load(Ordering::Relaxed)
    }
}

fn work(client: &mut Client, job: u64, counts: &Counts) {
    let mut random = fastrand::Rng::with_seed(job);
    let mut held: HashMap<u64, u32> = HashMap::new();
    while !counts.ending.load(Ordering::Relaxed) {
        // Some are the same for all of them.
        let n = random.u64(0..60);
        let outcome = match random.u8(0..4) {
            0 => store(client, n).map(|()| *held.entry(n).or_default() += 1),
            1 => open(client, n).map(|()| *held.entry(n).or_default() += 1),
            2 => read(client, n),
            _ => match held.get_mut(&n).filter(|count| **count > 0) {
                Some(count) => close(client, n).map(|()| *count -= 1),
                None => read(client, n),
            },
        };
        match outcome {
            Ok(()) => counts.good.fetch_add(1, Ordering::Relaxed),
            // Not stored yet, or lost.
            Err(Status::NoEntry) => continue,
            Err(Status::IoErr | Status::Timeout | Status::NoSpace) => {
                counts.bad.fetch_add(1, Ordering::Relaxed)
            }
            Err(other) => panic!("object {n}: {other}"),
        };
    }
}
