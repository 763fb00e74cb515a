//! The administration socket of plugins in C: only if it is asked for, and with callbacks on the threads that
//! call them anyway, which `store.c` checks in each.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use cvmcache::client::{Client, NewUpload};
use cvmcache::plugin::ObjectId;
use cvmcache_testkit::{AdminClient, PluginCommand, PluginProcess};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::install::{Library, program};

const LIMIT: Duration = Duration::from_secs(30);

fn id() -> ObjectId {
    "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33".parse().expect("an id")
}

fn connect(plugin: &PluginProcess) -> Client {
    let client = Client::builder().name("test.cern.ch:admin").timeout(LIMIT);
    client.connect(plugin.locator()).expect("a session")
}

/// A plugin that gets this environment.
fn with_environment(source: &str, variables: &str) -> PluginCommand {
    let path = program(source, Library::Shared).display().to_string();
    format!("env {variables} {path} {{conf}}").parse().expect("a command")
}

fn has_admin_threads(plugin: &PluginProcess) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", plugin.pid())).expect("a process");
    let mut names =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.any(|name| name.starts_with("admin"))
}

/// Asserts that it exits with status 0, after everything that it has begun has ended.
#[track_caller]
fn ends_well(mut plugin: PluginProcess, admin: &AdminClient) {
    kill(Pid::from_raw(plugin.pid().cast_signed()), Signal::SIGTERM).expect("it runs");
    let ended = plugin.wait_for(LIMIT).expect("a child").expect("it ends in time");
    assert_eq!(ended.code(), Some(0), "{ended}\n{}", plugin.log());
    assert!(!admin.path().exists(), "its socket is left");
}

/// Everything that can be asked, while a client works.
fn ask_for_everything(admin: &AdminClient, client: &mut Client) {
    client.store(NewUpload::new(id()), "abc").expect("it is stored");
    for _ in 0..20 {
        admin.check_schema();
        assert_eq!(client.read(&id(), 0, 3).expect("it is there"), "abc");
    }
    let ask = |resource: &str, body: &str| admin.post(resource, body).expect("an answer");
    let kept = ask("/v1/shrink", r#"{"bytes": 0}"#);
    assert_eq!((kept.status, &kept.body["used_bytes"]), (200, &3.into()), "it is open");
    client.close(&id()).expect("it is open");
    assert_eq!(ask("/v1/shrink", r#"{"bytes": 0}"#).body["used_bytes"], 0);
    assert_eq!(ask("/v1/detach", "").body["asked"], 1);
    for resource in ["/v1/report", "/v1/zero"] {
        assert_eq!(ask(resource, "").status, 200);
    }
    assert_eq!(ask("/v1/log-level", r#"{"level": "debug"}"#).body["level"], "debug");
    assert_eq!(admin.get("/v1/log-level").expect("an answer").body["level"], "debug");
    assert_eq!(ask("/v1/plugin/trim", "").status, 404);
    let statistics = admin.get("/v1/statistics").expect("an answer").body;
    assert_eq!(statistics["cache"]["used_bytes"], 0, "{statistics}");
}

#[test]
fn a_plugin_that_asks_for_a_socket_has_all_resources_on_the_threads_that_it_had() {
    for library in [Library::Shared, Library::Static] {
        let command = PluginCommand::new(program("store.c", library)).option("ADMIN", "yes");
        let plugin = command.start().unwrap();
        let (admin, mut client) = (AdminClient::of(plugin.locator()), connect(&plugin));
        ask_for_everything(&admin, &mut client);
        client.quit().unwrap();
        ends_well(plugin, &admin);
    }
}

#[test]
fn a_plugin_that_does_not_ask_has_no_such_file_and_no_such_thread() {
    for command in [
        PluginCommand::new(program("store.c", Library::Shared)),
        with_environment("store.c", "CVMFS_CACHE_PLUGIN_ADMIN=no").option("ADMIN", "yes"),
        with_environment("store.c", "CVMFS_CACHE_PLUGIN_ADMIN=relative"),
    ] {
        let plugin = command.start().unwrap();
        let admin = AdminClient::of(plugin.locator());
        assert!(!admin.path().exists() && !has_admin_threads(&plugin));
        assert!(admin.get("/v1").is_err());
        connect(&plugin).quit().unwrap();
        ends_well(plugin, &admin);
    }
}

#[test]
fn the_plugin_or_the_environment_says_where_the_socket_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { directory.path().join(name) };
    let (own, theirs) = (path("own"), path("theirs"));
    let plugin = PluginCommand::new(program("store.c", Library::Shared))
        .option("ADMIN", own.display().to_string())
        .tcp()
        .start()
        .unwrap();
    let admin = AdminClient::at(&own);
    admin.check_schema();
    ends_well(plugin, &admin);
    let variable = format!("CVMFS_CACHE_PLUGIN_ADMIN={}", theirs.display());
    let command = with_environment("store.c", &variable);
    let plugin = command.option("ADMIN", own.display().to_string()).start().unwrap();
    let admin = AdminClient::at(&theirs);
    admin.check_schema();
    assert!(!own.exists());
    let settings = admin.get("/v1/configuration").unwrap().body["settings"].clone();
    let of_admin = settings.as_array().unwrap().iter().find(|it| it["value"] == variable[25..]);
    assert_eq!(of_admin.expect("it is told")["source"], "environment");
    ends_well(plugin, &admin);
}

#[test]
fn a_plugin_with_workers_has_the_socket_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin");
    let variable = format!("CVMFS_CACHE_PLUGIN_ADMIN={}", path.display());
    let command = with_environment("rendezvous.c", &variable);
    let plugin = command.option("PATIENCE", "30").option("ALLOW", "yes").start().unwrap();
    let admin = AdminClient::at(path);
    admin.check_schema();
    // A worker waits in a callback, and the other one is there for the administrator.
    std::thread::scope(|scope| {
        let call = || connect(&plugin).object_info(&id()).is_ok();
        let first = scope.spawn(call);
        admin.check_schema();
        assert!(call() && first.join().unwrap());
    });
}
