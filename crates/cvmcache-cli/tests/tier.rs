//! `cvmcache tier` against plugins that run and caches of plugins that do not.
#![cfg(feature = "tier")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::OnceLock;

use cvmcache::Locator;
use cvmcache::client::{Client, NewUpload};
use cvmcache::plugin::ObjectId;
use cvmcache_testkit::{PluginCommand, PluginProcess};
use serde_json::{Value, json};
use support::shelf::id;
use support::terminal::Terminal;
use support::{cvmcache, start_ram};
use tempfile::TempDir;

/// The program of the tiered cache.
fn tiered() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let build = escargot::CargoBuild::new().package("cvmcache-tier").bin("cvmcache-tiered");
        build.run().expect("cargo builds it").path().to_owned()
    };
    PROGRAM.get_or_init(build).clone()
}

/// The directories of a tiered cache, and its configuration file.
struct Site {
    directory: TempDir,
    /// In addition to, or instead of, the usual ones.
    settings: Vec<(&'static str, String)>,
}

impl Site {
    fn new() -> Self {
        let site =
            Self { directory: tempfile::tempdir().expect("a directory"), settings: Vec::new() };
        fs::create_dir(site.store()).expect("a directory");
        site.configure(None);
        site
    }

    fn options(&self) -> BTreeMap<&'static str, String> {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let options = [
            ("CVMFS_CACHE_DIR", path("cache")),
            ("CVMFS_CACHE_QUOTA_LIMIT", "1000".to_owned()),
            ("CVMFS_CACHE_PLUGIN_SCRUB", "0".to_owned()),
            ("CVMFS_CACHE_PLUGIN_STORE", format!("file://{}", path("store"))),
            ("CVMFS_CACHE_PLUGIN_STORE_ARCHIVE_AFTER", "0".to_owned()),
            ("CVMFS_CACHE_PLUGIN_STORE_TIMEOUT", "200ms".to_owned()),
        ];
        options.into_iter().chain(self.settings.iter().cloned()).collect()
    }

    fn start(&self) -> PluginProcess {
        let mut command = PluginCommand::new(tiered());
        for (key, value) in self.options() {
            command = command.option(key, value);
        }
        let plugin = command.start().unwrap_or_else(|error| panic!("{error}"));
        self.configure(Some(plugin.locator()));
        plugin
    }

    /// Writes the configuration file of this plugin, or of one that does not run.
    fn configure(&self, locator: Option<&Locator>) {
        let nowhere = Locator::Unix(self.directory.path().join("socket"));
        let locator = format!("CVMFS_CACHE_PLUGIN_LOCATOR={}\n", locator.unwrap_or(&nowhere));
        let lines = self.options().into_iter().map(|(key, value)| format!("{key}={value}\n"));
        fs::write(self.conf(), lines.chain([locator]).collect::<String>()).expect("it is written");
    }

    fn conf(&self) -> PathBuf {
        self.directory.path().join("plugin.conf")
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// `cvmcache tier` with these arguments: exit status, output and errors.
    fn tier(&self, arguments: &[&str]) -> (i32, String, String) {
        let conf = self.conf().display().to_string();
        let arguments = [&["tier"], arguments, &["--config", conf.as_str()]].concat();
        let output = cvmcache(&arguments).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("a text");
        (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
    }

    /// What is printed if all is well.
    #[track_caller]
    fn good(&self, arguments: &[&str]) -> String {
        let (status, out, err) = self.tier(arguments);
        assert_eq!((status, err.as_str()), (0, ""), "{arguments:?}: {out}");
        out
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.good(&[arguments, &["--json"]].concat())).expect("JSON")
    }

    /// What is said if something is not well, with this exit status.
    #[track_caller]
    fn bad(&self, arguments: &[&str], status: i32) -> String {
        let (found, out, err) = self.tier(arguments);
        assert_eq!(found, status, "{arguments:?}: {out}{err}");
        err
    }
}

/// Stores objects of 1000 bytes, and closes them.
fn fill(plugin: &PluginProcess, objects: u32) {
    let mut client = Client::connect(plugin.locator(), "test.cern.ch:1").expect("it connects");
    for number in 0..objects {
        let id: ObjectId = id(number);
        let content = vec![u8::try_from(number % 251).expect("it fits"); 1000];
        client.store(NewUpload::new(id), content).expect("it is stored");
        client.close(&id).expect("it was open");
    }
    client.quit().expect("it works");
}

