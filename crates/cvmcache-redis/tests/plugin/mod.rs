//! The real plugin, as a process, and clients that work with it and look at every byte.

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

/// How long a client waits for an answer: several deadlines of the plugins here. One that waits for
/// longer was forgotten.
const FORGOTTEN: Duration = Duration::from_secs(90);

/// The program of the Redis cache.
const PROGRAM: &str = env!("CARGO_BIN_EXE_cvmcache-redis");

/// A plugin for the server at this URL, with a deadline that a busy machine keeps.
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

/// The object number `n`: its name, and what is in it.
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

/// What a request came to: done, or the status that says why not. Anything else is a plugin that has
/// failed its client.
#[track_caller]
pub(crate) fn status<T>(outcome: Result<T, ClientError>) -> Result<T, Status> {
    outcome.map_err(|error| match error {
        ClientError::Status(status) => status,
        error => panic!("a client must always get an answer: {error}"),
    })
}

/// What it comes to in the end, when the trouble is over and the plugin has found its server again.
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

/// Reads the whole of an object, which is what it should be if the plugin says that it is there.
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

/// Clients that store, open, read and close until they are told to end. What they read is right,
/// and what they are told is what may happen to a cache.
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

/// Runs jobs on this plugin while `trouble` goes on. Afterwards, each job has its connection still.
pub(crate) fn with_jobs(plugin: &PluginProcess, trouble: impl FnOnce(&Jobs<'_>)) {
    let counts = Counts::default();
    thread::scope(|scope| {
        for job in 0..JOBS {
            let counts = &counts;
            scope.spawn(move || {
                let mut client = connect(plugin, &format!("test.cern.ch:{job}"));
                work(&mut client, job, counts);
                // It has never been left alone.
                client.quit().unwrap();
            });
        }
        let jobs = Jobs { ending: &counts.ending, good: &counts.good, bad: &counts.bad };
        // A test that fails ends the jobs, too.
        let _end = End(&counts.ending);
        jobs.recover();
        trouble(&jobs);
    });
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Jobs<'_> {
    /// Waits until they have been told of trouble.
    pub(crate) fn notice(&self) {
        self.more("the jobs notice", self.bad);
    }

    /// Waits until they get what they want again.
    pub(crate) fn recover(&self) {
        self.more("the jobs get what they want", self.good);
    }

    fn more(&self, what: &str, counter: &AtomicUsize) {
        let before = counter.load(Ordering::Relaxed);
        let much = before + 10 * JOBS as usize;
        eventually(what, || counter.load(Ordering::Relaxed) >= much);
    }

    /// How often they did not get what they wanted.
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
