//! What an administrator sees of the RAM cache, and has it do.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cvmcache::client::{Client, ClientError, NewUpload};
use cvmcache::plugin::{Breadcrumb, HashAlgorithm, ObjectId, ObjectType, Status};
use cvmcache_testkit::{AdminClient, PluginCommand, PluginProcess};

const MEGABYTE: u64 = 1024 * 1024;

fn command() -> PluginCommand {
    let command: PluginCommand =
        format!("{} {{conf}}", env!("CARGO_BIN_EXE_cvmcache-ram")).parse().expect("a command");
    command.option("CVMFS_CACHE_PLUGIN_SIZE", "100")
}

fn start(command: &PluginCommand) -> (PluginProcess, AdminClient, Client) {
    let plugin = command.start().expect("a plugin");
    let admin = AdminClient::of(plugin.locator());
    let client = Client::connect(plugin.locator(), "test.cern.ch:1").expect("a client");
    (plugin, admin, client)
}

fn id(number: u64) -> ObjectId {
    let mut digest = [0; ObjectId::DIGEST_LEN];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    ObjectId::new(HashAlgorithm::Sha1, digest)
}

fn store(client: &mut Client, number: u64, megabytes: u64) -> Result<(), ClientError> {
    client.store(NewUpload::new(id(number)), vec![7; (megabytes * MEGABYTE) as usize])
}

/// A part of an upload that is not the last one.
fn part(client: &Client) -> Vec<u8> {
    vec![7; client.max_object_size()]
}

#[test]
fn every_resource_has_the_fields_of_the_schema() {
    for workers in ["0", "2"] {
        let (_plugin, admin, mut client) =
            start(&command().option("CVMFS_CACHE_PLUGIN_WORKERS", workers));
        store(&mut client, 1, 1).unwrap();
        admin.check_schema();
        for resource in ["/v1/zero", "/v1/report"] {
            assert_eq!(admin.post(resource, "").unwrap().status, 200);
        }
        assert_eq!(admin.get("/v1/log-level").unwrap().body["level"], "info");
        let debug = admin.post("/v1/log-level", r#"{"level": "debug"}"#).unwrap();
        assert_eq!((debug.status, &debug.body["level"]), (200, &"debug".into()));
        admin.check_schema();
        let answer = admin.post("/v1/shrink", r#"{"bytes": 0}"#).unwrap();
        assert_eq!(answer.body["is_reached"], false, "it is open: {answer}");
        assert_eq!(admin.post("/v1/detach", "").unwrap().body["asked"], 1);
    }
}

#[test]
fn gauges_follow_what_clients_do() {
    let (_plugin, admin, mut client) = start(&command());
    assert_eq!(admin.number("objects"), 0);
    store(&mut client, 1, 1).unwrap();
    let volatile = NewUpload::new(id(2)).object_type(ObjectType::Volatile);
    client.store(volatile, vec![7; 1000]).unwrap();
    client.close(&id(2)).unwrap();
    let breadcrumb = Breadcrumb { catalog: id(1), timestamp: 1, revision: None };
    client.store_breadcrumb("test.cern.ch", breadcrumb).unwrap();
    let numbers = ["objects", "pinned_objects", "volatile_objects", "breadcrumbs", "upload_bytes"];
    assert_eq!(numbers.map(|name| admin.number(name)), [2, 1, 1, 1, 0]);
    assert!(admin.number("resident_bytes") >= MEGABYTE);
    assert!(admin.number("free_clean_bytes") > 90 * MEGABYTE);
    let part = part(&client);
    let mut upload = client.begin_upload(NewUpload::new(id(3)));
    upload.write(&mut client, part.clone()).unwrap();
    assert!(admin.number("upload_bytes") >= 128 * 1024);
    upload.abort(&mut client).unwrap();
    assert_eq!(admin.number("upload_bytes"), 0);
    let forgotten = admin.post("/v1/plugin/forget-breadcrumbs", "").unwrap();
    assert_eq!((forgotten.status, &forgotten.body["forgotten"]), (200, &1.into()));
    assert_eq!(admin.number("breadcrumbs"), 0);
}

/// How long the I/O thread of a plugin has run (/proc/PID/schedstat in the kernel's sched-stats).
fn io_thread_time(plugin: &PluginProcess) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", plugin.pid())).expect("a process");
    let read = |path: &Path, name: &str| fs::read_to_string(path.join(name)).expect("a thread");
    let mut paths = tasks.map(|task| task.expect("a thread").path());
    let io = paths.find(|path| read(path, "comm") == "io\n").expect("it has an I/O thread");
    let nanoseconds = read(&io, "schedstat").split(' ').next().map(str::parse);
    Duration::from_nanos(nanoseconds.expect("a number").expect("a number"))
}

#[test]
fn a_scrape_of_a_thousand_sessions_takes_next_to_no_time_of_the_io_thread() {
    const SCRAPES: u32 = 100;
    // The goal is for what is asked in one go: sessions and statistics.
    const GOAL: Duration = Duration::from_micros(200);
    let (plugin, admin, _client) = start(&command().option("CVMFS_CACHE_PLUGIN_POLL", "0"));
    let connect = |n| Client::connect(plugin.locator(), format!("test.cern.ch:{n}")).unwrap();
    let _idle: Vec<_> = (0..999).map(connect).collect();
    let before = io_thread_time(&plugin);
    for _ in 0..SCRAPES {
        let sessions = admin.get("/v1/sessions").unwrap().body;
        assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1000);
        assert_eq!(admin.get("/v1/statistics").unwrap().status, 200);
    }
    let taken = (io_thread_time(&plugin) - before) / SCRAPES;
    println!("a scrape takes {taken:?} of the I/O thread");
    assert!(taken < GOAL, "{taken:?}");
}