fn end(plugin: PluginProcess) {
    let status = plugin.end().expect("it ends").expect("in time");
    assert!(status.success(), "{status}");
}

/// A plugin that goes on, or has ended.
fn kept_if(runs: bool, plugin: PluginProcess) -> Option<PluginProcess> {
    if runs {
        return Some(plugin);
    }
    end(plugin);
    None
}

/// What each command prints, for a site with ten objects.
fn use_all_commands(site: &Site) {
    let status = site.json(&["status"]);
    assert_eq!(status["states"]["remote"], json!({"objects": 0, "bytes": 0}), "{status}");
    assert!(status["hot"]["used_bytes"].as_u64().expect("a number") >= 10_000, "{status}");

    let dry = site.good(&["archive", "--older-than", "0s", "--dry-run"]);
    assert_eq!(dry, "would archive up to 10 objects, 9.8 KiB\n");
    let dry = site.json(&["archive", "--older-than", "0s", "--dry-run"]);
    assert_eq!(dry, json!({"objects": 10, "bytes": 10_000}));
    let none = site.good(&["archive", "--older-than", "30d"]);
    assert_eq!(none, "archived 0 objects, 0 B\n");
    assert_eq!(site.good(&["archive", &id(3).to_string()]), "archived 1 object, 1000 B\n");
    let all = site.json(&["archive", "--older-than", "0s"]);
    assert_eq!((&all["done"], &all["failed"], &all["error"]), (&json!(9), &json!(0), &Value::Null));

    let shown = site.good(&["status"]);
    let has = |words: &[&str]| {
        shown
            .lines()
            .any(|line| line.split_whitespace().take(words.len()).eq(words.iter().copied()))
    };
    assert!(has(&["remote", "10", "9.8", "KiB"]) && has(&["error", "0", "0", "B"]), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");

    assert_eq!(site.good(&["recall", &id(3).to_string()]), "recalled 1 object, 1000 B\n");
    assert_eq!(site.json(&["recall", "--all"])["done"], json!(9));
    assert_eq!(site.good(&["scrub"]), "verified 10 objects, 9.8 KiB\n");
    assert_eq!(site.json(&["scrub", "--remote"])["done"], json!(20));
    assert_eq!(site.good(&["gc"]), "would free 0 objects, 0 B\n");
    assert_eq!(site.json(&["gc", "--delete", "--grace", "1h"])["done"], json!(0));
    let other = "0123456789abcdef0123456789abcdef";
    assert_eq!(site.good(&["gc", "--forget", other]), format!("forgot cache {other}\n"));
    assert_eq!(site.good(&["rebuild"]), "found again 0 objects, 0 B\n");

    let missing = id(99).to_string();
    let (status, out, err) = site.tier(&["recall", &missing, &id(1).to_string()]);
    assert_eq!(
        (status, out.as_str()),
        (1, "recalled 0 objects, 0 B, 1 left as they are, 1 failed\n")
    );
    assert!(err.contains(&missing) && err.contains("neither here nor in the store"), "{err}");
    let err = site.bad(&["gc", "--forget", "../x"], 1);
    assert!(err.contains("not the id of another cache"), "{err}");
}

#[test]
fn each_command_works_with_a_plugin_that_runs() {
    let site = Site::new();
    let plugin = site.start();
    fill(&plugin, 10);
    use_all_commands(&site);
    assert!(site.good(&["status"]).contains("the plugin runs"));
}

#[test]
fn each_command_works_with_the_cache_of_a_plugin_that_does_not_run() {
    let site = Site::new();
    let plugin = site.start();
    fill(&plugin, 10);
    end(plugin);
    use_all_commands(&site);
    assert!(site.good(&["status"]).contains("no plugin runs"));
}

#[test]
fn objects_of_a_cache_without_its_index_are_archived_too() {
    let site = Site::new();
    let plugin = site.start();
    fill(&plugin, 10);
    end(plugin);
    fs::remove_file(site.directory.path().join("cache/cvmcache-disk.redb")).unwrap();
    assert_eq!(site.json(&["archive", "--older-than", "0s", "--dry-run"])["objects"], json!(10));
    fs::remove_file(site.directory.path().join("cache/cvmcache-disk.redb")).unwrap();
    assert_eq!(site.json(&["archive", "--older-than", "0s"])["done"], json!(10));
}

#[test]
fn more_ids_than_a_request_has_room_for_are_sent_in_several() {
    let site = Site::new();
    let plugin = site.start();
    fill(&plugin, 2500);
    let ids: Vec<_> = (0..2500).map(|number| id(number).to_string()).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let archived = site.json(&[&["archive"], &ids[..]].concat());
    assert_eq!(archived["done"], json!(2500), "{archived}");
    let recalled = site.json(&[&["recall"], &ids[..]].concat());
    assert_eq!(recalled["done"], json!(2500), "{recalled}");
}

#[test]
fn arguments_that_are_not_understood_name_the_remedy() {
    let site = Site::new();
    for (arguments, remedy) in [
        (&["archive", "--older-than", "30"][..], "a number with its unit, as in 30d"),
        (&["gc", "--grace", "7"], "a number with its unit, as in 30d"),
        (&["archive"], "--older-than"),
        (&["archive", "--dry-run"], "--older-than"),
        (&["archive", "xyz"], "hexadecimal"),
        (&["recall"], "--all"),
        (&["recall", "--all", "da39a3ee5e6b4b0d3255bfef95601890afd80709"], "cannot be used with"),
        (&["gc", "--delete", "--forget", "x"], "cannot be used with"),
        (&["status", "all"], "unexpected argument"),
    ] {
        let err = site.bad(arguments, 2);
        assert!(err.contains(remedy), "{arguments:?}: {err}");
    }
    let all = cvmcache(&["tier", "status"]).assert().code(2).stdout_eq("");
    assert!(String::from_utf8_lossy(&all.get_output().stderr).contains("--config <CONF>"));
    let err = {
        fs::remove_file(site.conf()).unwrap();
        site.bad(&["status"], 2)
    };
    assert!(err.contains("plugin.conf"), "{err}");
}

#[test]
fn a_configuration_without_a_store_or_with_an_unknown_one_is_not_understood() {
    let site = Site::new();
    let conf = fs::read_to_string(site.conf()).unwrap();
    let without: String = conf
        .lines()
        .filter(|line| !line.contains("_STORE="))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(site.conf(), &without).unwrap();
    let err = site.bad(&["status"], 2);
    assert!(err.contains("CVMFS_CACHE_PLUGIN_STORE is missing"), "{err}");
    assert!(err.contains("add a line like CVMFS_CACHE_PLUGIN_STORE=s3://"), "{err}");
    fs::write(site.conf(), without + "CVMFS_CACHE_PLUGIN_STORE=ftp://x/y\n").unwrap();
    let err = site.bad(&["status"], 2);
    assert!(err.contains("ftp") && err.contains("s3"), "{err}");
    assert!(!site.directory.path().join("cache").exists(), "nothing was made");
    fs::write(site.conf(), conf + "CVMFS_CACHE_PLUGIN_LOCATOR=nowhere\n").unwrap();
    let err = site.bad(&["status"], 2);
    assert!(err.contains("CVMFS_CACHE_PLUGIN_LOCATOR"), "{err}");
}

#[test]
fn a_store_that_takes_nothing_fails_each_object_with_the_reason() {
    for runs in [true, false] {
        let site = Site::new();
        let plugin = site.start();
        fill(&plugin, 30);
        // Also root cannot make a directory of it.
        for entry in fs::read_dir(site.store()).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
        for name in ["objects", "caches"] {
            File::create(site.store().join(name)).unwrap();
        }
        let plugin = kept_if(runs, plugin);
        let (status, out, err) = site.tier(&["archive", "--older-than", "0s"]);
        assert_eq!(status, 1, "{out}{err}");
        assert!(out.starts_with("archived 0 objects, 0 B, 30 failed"), "{out}");
        assert!(err.contains("cannot archive object "), "{err}");
        assert_eq!(
            err.lines().filter(|line| line.starts_with("cannot archive")).count(),
            20,
            "{err}"
        );
        assert!(err.contains("\nand 10 more\n"), "{err}");
        assert_eq!(site.json(&["status"])["states"]["remote"]["objects"], json!(0));
        drop(plugin);
    }
}

#[test]
fn a_lost_object_makes_a_status_bad_and_a_scrub_finds_it() {
    let site = Site::new();
    let plugin = site.start();
    fill(&plugin, 3);
    site.good(&["archive", "--older-than", "0s"]);
    fs::remove_dir_all(site.store().join("objects")).unwrap();
    let err = site.bad(&["scrub", "--remote"], 1);
    assert_eq!(err.lines().count(), 3, "{err}");
    let (status, out, _) = site.tier(&["status"]);
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("objects are lost"), "{out}");
}

