//! The metrics and the queries of the dashboard, checked by Prometheus itself.
//!
//! It needs the programs `prometheus` and `promtool`, which are 100 MB: see CONTRIBUTING.md.

#[path = "support/metrics.rs"]
mod scraped;
mod support;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use cvmcache::client::NewUpload;
use scraped::{configuration, scrape, url};
use support::id;
use support::plugin::{Plugin, eventually};

const MISSING: &str = "it is not there: apt-get install --no-install-recommends prometheus";

struct Prometheus {
    process: Child,
    url: String,
}

impl Prometheus {
    /// Starts one that scrapes the plugin every second.
    fn start(plugin: &Plugin, target: &str) -> Self {
        let target = target.trim_start_matches("http://").trim_end_matches("/metrics");
        let config = plugin.path("prometheus.yml");
        let text = format!(
            "scrape_configs:\n- job_name: cvmcache\n  scrape_interval: 1s\n  static_configs:\n  \
             - targets: ['{target}']\n"
        );
        fs::write(&config, text).expect("a file");
        let address =
            TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", plugin.path("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::null())
            .spawn()
            .expect(MISSING);
        Self { process, url: format!("http://{address}") }
    }

    fn query(&self, query: &str) -> Output {
        promtool(&["query", "instant", &self.url, query], "")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect(MISSING);
    let mut stdin = process.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    process.wait_with_output().expect("it ends")
}

fn busy_plugin() -> (Plugin, String) {
    let mut plugin = Plugin::new("ram");
    let lines = configuration(&plugin) + "CVMFS_CACHE_PLUGIN_SIZE=100\n";
    plugin.start(&lines);
    let url = url(&plugin);
    (plugin, url)
}

/// One of everything that is counted.
fn use_it(plugin: &Plugin) {
    let mut client = plugin.client();
    for number in 0..110 {
        client.open(&id(number)).expect_err("a miss");
        client.store(NewUpload::new(id(number)), vec![number; 1 << 20]).expect("done");
        client.open(&id(number)).expect("done");
        client.close(&id(number)).expect("done");
        client.close(&id(number)).expect("done");
    }
    client.close(&id(109)).expect_err("too many");
}

#[test]
#[ignore = "it needs Debian's package prometheus, as .ci/run has it"]
fn promtool_finds_no_problem_in_the_metrics() {
    let (plugin, url) = busy_plugin();
    use_it(&plugin);
    let output = promtool(&["check", "metrics"], &scrape(&url));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
#[ignore = "it needs Debian's package prometheus, as .ci/run has it"]
fn every_query_of_the_dashboard_has_a_result() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/grafana/cvmcache.json");
    let dashboard: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<_> = targets
        .map(|target| target["expr"].as_str().unwrap())
        .map(|query| query.replace("$__rate_interval", "1m"))
        .map(|query| query.replace("$job", "cvmcache").replace("$instance", ".*"))
        .collect();
    assert!(queries.len() > 20, "{queries:?}");

    let (plugin, url) = busy_plugin();
    let prometheus = Prometheus::start(&plugin, &url);
    let is_there = |query: &str| {
        let output = prometheus.query(query);
        output.status.success() && !output.stdout.trim_ascii().is_empty()
    };
    // A rate needs two samples, and what is counted between them.
    eventually("it has been scraped", || is_there("cvmcache_build_info"));
    use_it(&plugin);
    let result = "sum(rate(cvmcache_evicted_objects_total[1m])) > 0";
    eventually("what was done is seen", || is_there(result));
    for query in &queries {
        let output = prometheus.query(query);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !text.trim().is_empty(), "{query}: {output:?}");
        // Where nothing has happened, a ratio is no number.
        assert!(text.lines().any(|line| !line.contains("NaN")), "{query}: {text}");
    }
}
