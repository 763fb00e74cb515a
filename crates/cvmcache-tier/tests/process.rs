//! The real program with a store in a directory: archived and recalled beside clients, killed, and checked.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cvmcache::client::{Client, ClientError, NewUpload};
use cvmcache::plugin::{HashAlgorithm, ObjectId, Status};
use cvmcache_testkit::{AdminClient, PluginCommand, PluginProcess};
use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cvmcache-tiered");

fn command(directory: &Path) -> PluginCommand {
    let path = |name| directory.join(name).display().to_string();
    fs::create_dir_all(path("store")).expect("a directory");
    PluginCommand::new(PROGRAM)
        .option("CVMFS_CACHE_DIR", path("cache"))
        .option("CVMFS_CACHE_QUOTA_LIMIT", "1000")
        .option("CVMFS_CACHE_PLUGIN_STORE", format!("file://{}", path("store")))
        .option("CVMFS_CACHE_PLUGIN_STORE_ARCHIVE_AFTER", "200ms")
}

fn start(command: PluginCommand) -> PluginProcess {
    command.start().unwrap_or_else(|error| panic!("{error}"))
}

fn client(plugin: &PluginProcess) -> Client {
    Client::connect(plugin.locator(), "test.cern.ch:1").expect("a client")
}

fn id(number: u32) -> ObjectId {
    let mut digest = [7; ObjectId::DIGEST_LEN];
    digest[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    ObjectId::new(HashAlgorithm::Sha1, digest)
}

fn content(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(1 + number as usize * 977 % 300_000)
}

fn store(client: &mut Client, number: u32) -> Result<(), ClientError> {
    client.store(NewUpload::new(id(number)), content(number))?;
    client.close(&id(number))
}

/// Opens, reads and closes an object; false if it is a miss.
fn read(client: &mut Client, number: u32) -> bool {
    match client.open(&id(number)) {
        Ok(()) => {
            assert_eq!(client.read_all(&id(number)).expect("it is open"), content(number));
            client.close(&id(number)).expect("it is open");
            true
        }
        Err(ClientError::Status(Status::NoEntry)) => false,
        Err(error) => panic!("{error}"),
    }
}

fn files_below(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let count = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files_below(&entry.path()),
        _ => 1,
    };
    entries.flatten().map(count).sum()
}

fn gauge(plugin: &PluginProcess, name: &str) -> u64 {
    AdminClient::of(plugin.locator()).number(name)
}

#[test]
fn cold_objects_leave_the_disk_by_themselves_and_come_back_when_they_are_opened() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = start(command(directory.path()));
    let mut client = client(&plugin);
    for number in 0..50 {
        store(&mut client, number).unwrap();
    }
    client.open(&id(7)).unwrap();
    while gauge(&plugin, "remote_objects") < 49 {
        std::thread::yield_now();
    }
    assert!(files_below(&directory.path().join("store/objects")) >= 49);
    assert_eq!(
        client.read_all(&id(7)).unwrap(),
        content(7),
        "it is open, and was here all the time"
    );
    for number in 0..50 {
        assert!(read(&mut client, number), "object {number}");
    }
}

#[test]
fn objects_in_memory_leave_it_by_themselves_and_outlive_the_process_in_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let command = || {
        command(directory.path())
            .option("CVMFS_CACHE_PLUGIN_HOT", "ram")
            .option("CVMFS_CACHE_PLUGIN_SIZE", "200")
            .option("CVMFS_CACHE_WORKSPACE", directory.path().display().to_string())
    };
    let plugin = start(command());
    let mut client = client(&plugin);
    for number in 0..20 {
        store(&mut client, number).unwrap();
    }
    while gauge(&plugin, "remote_objects") < 20 {
        std::thread::yield_now();
    }
    assert!(read(&mut client, 3));
    drop(client);
    drop(plugin);
    let plugin = start(command());
    let mut client = self::client(&plugin);
    for number in 0..20 {
        assert!(read(&mut client, number), "object {number}");
    }
}

#[test]
fn a_kill_at_any_time_loses_nothing_that_was_archived() {
    let directory = tempfile::tempdir().unwrap();
    let mut stored = 0;
    for round in 0..5u32 {
        let mut plugin = start(command(directory.path()));
        let pid = Pid::from_raw(plugin.pid().cast_signed()).unwrap();
        let mut client = client(&plugin);
        for number in stored..stored + 60 {
            store(&mut client, number).unwrap();
        }
        stored += 60;
        let enough = u64::from(round * 20 + 10u32);
        while gauge(&plugin, "uploads") < enough.min(60) {
            std::thread::yield_now();
        }
        kill_process(pid, Signal::KILL).unwrap();
        plugin.wait_for(Duration::from_secs(10)).unwrap();
    }
    let plugin = start(command(directory.path()));
    let mut client = self::client(&plugin);
    let remote = gauge(&plugin, "remote_objects");
    let back = (0..stored).filter(|&number| read(&mut client, number)).count() as u64;
    assert!(back >= remote, "{back} of {remote} came back");
    assert_eq!(gauge(&plugin, "error_objects"), 0);
}

#[test]
fn the_check_judges_store_and_cache() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let check = |store: &str| {
        let config = directory.path().join("tiered.conf");
        let locator = directory.path().join("socket");
        let text = format!(
            "CVMFS_CACHE_PLUGIN_LOCATOR=unix={}\nCVMFS_CACHE_DIR={}\n{store}\n",
            locator.display(),
            cache.display()
        );
        fs::write(&config, text).unwrap();
        let output = std::process::Command::new(PROGRAM).arg("--check").arg(&config).output();
        let output = output.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (status, text) = check("CVMFS_CACHE_PLUGIN_STORE=file:///tmp");
    assert_eq!(status, Some(0), "{text}");
    let (status, text) = check("");
    assert!(status == Some(1) && text.contains("CVMFS_CACHE_PLUGIN_STORE is missing"), "{text}");
    let (status, text) = check("CVMFS_CACHE_PLUGIN_STORE=tape://robot/7");
    assert!(status == Some(1) && text.contains("s3"), "{text}");
    let (status, text) = check("CVMFS_CACHE_PLUGIN_STORE=s3://a:hunter2@bucket");
    assert!(status == Some(1) && !text.contains("hunter2"), "{text}");
    assert!(!cache.exists(), "a check leaves nothing behind");
}