#[test]
fn markers_that_were_lost_are_found_again() {
    let site = Site::new();
    let plugin = site.start();
    fill(&plugin, 10);
    site.good(&["archive", "--older-than", "0s"]);
    end(plugin);
    fs::remove_file(site.directory.path().join("cache/cvmcache-tier.redb")).unwrap();
    assert_eq!(site.json(&["status"])["states"]["remote"]["objects"], json!(0));
    assert_eq!(site.good(&["rebuild"]), "found again 10 objects, 9.8 KiB\n");
    assert_eq!(site.json(&["status"])["states"]["remote"]["objects"], json!(10));
    // The cache of the lost markers is another one, with a list of its own.
    let freed = site.good(&["gc", "--grace", "1h"]);
    assert_eq!(freed, "would free 0 objects, 0 B\n");
}

#[test]
fn a_plugin_without_administration_socket_is_in_the_way_and_the_remedy_is_named() {
    let mut site = Site::new();
    site.settings = vec![("CVMFS_CACHE_PLUGIN_ADMIN", "no".to_owned())];
    let plugin = site.start();
    let err = site.bad(&["status"], 1);
    assert!(err.contains(&plugin.locator().to_string()), "{err}");
    assert!(err.contains("stop it and run this again"), "{err}");
    assert!(err.contains("CVMFS_CACHE_PLUGIN_ADMIN"), "{err}");
    let other = Locator::Unix(site.directory.path().join("socket"));
    site.configure(Some(&other));
    let err = site.bad(&["status"], 1);
    assert!(err.contains(&format!("process {}", plugin.pid())), "{err}");
}

