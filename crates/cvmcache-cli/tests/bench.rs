//! `cvmcache bench`, as its users see it. No test depends on a speed.

mod support;

use std::fs;

use bytes::Bytes;
use cvmcache::plugin::{Capabilities, Data, ObjectId, ObjectInfo, PluginResult, Status};
use cvmcache::{CachePlugin, Locator, RunningServer, Server, Session};
use serde_json::Value;
use snapbox::cmd::Command;
use snapbox::str;
use support::{cvmcache, ram, start_ram};
use tempfile::TempDir;

/// `cvmcache bench` with these arguments, for a moment.
fn bench(arguments: &[&str]) -> Command {
    cvmcache(&["bench", "--duration", "0.05", "--rounds", "2"]).args(arguments)
}

/// The command that starts a RAM cache.
fn ram_command() -> String {
    format!("'{}' {{conf}}", ram().display())
}

/// The same against a RAM cache of 100 MB that is started for it.
fn bench_ram(arguments: &[&str]) -> Command {
    let size = "CVMFS_CACHE_PLUGIN_SIZE=100";
    bench(&["--spawn", &ram_command(), "--set", size]).args(arguments)
}

/// What it prints with `--json`.
fn json(command: Command) -> Value {
    let output = command.arg("--json").assert().success().stderr_eq("").get_output().stdout.clone();
    serde_json::from_slice(&output).expect("it is JSON")
}

/// A plugin that holds nothing and takes nothing.
struct Useless;

impl CachePlugin for Useless {
    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
        Err(Status::NoEntry)
    }

    fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
        Ok(Bytes::new().into())
    }
}

fn serve_useless() -> (Locator, RunningServer, TempDir) {
    let directory = tempfile::tempdir().expect("there is room");
    let locator = Locator::Unix(directory.path().join("socket"));
    let server = Server::builder(Useless).listen(&locator).expect("the socket is free");
    (locator, server.spawn().expect("there are threads"), directory)
}

