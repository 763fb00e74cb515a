//! Callbacks with invalid results: clients get errors, and the plugin goes on.

use std::os::unix::process::ExitStatusExt;

use cvmcache::client::{Client, ClientError, NewUpload};
use cvmcache::plugin::{Breadcrumb, HashAlgorithm, ObjectId, ObjectType, Status};
use cvmcache_testkit::{PluginCommand, PluginProcess};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::install::{Library, program};
use crate::memory::{PATIENCE, under_valgrind};

fn id() -> ObjectId {
    "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33".parse().expect("an id")
}

fn start(odd: &str) -> PluginProcess {
    let command = PluginCommand::new(program("odd.c", Library::Shared));
    command.option("ODD", odd).start().expect("it starts")
}

fn connect(plugin: &PluginProcess) -> Client {
    let client = Client::builder().name("test.cern.ch:odd").timeout(PATIENCE);
    client.connect(plugin.locator()).expect("a session")
}

/// Asserts that it exits with status 0, after all its listings have ended.
#[track_caller]
fn ends_well(mut plugin: PluginProcess) {
    kill(Pid::from_raw(plugin.pid().cast_signed()), Signal::SIGTERM).expect("it runs");
    let ended = plugin.wait_for(PATIENCE).expect("a child").expect("it ends in time");
    assert_eq!(ended.code(), Some(0), "{ended}\n{}", plugin.log());
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T, ClientError>, status: Status) {
    let error = result.expect_err("an error");
    assert_eq!(error.status(), Some(status), "{error}");
}

/// One request of each kind, where each callback returns an undefined number.
fn ask_for_everything(client: &mut Client) {
    fails(client.open(&id()), Status::Unknown);
    fails(client.object_info(&id()), Status::Unknown);
    fails(client.read(&id(), 0, 3), Status::Unknown);
    fails(client.store(NewUpload::new(id()).description("odd"), "odd"), Status::Unknown);
    fails(client.info(), Status::Unknown);
    fails(client.shrink(0), Status::Unknown);
    fails(client.load_breadcrumb("test.cern.ch"), Status::Unknown);
    let breadcrumb = Breadcrumb { catalog: id(), timestamp: 1, revision: None };
    fails(client.store_breadcrumb("test.cern.ch", breadcrumb), Status::Unknown);
}

#[test]
fn an_undefined_status_is_an_unknown_error() {
    for odd in ["status", "negative-status"] {
        let plugin = start(odd);
        let mut client = connect(&plugin);
        ask_for_everything(&mut client);
        fails(client.list_part(0, ObjectType::Regular), Status::Unknown);
        client.quit().expect("it is connected");
    }
}

/// Values out of range, and the reply to each.
fn ask_for_values(client: &mut Client) {
    let info = client.object_info(&id()).expect("it is there");
    assert_eq!((info.size, info.object_type), (3, ObjectType::Regular));
    fails(client.read(&id(), 0, 3), Status::IoErr);
    client.store(NewUpload::new(id()).description("odd"), "odd").expect("it is stored");
    let info = client.info().expect("there is one");
    assert_eq!((info.size_bytes, info.shrink_count), (u64::MAX, None));
    fails(client.list(ObjectType::Regular), Status::IoErr);
    fails(client.load_breadcrumb("test.cern.ch"), Status::IoErr);
    assert_eq!(client.shrink(5).expect("it shrinks").used_bytes, u64::MAX);
}

#[test]
fn values_out_of_range_are_ioerr_or_left_out() {
    let plugin = start("values");
    let mut client = connect(&plugin);
    ask_for_values(&mut client);
    client.quit().expect("it is connected");
    ends_well(plugin);
}

#[test]
fn a_read_that_does_not_write_its_buffer_is_answered() {
    let plugin = start("untouched");
    let mut client = connect(&plugin);
    client.open(&id()).expect("it is there");
    assert_eq!(client.read(&id(), 0, 4096).expect("bytes").len(), 4096);
    client.quit().expect("it is connected");
    ends_well(plugin);
}