#[test]
fn a_plugin_of_another_kind_is_told_apart() {
    let site = Site::new();
    let plugin = start_ram();
    site.configure(Some(plugin.locator()));
    let err = site.bad(&["status"], 2);
    assert!(err.contains("is no tiered cache"), "{err}");
}

#[test]
fn the_socket_of_a_plugin_that_was_killed_is_no_plugin() {
    let site = Site::new();
    let plugin = site.start();
    fill(&plugin, 1);
    let socket = site.directory.path().join("socket.admin");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    end(plugin);
    site.configure(None);
    assert!(socket.exists());
    assert!(site.good(&["status"]).contains("no plugin runs"));
}

#[test]
fn an_interrupt_stops_the_job_and_says_that_it_can_be_started_again() {
    // It accepts connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    for runs in [true, false] {
        let mut site = Site::new();
        let credentials = site.directory.path().join("credentials");
        let lines = "[default]\naws_access_key_id = a\naws_secret_access_key = hunter2\n";
        fs::write(&credentials, lines).unwrap();
        site.settings = vec![
            ("CVMFS_CACHE_PLUGIN_STORE", "s3://bucket/prefix".to_owned()),
            ("CVMFS_CACHE_PLUGIN_STORE_ENDPOINT", endpoint.clone()),
            ("CVMFS_CACHE_PLUGIN_STORE_CREDENTIALS", credentials.display().to_string()),
            ("CVMFS_CACHE_PLUGIN_STORE_TIMEOUT", "500ms".to_owned()),
        ];
        let plugin = site.start();
        fill(&plugin, 100);
        let plugin = kept_if(runs, plugin);
        let conf = site.conf().display().to_string();
        let arguments = ["tier", "archive", "--older-than", "0s", "--config", &conf];
        let mut terminal = Terminal::start(&arguments, (80, 24));
        terminal.wait_for("archive ");
        terminal.wait_for("/100");
        terminal.press("\x03");
        terminal.wait_for("stopping after what is under way");
        let status = terminal.wait_for_end();
        let shown = terminal.text();
        assert_eq!(status, 1, "{shown}");
        assert!(shown.contains("archive was stopped: the same command goes on"), "{shown}");
        assert!(shown.contains("archived 0 objects, 0 B"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        drop(plugin);
    }
}

#[test]
fn a_second_job_is_refused_while_one_runs() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut site = Site::new();
    site.settings = vec![
        ("CVMFS_CACHE_PLUGIN_STORE", format!("http://{}", silent.local_addr().unwrap())),
        ("CVMFS_CACHE_PLUGIN_STORE_TIMEOUT", "10s".to_owned()),
    ];
    let plugin = site.start();
    cvmcache(&["admin", &plugin.locator().to_string(), "rebuild"]).assert().success();
    let err = site.bad(&["scrub"], 1);
    assert!(err.contains("rebuild is running"), "{err}");
    assert!(err.contains("cvmcache admin with the command job"), "{err}");
    assert!(site.good(&["status"]).contains("rebuild is running"));
}
