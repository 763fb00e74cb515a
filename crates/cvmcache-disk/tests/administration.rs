//! What an administrator sees of the disk cache, and has it do.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use cvmcache::client::{Client, NewUpload};
use cvmcache::plugin::{HashAlgorithm, ObjectId};
use cvmcache_testkit::{AdminClient, PluginCommand, PluginProcess};

fn start(directory: &Path, scrub: &str) -> (PluginProcess, AdminClient, Client) {
    let plugin = PluginCommand::new(env!("CARGO_BIN_EXE_cvmcache-disk"))
        .option("CVMFS_CACHE_DIR", directory.display().to_string())
        .option("CVMFS_CACHE_QUOTA_LIMIT", "100")
        .option("CVMFS_CACHE_PLUGIN_FSYNC", "never")
        .option("CVMFS_CACHE_PLUGIN_SCRUB", scrub)
        .start()
        .expect("a plugin");
    let admin = AdminClient::of(plugin.locator());
    let client = Client::connect(plugin.locator(), "test.cern.ch:1").expect("a client");
    (plugin, admin, client)
}

fn id(number: u8) -> ObjectId {
    ObjectId::new(HashAlgorithm::Sha1, [number; ObjectId::DIGEST_LEN])
}

fn store(client: &mut Client, number: u8) {
    client.store(NewUpload::new(id(number)), vec![number; 5000]).expect("an upload");
    client.close(&id(number)).expect("it is open");
}

/// Waits until a gauge is not 0, and returns it.
fn wait_for(admin: &AdminClient, gauge: &str) -> u64 {
    for _ in 0..10_000 {
        match admin.number(gauge) {
            0 => thread::yield_now(),
            number => return number,
        }
    }
    panic!("{gauge} stays 0");
}

#[test]
fn every_resource_has_the_fields_of_the_schema() {
    let directory = tempfile::tempdir().unwrap();
    let (_plugin, admin, mut client) = start(directory.path(), "0");
    store(&mut client, 1);
    admin.check_schema();
}

#[test]
fn scrubbing_on_request_moves_damaged_objects_aside_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (_plugin, admin, mut client) = start(directory.path(), "0");
    (0..3).for_each(|number| store(&mut client, number));
    let counts = ["objects", "damaged_objects", "scrubbed_bytes", "scrub_ended"];
    assert_eq!(counts.map(|name| admin.number(name)), [3, 0, 0, 0]);
    fs::write(directory.path().join(format!("01/{}", "01".repeat(19))), [7; 5000]).unwrap();
    let wrong = admin.post("/v1/plugin/scrub", r#"{"fast": true}"#).unwrap();
    assert_eq!(wrong.status, 400, "{wrong}");
    let answer = admin.post("/v1/plugin/scrub", "").unwrap();
    assert_eq!((answer.status, &answer.body["objects"]), (200, &3.into()));
    wait_for(&admin, "scrub_ended");
    assert_eq!(["objects", "damaged_objects"].map(|name| admin.number(name)), [2, 1]);
    assert_eq!(admin.number("scrubbed_bytes"), 15_000);
    assert!(!client.exists(&id(1)).unwrap() && client.exists(&id(2)).unwrap());
}

#[test]
fn a_request_interrupts_a_slow_pass() {
    let directory = tempfile::tempdir().unwrap();
    let (plugin, _, mut client) = start(directory.path(), "0");
    // A slow pass takes a quarter of a second for each of them.
    for number in 0..40 {
        client.store(NewUpload::new(id(number)), vec![number; 256 * 1024]).unwrap();
        client.close(&id(number)).unwrap();
    }
    drop((plugin, client));
    let (_plugin, admin, _client) = start(directory.path(), "1");
    assert_eq!(wait_for(&admin, "scrub_objects"), 40);
    admin.post("/v1/plugin/scrub", "").unwrap();
    wait_for(&admin, "scrub_ended");
}

/// How often the threads of this name have slept.
fn sleeps(process: u32, name: &str) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("a process");
    let of_task = |task: fs::DirEntry| -> Option<u64> {
        let comm = fs::read_to_string(task.path().join("comm")).ok()?;
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        (comm.trim_end() == name).then(|| line.split_whitespace().last()?.parse().ok())?
    };
    let counts: Vec<u64> = tasks.flatten().filter_map(of_task).collect();
    assert_eq!(counts.len(), 1, "threads called {name}");
    counts.iter().sum()
}

#[test]
fn an_idle_cache_wakes_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    let (plugin, admin, _client) = start(directory.path(), "1");
    wait_for(&admin, "checked");
    let slept = || ["sync", "scrub"].map(|name| sleeps(plugin.pid(), name));
    let before = slept();
    // It is what is measured.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(slept(), before);
}
