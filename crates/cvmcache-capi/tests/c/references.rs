//! Plugins that are told of references without declaring that they count them, as `cvmcache_chrefcnt` is
//! called in the library of CernVM-FS: they open a file with its object, and close it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cvmcache::client::{Client, NewUpload};
use cvmcache::plugin::{HashAlgorithm, ObjectId, Status};
use cvmcache_testkit::{PluginCommand, PluginProcess};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::install::{Library, program};

const LIMIT: Duration = Duration::from_secs(30);

fn id(byte: u8) -> ObjectId {
    ObjectId::new(HashAlgorithm::Sha1, [byte; ObjectId::DIGEST_LEN])
}

fn start(store: &Path) -> PluginCommand {
    let command = PluginCommand::new(program("opener.c", Library::Shared));
    command.option("STORE", store.to_str().expect("a path"))
}

fn connect(plugin: &PluginProcess, name: &'static str) -> Client {
    Client::builder().name(name).timeout(LIMIT).connect(plugin.locator()).expect("a session")
}

/// The files of the store that the plugin has open.
fn open_files(plugin: &PluginProcess, store: &Path) -> Vec<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", plugin.pid())).expect("it runs");
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(store)).collect()
}

/// That it ends, and had no object open.
#[track_caller]
fn ends_well(mut plugin: PluginProcess) {
    kill(Pid::from_raw(plugin.pid().cast_signed()), Signal::SIGTERM).expect("it runs");
    let ended = plugin.wait_for(LIMIT).expect("a child").expect("it ends in time");
    assert_eq!(ended.code(), Some(0), "{ended}\n{}", plugin.log());
}

#[test]
fn a_plugin_that_declares_only_write_opens_and_closes_files_with_their_objects() {
    let store = tempfile::tempdir().unwrap();
    let plugin = start(store.path()).start().unwrap();
    let mut client = connect(&plugin, "test.cern.ch:1");
    client.store(NewUpload::new(id(1)), "abc").unwrap();
    assert_eq!(open_files(&plugin, store.path()).len(), 1, "the reference of the commit");
    client.close(&id(1)).unwrap();
    assert_eq!(open_files(&plugin, store.path()).len(), 0);
    for _ in 0..3 {
        client.open(&id(1)).unwrap();
        assert_eq!(client.read(&id(1), 0, 10).unwrap(), "abc");
        client.close(&id(1)).unwrap();
    }
    assert_eq!(open_files(&plugin, store.path()).len(), 0);
    client.quit().unwrap();
    ends_well(plugin);

    // What it knows of its objects is gone with the process; their files are not.
    let plugin = start(store.path()).start().unwrap();
    let mut client = connect(&plugin, "test.cern.ch:1");
    assert!(client.exists(&id(1)).unwrap() && !client.exists(&id(2)).unwrap());
    client.open(&id(1)).unwrap();
    assert_eq!(client.object_info(&id(1)).unwrap().size, 3);
    assert_eq!(client.read(&id(1), 0, 10).unwrap(), "abc");
    client.close(&id(1)).unwrap();
    client.quit().unwrap();
    ends_well(plugin);
}

#[test]
fn a_plugin_that_declares_nothing_opens_and_closes_files_with_their_objects() {
    let store = tempfile::tempdir().unwrap();
    fs::write(store.path().join(id(1).to_string()), "abc").unwrap();
    let plugin = start(store.path()).option("READ_ONLY", "yes").start().unwrap();
    let mut client = connect(&plugin, "test.cern.ch:1");
    assert_eq!(client.open(&id(2)).unwrap_err().status(), Some(Status::NoEntry));
    client.open(&id(1)).unwrap();
    // It may lose an object that is open, and still reads from its descriptor.
    fs::remove_file(store.path().join(id(1).to_string())).unwrap();
    assert_eq!(client.read(&id(1), 1, 10).unwrap(), "bc");
    assert_eq!(open_files(&plugin, store.path()).len(), 1);
    client.close(&id(1)).unwrap();
    assert_eq!(client.open(&id(1)).unwrap_err().status(), Some(Status::NoEntry));
    client.quit().unwrap();
    ends_well(plugin);
}

#[test]
fn the_files_of_clients_that_are_gone_are_closed_and_those_of_others_stay_open() {
    let store = tempfile::tempdir().unwrap();
    let plugin = start(store.path()).start().unwrap();
    let (mut first, mut second) =
        (connect(&plugin, "test.cern.ch:1"), connect(&plugin, "test.cern.ch:2"));
    first.store(NewUpload::new(id(1)), "abc").unwrap();
    first.store(NewUpload::new(id(2)), "abc").unwrap();
    second.open(&id(1)).unwrap();
    // It has no reference to give back, and closes no file of another one.
    assert_eq!(second.close(&id(2)).unwrap_err().status(), Some(Status::BadCount));
    drop(first);
    let mut waits = 0;
    while open_files(&plugin, store.path()).len() > 1 {
        second.info().unwrap_err();
        waits += 1;
        assert!(waits < 10_000, "the files of a client that is gone stay open");
    }
    assert_eq!(second.read(&id(1), 0, 10).unwrap(), "abc");
    let reload = second.announce_reload().unwrap();
    let mut second = Client::finish_reload(reload).unwrap();
    assert_eq!(second.read(&id(1), 0, 10).unwrap(), "abc");
    second.close(&id(1)).unwrap();
    assert_eq!(open_files(&plugin, store.path()).len(), 0);
    second.quit().unwrap();
    ends_well(plugin);
}