#[test]
fn evictions_and_refusals_are_counted_without_metrics() {
    let (_plugin, admin, mut client) = start(&command());
    for number in 0..30 {
        store(&mut client, number, 8).unwrap();
        client.close(&id(number)).unwrap();
    }
    let evicted = admin.number("evicted_objects");
    assert!((18..30).contains(&evicted), "{evicted}");
    assert_eq!(evicted + admin.number("objects"), 30);
    assert!(admin.number("evicted_bytes") >= evicted * 8 * MEGABYTE);
    assert!(admin.number("clean_ups") > 0);
    assert_eq!(admin.number("refused_uploads"), 0);
    let refused = (100..115).filter(|&number| {
        let stored = store(&mut client, number, 8);
        stored.is_err_and(|error| error.status() == Some(Status::NoSpace))
    });
    let refused = refused.count() as u64;
    assert!(refused > 0);
    assert_eq!(admin.number("refused_uploads"), refused);
}

#[test]
fn a_trim_gives_memory_back_that_no_object_is_in() {
    let (_plugin, admin, mut client) = start(&command());
    for number in 0..20 {
        store(&mut client, number, 4).unwrap();
    }
    // Uploads that were given up leave their pages behind.
    let part = part(&client);
    let mut upload = client.begin_upload(NewUpload::new(id(99)));
    (0..32).for_each(|_| upload.write(&mut client, part.clone()).unwrap());
    upload.abort(&mut client).unwrap();
    let resident = admin.number("resident_bytes");
    assert!(resident > 80 * MEGABYTE, "{resident}");
    let wrong = admin.post("/v1/plugin/trim", r#"{"bytes": 7}"#).unwrap();
    assert_eq!(wrong.status, 400, "{wrong}");
    let answer = admin.post("/v1/plugin/trim", "").unwrap();
    assert_eq!(answer.status, 200, "{answer}");
    let left = answer.body["resident_bytes"].as_u64().unwrap();
    assert_eq!(answer.body["given_back_bytes"].as_u64(), Some(resident - left), "{answer}");
    assert_eq!(admin.number("resident_bytes"), left);
    assert!(left < resident && admin.number("free_dirty_bytes") < 64 * 1024);
}

#[test]
fn an_unknown_command_is_no_resource() {
    let (_plugin, admin, _client) = start(&command());
    assert_eq!(admin.post("/v1/plugin/explode", "").unwrap().status, 404);
    assert_eq!(admin.get("/v1/plugin/trim").unwrap().status, 405);
}

/// What curl gets as this user, or as the test's own.
fn curl(admin: &AdminClient, user: Option<u32>) -> String {
    let mut command = match user {
        None => Command::new("curl"),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args(["--clear-groups", &format!("--reuid={user}"), "curl"]);
            command
        }
    };
    command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"]);
    let output = command.arg(admin.path()).arg("http://plugin/v1/sessions").output();
    let output = output.expect("the Debian packages curl and util-linux are installed");
    String::from_utf8(output.stdout).expect("a number")
}

#[test]
fn another_user_is_refused_whatever_the_modes_of_files_say() {
    let (plugin, admin, _client) =
        start(&command().option("CVMFS_CACHE_PLUGIN_ALLOW_USERS", "58500"));
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(admin.path()), 0o600);
    assert_eq!(curl(&admin, None), "200");
    // Without root, there is no other user to be.
    if is_root() {
        let directory = admin.path().parent().expect("a directory");
        fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(curl(&admin, Some(58_500)), "000");
        fs::set_permissions(admin.path(), Permissions::from_mode(0o666)).unwrap();
        assert_eq!(curl(&admin, Some(58_500)), "000");
        assert_eq!(curl(&admin, None), "200");
    }
    drop(plugin);
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("a process").uid() == 0
}
