//! How often the plugin is woken, and what an idle one costs.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use cvmcache::client::{Client, NewUpload};
use cvmcache::plugin::{HashAlgorithm, ObjectId};
use cvmcache_testkit::{PluginCommand, PluginProcess};

fn plugin(poll: &str) -> PluginProcess {
    let command: PluginCommand =
        format!("{} {{conf}}", env!("CARGO_BIN_EXE_cvmcache-ram")).parse().expect("a command");
    command.option("CVMFS_CACHE_PLUGIN_POLL", poll).start().expect("a plugin")
}

fn client(plugin: &PluginProcess) -> Client {
    Client::connect(plugin.locator(), "test.cern.ch:1").expect("a client")
}

/// The sum over all threads of a number in one of their files in /proc.
fn sum(process: u32, file: &str, number: impl Fn(&str) -> Option<u64>) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("a process");
    let texts = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join(file)).ok());
    texts.map(|text| number(&text).expect("a number")).sum()
}

/// How often threads of the process have slept.
fn sleeps(process: u32) -> u64 {
    sum(process, "status", |status| {
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().last()?.parse().ok()
    })
}

/// How long threads of the process have run.
fn processor_time(process: u32) -> Duration {
    let nanoseconds =
        sum(process, "schedstat", |times| times.split_whitespace().next()?.parse().ok());
    Duration::from_nanos(nanoseconds)
}

#[test]
fn a_reply_that_the_client_takes_wakes_nothing() {
    const READS: u64 = 2000;
    let plugin = plugin("0");
    let mut client = client(&plugin);
    let id = ObjectId::new(HashAlgorithm::Sha1, [1; 20]);
    client.store(NewUpload::new(id), vec![7; 128 * 1024]).expect("an upload");
    let before = sleeps(plugin.pid());
    for _ in 0..READS {
        assert_eq!(client.read(&id, 0, 128 * 1024).expect("a reply").len(), 128 * 1024);
    }
    let sleeps = sleeps(plugin.pid()) - before;
    assert!(sleeps <= READS + READS / 5, "{sleeps} for {READS} reads");
}

#[test]
fn a_client_that_sleeps_between_requests_is_not_polled_for() {
    // Polling before each request would take a tenth of the time.
    let plugin = plugin("1000");
    let mut client = client(&plugin);
    for _ in 0..1000 {
        client.info().expect("a reply");
    }
    let (before, begun) = (processor_time(plugin.pid()), Instant::now());
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(10));
        client.info().expect("a reply");
    }
    let (took, elapsed) = (processor_time(plugin.pid()) - before, begun.elapsed());
    assert!(took < elapsed / 20, "{took:?} of {elapsed:?}");
}
