//! The commands of the administration socket, each against a plugin of each kind, as processes.

mod support;

use cvmcache::client::{Client, NewUpload};
use cvmcache::plugin::ObjectId;
use cvmcache_testkit::{PluginCommand, PluginProcess};
use redis_test_servers::RedisServer;
use serde_json::Value;
use support::{c_plugin, cvmcache, example, program, ram};

/// What a command prints that succeeds.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = cvmcache(arguments).assert().success().stderr_eq("");
    String::from_utf8(output.get_output().stdout.clone()).expect("text")
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(arguments)).expect("JSON")
}

fn start(command: &PluginCommand) -> PluginProcess {
    command.start().unwrap_or_else(|error| panic!("{error}"))
}

/// Runs every command while a client has an object open, asked for one that is not there, and works on.
#[track_caller]
fn look_into(plugin: &PluginProcess) {
    let locator = plugin.locator().to_string();
    let mut client = Client::connect(plugin.locator(), "atlas.cern.ch:2").expect("a session");
    let [object, missing] = ["df773e9a5cb233e9b40854d423944d70a042bc5d", &"0".repeat(40)]
        .map(|id| id.parse::<ObjectId>().expect("an id"));
    client.store(NewUpload::new(object), vec![7; 1000]).expect("there is room");
    client.open(&object).expect("it is there");
    client.read(&object, 0, 1000).expect("it is open");
    client.open(&missing).expect_err("it is not there");

    let sessions = json(&["sessions", "--json", &locator]);
    let session = &sessions["sessions"][0];
    assert_eq!(session["repository"], "atlas.cern.ch", "{sessions}");
    assert_eq!(session["pid"], std::process::id(), "{sessions}");
    let count = |name: &str| session[name].as_u64();
    assert_eq!((count("hits"), count("misses")), (Some(1), Some(1)), "{sessions}");
    assert!(printed(&["sessions", &locator]).ends_with("1 session of 1 repository\n"));

    let statistics = json(&["stats", "--json", "--zero", &locator]);
    let since_start = &statistics["since_start"];
    assert_eq!(since_start["hits"], 1, "{statistics}");
    assert_eq!(since_start["read_bytes"], 1000, "{statistics}");
    assert_eq!(since_start["stored_objects"], 1, "{statistics}");
    assert_eq!(statistics["since_zero"]["requests"], 0, "{statistics}");
    assert!(printed(&["stats", &locator]).contains("\nhit ratio "));

    assert_eq!(printed(&["detach", &locator]), "1 session is asked\n");
    client.open(&object).expect("it is there");
    assert_eq!(client.detach_requests(), 1);

    let configuration = json(&["config", "--json", &locator]);
    let settings = configuration["settings"].as_array().expect("an array");
    let admin = settings.iter().find(|it| it["key"] == "CVMFS_CACHE_PLUGIN_ADMIN");
    let path = admin.and_then(|admin| admin["value"].as_str());
    assert!(path.is_some_and(|path| path.ends_with("socket.admin")), "{configuration}");
    assert!(printed(&["config", &locator]).contains("CVMFS_CACHE_PLUGIN_ADMIN"));

    assert_eq!(printed(&["log-level", &locator]), "info\n");
    assert_eq!(printed(&["log-level", &locator, "warn"]), "warn\n");
    assert_eq!(printed(&["log-level", &locator]), "warn\n");

    let report = json(&["admin", &locator, "report"]);
    let lines = report["report"].as_array().expect("an array");
    let is_of_session = |line: &&Value| line.as_str().is_some_and(|it| it.contains("atlas"));
    assert!(lines.iter().any(|line| is_of_session(&line)), "{report}");
    printed(&["info", &locator]);
    client.quit().expect("it is connected");
}

#[test]
fn all_commands_look_into_the_ram_cache() {
    let command = PluginCommand::new(ram()).option("CVMFS_CACHE_PLUGIN_SIZE", "100");
    for workers in ["0", "2"] {
        let plugin = start(&command.clone().option("CVMFS_CACHE_PLUGIN_WORKERS", workers));
        look_into(&plugin);
        let locator = plugin.locator().to_string();
        let settings = json(&["config", "--json", &locator]);
        assert!(settings["file"].is_string(), "{settings}");
        let statistics = json(&["stats", "--json", &locator]);
        assert_eq!(statistics["since_start"]["evicted_objects"], 0, "{statistics}");
        printed(&["admin", &locator, "shrink", "{\"bytes\": 0}"]);
        let statistics = json(&["stats", "--json", &locator]);
        for window in ["since_start", "since_zero", "last_minute"] {
            assert_eq!(statistics[window]["evicted_objects"], 1, "{statistics}");
            assert!(statistics[window]["evicted_bytes"].as_u64() >= Some(1000), "{statistics}");
        }
    }
}

#[test]
fn all_commands_look_into_the_redis_cache() {
    let server = RedisServer::start();
    let command = PluginCommand::new(program("cvmcache-redis"));
    let plugin = start(&command.option("CVMFS_CACHE_PLUGIN_REDIS_URL", server.url()));
    look_into(&plugin);
    let locator = plugin.locator().to_string();
    let statistics = json(&["stats", "--json", &locator]);
    assert_eq!(statistics["since_start"]["evicted_objects"], 0, "{statistics}");
    let configuration = json(&["config", "--json", &locator]);
    let settings = configuration["settings"].as_array().unwrap();
    let workers = settings.iter().find(|it| it["key"] == "CVMFS_CACHE_PLUGIN_WORKERS").unwrap();
    // How many it asks for is known while it runs, and `default` says it in words.
    assert!(workers["value"].as_str().unwrap().parse::<usize>().unwrap() > 0, "{workers}");
    assert_eq!(workers["default"], "what the plugin asks for, mostly 0");
}

#[test]
fn all_commands_look_into_the_lesson() {
    look_into(&start(&PluginCommand::new(example("null"))));
}

#[test]
fn all_commands_look_into_a_plugin_in_c() {
    let directory = tempfile::tempdir().unwrap();
    let store = c_plugin::compile("store.c", directory.path());
    let plugin = start(&PluginCommand::new(&store).option("ADMIN", "yes"));
    look_into(&plugin);
    let locator = plugin.locator().to_string();
    let statistics = json(&["stats", "--json", &locator]);
    assert!(statistics["since_start"]["evicted_objects"].is_null(), "{statistics}");
}

#[test]
fn a_plugin_in_c_that_asks_for_no_socket_is_looked_into_by_the_protocol() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = start(&PluginCommand::new(c_plugin::compile("store.c", directory.path())));
    let locator = plugin.locator().to_string();
    for command in ["sessions", "stats", "detach", "config", "log-level", "admin"] {
        let output = cvmcache(&[command, &locator]).assert().code(1).stdout_eq("");
        let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(said.contains(" has no administration socket: "), "{command}: {said}");
        assert!(said.contains("is the library of CernVM-FS"), "{command}: {said}");
    }
    assert!(!printed(&["info", &locator]).contains("hits"));
}