#[test]
fn a_read_that_does_not_write_its_buffer_shows_no_bytes_of_another_object() {
    const LEN: u32 = 128 * 1024;
    let plugin = start("untouched");
    let mut client = connect(&plugin);
    let other = ObjectId::new(HashAlgorithm::Sha1, [1; ObjectId::DIGEST_LEN]);
    for _ in 0..3 {
        assert_eq!(client.read(&other, 0, LEN).expect("bytes"), vec![b'x'; LEN as usize]);
        assert_eq!(client.read(&id(), 0, LEN).expect("bytes"), vec![0; LEN as usize]);
    }
    client.quit().expect("it is connected");
    ends_well(plugin);
}

#[test]
fn a_listing_without_an_end_comes_in_parts_and_ends_with_its_session() {
    let plugin = start("");
    let (mut first, mut second) = (connect(&plugin), connect(&plugin));
    let part = first.list_part(0, ObjectType::Regular).expect("a part");
    assert!(!part.last && !part.entries.is_empty());
    let next = first.list_part(part.listing, ObjectType::Regular).expect("another part");
    assert!(!next.last);
    assert_eq!(second.object_info(&id()).expect("it is there").size, 3);
    first.quit().expect("it is connected");
    ends_well(plugin);
}

#[test]
fn a_plugin_without_reference_counts_is_not_asked_to_read_an_object_it_lost() {
    let plugin = start("forgetful");
    let mut client = connect(&plugin);
    client.store(NewUpload::new(id()), "odd").expect("it is stored");
    fails(client.read(&id(), 0, 3), Status::NoEntry);
    client.quit().expect("it is connected");
    ends_well(plugin);
}

#[test]
fn a_callback_may_fork_and_wait_for_the_child() {
    let plugin = start("fork");
    let mut client = connect(&plugin);
    for _ in 0..3 {
        assert_eq!(client.object_info(&id()).expect("it is there").size, 3);
    }
    client.quit().expect("it is connected");
    ends_well(plugin);
}

#[test]
fn a_callback_may_end_the_context_that_calls_it() {
    let mut plugin = start("terminate");
    // The reply may come or not.
    let _ = connect(&plugin).object_info(&id());
    let ended = plugin.wait_for(PATIENCE).expect("a child").expect("it ends in time");
    assert_eq!(ended.code(), Some(0), "{ended}\n{}", plugin.log());
}

#[test]
fn a_context_that_comes_after_others_have_ended_is_logged_to_its_last_line() {
    let mut plugin = start("again");
    connect(&plugin).quit().expect("it is connected");
    kill(Pid::from_raw(plugin.pid().cast_signed()), Signal::SIGTERM).expect("it is there");
    let ended = plugin.wait_for(PATIENCE).expect("a child").expect("it ends in time");
    assert_eq!(ended.code(), Some(0), "{ended}\n{}", plugin.log());
    assert_eq!(plugin.log().matches("ending").count(), 2, "{}", plugin.log());
}

#[test]
fn waiting_for_termination_within_a_callback_fails_with_a_message() {
    let plugin = start("wait");
    let mut client = connect(&plugin);
    assert_eq!(client.object_info(&id()).expect("it is there").size, 3);
    let expected = "cvmcache_wait_for was called in a callback";
    assert!(plugin.log().contains(expected), "{}", plugin.log());
    client.quit().expect("it is connected");
    ends_well(plugin);
}

#[test]
fn a_callback_that_ends_its_thread_ends_the_process_with_a_message() {
    for library in [Library::Shared, Library::Static] {
        let command = PluginCommand::new(program("odd.c", library)).option("ODD", "thread");
        let mut plugin = command.start().expect("it starts");
        assert!(connect(&plugin).object_info(&id()).is_err());
        let ended = plugin.wait_for(PATIENCE).expect("a child").expect("it ends in time");
        assert_eq!(ended.signal(), Some(6), "{ended}");
        let expected = "libcvmfs_cache: the callback cvmcache_obj_info has thrown an exception, \
                        or ended its thread";
        assert!(plugin.log().contains(expected), "{}", plugin.log());
    }
}

#[test]
fn valgrind_finds_no_error_after_invalid_results_of_callbacks() {
    for (odd, ask) in
        [("status", ask_for_everything as fn(&mut Client)), ("values", ask_for_values)]
    {
        let (_turn, command) = under_valgrind("odd.c");
        let plugin = command.option("ODD", odd).start().expect("valgrind, and the plugin in it");
        let mut client = connect(&plugin);
        ask(&mut client);
        client.quit().expect("it is connected");
        ends_well(plugin);
    }
}