#[test]
fn a_benchmark_prints_throughput_latency_and_cost() {
    bench_ram(&["ping", "read"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
cvmcache ram at unix=[..]/socket, process [..], 100.0 MiB
1 connection, 1 request in flight on each, 2 rounds of 0.025 s

workload  on [..] ops/s [..] requests/s [..] MiB/s [..] p50 [..] p99 [..] p99.9 [..] max
ping      cvmcache ram [..] - [..]s [..]s [..]s [..]s
read      cvmcache ram [..]s [..]s [..]s [..]s

workload  on            CPU per million [..] memory [..] at most [..] of size  hits  evicted
ping      cvmcache ram [..]s [..]iB [..]iB [..]%     -        -
read      cvmcache ram [..]s [..]iB [..]iB [..]%     -        -

"#]]);
}

#[test]
fn every_workload_runs_with_many_requests_in_flight() {
    let all = ["ping", "stat", "read", "store", "mixed", "churn"];
    let shape = ["--connections", "2", "--in-flight", "3", "--idle", "4", "--working-set", "0.5"];
    let report = json(bench_ram(&all).args(shape));
    assert_eq!(report["settings"]["in_flight"], 3);
    assert_eq!(report["settings"]["idle_connections"], 4);
    assert_eq!(report["plugins"][0]["size_bytes"], 100 << 20);
    let workloads = report["workloads"].as_array().unwrap();
    let names: Vec<_> = workloads.iter().map(|workload| &workload["workload"]).collect();
    assert_eq!(names, all);
    for workload in workloads {
        let result = &workload["results"][0];
        assert!(result["ops"].as_u64().unwrap() > 0, "{workload}");
        assert!(result["latency_ns"]["p50"].as_u64().unwrap() > 0, "{workload}");
        assert!(result["cpu_seconds_per_million_requests"].is_f64(), "{workload}");
        assert!(result["memory"]["peak_bytes"].as_u64().unwrap() > 0, "{workload}");
        assert_eq!(result["rounds"].as_array().unwrap().len(), 2);
    }
    let churn = &workloads[5]["results"][0];
    assert!(churn["hit_ratio"].as_f64().unwrap() > 0.0, "{churn}");
    assert!(churn["evicted_bytes"].is_u64(), "{churn}");
}

#[test]
fn without_workloads_the_default_ones_are_measured() {
    let names = |report: &Value| -> Vec<String> {
        let workloads = report["workloads"].as_array().unwrap().iter();
        workloads.map(|workload| workload["workload"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&json(bench_ram(&[]))), ["ping", "stat", "read", "store", "mixed"]);
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    let report = json(bench(&[&locator]));
    assert_eq!(names(&report), ["ping", "stat", "read", "mixed"], "none of them evicts");
}

#[test]
fn the_limit_is_measured_on_a_bare_socket() {
    bench_ram(&["--limit", "ping"]).assert().success().stdout_eq(str![[r#"
...
ping      cvmcache ram [..]
          raw socket   [..]

workload  ratio of [..]
ping      cvmcache ram to raw socket  [..] ([..] to [..]) [..] ([..] to [..]) [..] ([..] to [..])
medians of rounds side by side, and from the least to the most
...
"#]]);
    let all = ["--tcp", "--limit", "store", "mixed", "churn"];
    for workload in json(bench_ram(&all))["workloads"].as_array().unwrap() {
        assert_eq!(workload["results"][1]["candidate"], "raw socket");
        assert!(workload["results"][1]["ops"].as_u64().unwrap() > 0, "{workload}");
        // Whether anything is hit in a moment is chance.
        if workload["workload"] != "churn" {
            assert_eq!(workload["ratios"][0]["p50"]["pairs"].as_array().unwrap().len(), 2);
        }
    }
}

#[test]
fn a_mount_is_played_in_whole_passes() {
    bench_ram(&["mount"]).assert().success().stdout_eq(str![[r#"
...
workload  on            files  requests  a pass takes  [..]CPU  switches
mount     cvmcache ram [..]s [..]s [..]
...
"#]]);
    let vs = ["--vs-spawn", &ram_command(), "--connections", "2", "mount", "mount-4"];
    for workload in json(bench_ram(&vs))["workloads"].as_array().unwrap() {
        for result in workload["results"].as_array().unwrap() {
            let pass = &result["pass"];
            let [files, requests] = ["files", "requests"].map(|key| pass[key].as_u64().unwrap());
            assert!(files > 500 && requests > 3 * files, "{workload}");
            assert_eq!(result["ops"].as_u64().unwrap(), 2 * files, "two rounds");
            assert!(pass["seconds"].as_f64().unwrap() > 0.0, "{workload}");
            assert!(pass["cpu_seconds"].as_f64().unwrap() > 0.0, "{workload}");
            assert!(pass["context_switches"].as_u64().unwrap() > 0, "{workload}");
        }
        let passes = workload["results"].as_array().unwrap().iter().map(|r| &r["pass"]["requests"]);
        assert_eq!(passes.clone().min_by_key(|n| n.as_u64()), passes.max_by_key(|n| n.as_u64()));
    }
}

#[test]
fn a_mount_is_measured_without_a_raw_socket() {
    bench_ram(&["--limit", "mount"]).assert().success().stdout_eq(str![[r#"
...
mount is measured without a raw socket
...
"#]]);
}

#[test]
fn a_plugin_is_compared_with_itself_without_idle_sessions() {
    bench_ram(&["--idle", "3", "--vs-no-idle", "ping"]).assert().success().stdout_eq(str![[r#"
...
ping      cvmcache ram to cvmcache ram without idle [..]
...
"#]]);
    bench_ram(&["--vs-no-idle", "ping"]).assert().code(2).stderr_eq(str![[r#"
...
  --idle <N>
...
"#]]);
}

#[test]
fn objects_are_stored_before_a_workload_reads_them() {
    let many = ["--objects", "3000", "--object-size", "64", "stat", "read"];
    let report = json(bench_ram(&many));
    for workload in report["workloads"].as_array().unwrap() {
        assert!(workload["results"][0]["ops"].as_u64().unwrap() > 0, "{workload}");
    }
    bench_ram(&["--objects", "3000", "stat"]).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
cvmcache: 3000 objects of 128.0 KiB are too many for cvmcache ram, which has room for 100.0 MiB: take fewer --objects, a smaller --object-size, or a larger cache

"#]]);
}

#[test]
fn two_plugins_are_measured_in_interleaved_rounds() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    bench(&[&locator, "--vs", &locator, "stat"]).assert().success().stdout_eq(str![[r#"
cvmcache ram at unix=[..]/socket, process [..], 100.0 MiB
cvmcache ram (2) at unix=[..]/socket, process [..], 100.0 MiB
...
stat      cvmcache ram      [..]
          cvmcache ram (2)  [..]
...
stat      cvmcache ram to cvmcache ram (2)  [..] ([..] to [..]) [..]
...
"#]]);
    let report = json(bench(&[&locator, "--vs-spawn", &ram_command(), "--tcp", "ping"]));
    assert!(report["plugins"][1]["locator"].as_str().unwrap().starts_with("tcp=127.0.0.1:"));
    assert!(report["plugins"][1]["pid"].is_u64(), "it was started here");
    assert_eq!(report["workloads"][0]["ratios"][0]["of"], "cvmcache ram");
}

#[test]
fn list_prints_the_workloads() {
    cvmcache(&["bench", "--list"]).assert().success().stdout_eq(str![[r#"
ping    Ask whether an object is there that is not: the smallest request
stat    Ask for the size of one of a few open objects
read    Read 128 KiB of one of a few open objects
store   Store an object of 4 MiB and close it; what does not fit is evicted
mixed   Open, stat, read and close files as large as those of a software repository
mount   Play a mount whose files are read one after the other, with the client's work in between
mount-4 The same with four threads that share the connection of the mount
churn   Use a working set larger than the cache: what is missing is stored

"#]]);
    let list = json(cvmcache(&["bench", "--list"]));
    assert_eq!(list[7]["name"], "churn");
    assert_eq!(list[7]["evicts"], true);
}

#[test]
fn plot_writes_an_svg() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plot.svg");
    let path = path.to_str().unwrap();
    bench_ram(&["--plot", path, "--limit", "ping", "read"]).assert().success();
    let picture = fs::read_to_string(path).unwrap();
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
    for text in ["cvmcache ram", "raw socket", "ping", "read", "99.9 %", "ops/s", "MiB/s"] {
        assert!(picture.contains(text), "{text}");
    }
    let nowhere = format!("{path}/nowhere.svg");
    bench_ram(&["--plot", &nowhere, "ping"]).assert().code(1).stderr_eq(str![[r#"
cvmcache: cannot write "[..]/plot.svg/nowhere.svg": Not a directory (os error 20); name a file in a directory that you can write to

"#]]);
}

#[test]
fn objects_of_other_clients_are_evicted_only_with_the_option() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    for workload in ["store", "churn"] {
        let error = format!(
            "cvmcache: {workload} fills the cache, and so evicts what other clients have stored: add \
             --evict to allow that, or measure a plugin of your own with --spawn CMD\n"
        );
        bench(&[&locator, workload]).assert().code(2).stdout_eq("").stderr_eq(error);
    }
    bench(&[&locator, "--evict", "store"]).assert().success();
}

#[test]
fn a_benchmark_closes_its_objects() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    bench(&[&locator, "--evict", "read", "mixed", "mount-4", "store", "churn"]).assert().success();
    let mut client = cvmcache::client::Client::connect(plugin.locator(), "test").unwrap();
    assert_eq!(client.info().unwrap().pinned_bytes, 0);
    assert_eq!(client.shrink(0).unwrap().used_bytes, 0);
}

#[test]
fn a_plugin_without_write_is_measured_with_ping() {
    let (locator, running, _directory) = serve_useless();
    let locator = locator.to_string();
    bench(&[&locator, "read"]).assert().code(1).stderr_eq(str![[r#"
cvmcache: read needs what [..] cannot do (write): leave it out; ping works with every plugin

"#]]);
    bench(&[&locator]).assert().success().stdout_eq(str![[r#"
...
stat was left out: [..] cannot do write
read was left out: [..] cannot do write
mixed was left out: [..] cannot do write
...
ping [..]
...
"#]]);
    running.handle().terminate();
    running.wait().unwrap();
}

#[test]
fn a_locator_without_a_listener_is_an_error_with_a_remedy() {
    bench(&["unix=/nowhere"]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
cvmcache: cannot connect to unix=/nowhere: /nowhere does not exist, so no plugin runs there: start the plugin, or compare the locator with CVMFS_CACHE_PLUGIN_LOCATOR in its configuration

"#]]);
}

#[test]
fn a_plugin_that_dies_is_an_error_that_names_the_workload() {
    // It serves for a moment, and ends during the measurement.
    let command = format!("sh -c \"{} {{conf}} & sleep 0.5; kill -9 $!; wait\"", ram().display());
    let command = command.replace("$!", "\\$!");
    let assert = cvmcache(&["bench", "--duration", "20", "--spawn", &command, "ping"]).assert();
    assert.code(1).stdout_eq("").stderr_eq(str![[r#"
cvmcache: ping on cvmcache ram: the plugin closed the connection; its log or crash dump may tell why[..]
...
"#]]);
}

#[test]
fn objects_larger_than_the_cache_are_an_error() {
    bench_ram(&["--object-size", "200M", "store"]).assert().code(2).stderr_eq(str![[r#"
cvmcache: objects of 200.0 MiB are too large for cvmcache ram, which has room for 100.0 MiB: a cache has to have room for two of them; take a smaller --object-size, or a larger cache

"#]]);
    let many = ["--object-size", "40M", "--in-flight", "9", "store"];
    bench_ram(&many).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
cvmcache: store on cvmcache ram: the plugin answered: [..]; what is open or being stored does not fit: take a larger cache, a smaller --object-size, or fewer --connections and --in-flight

"#]]);
}

#[test]
fn invalid_arguments_are_an_error_with_a_remedy() {
    let cases: [(&[&str], &str); 9] = [
        (&[], "cvmcache: which plugin? [..] or have one started with --spawn 'CMD {conf}'"),
        (&["unix=/a", "unix=/b"], "[..]name the second with --vs LOCATOR"),
        (&["unix=/a", "--spawn", "x"], "[..]leave out the locator or --spawn[..]"),
        (&["unix=/a", "--tcp"], "[..]add --spawn CMD, or leave them out"),
        (
            &["unix=/a", "fly"],
            "[..]nor a workload: ping, stat, read, store, mixed, mount, mount-4, churn[..]",
        ),
        (&["unix=/a", "--in-flight", "0"], "[..]nothing would be done: write 1 or more[..]"),
        (&["unix=/a", "--object-size", "big"], "[..]such as 128K or 4MiB[..]"),
        (&["unix=/a", "--duration", "0"], "[..]from 0.01 to 86400[..]"),
        (&["unix=/a", "--working-set", "0"], "[..]from 0.1 to 1000[..]"),
    ];
    for (arguments, error) in cases {
        let command = cvmcache(&["bench"]).args(arguments);
        command.assert().code(2).stdout_eq("").stderr_eq(format!("{error}\n...\n"));
    }
    let idle = ["unix=/a", "--idle", &u64::MAX.to_string()];
    bench(&idle).assert().code(1).stderr_eq(str![[r#"
cvmcache: [..] descriptors are needed for that many connections, and the system allows [..]: raise the limit (ulimit -Hn), or take fewer --connections and --idle

"#]]);
}
