//! Scraping the metrics of a plugin.

#![allow(dead_code, unreachable_pub, reason = "every test uses a part of it")]

use std::fs;

use prometheus_parse::{Scrape, Value};

use crate::support::plugin::{LIMIT, Plugin, eventually};

/// A configuration with metrics on a port that the system chooses, and a debug log that names it.
pub fn configuration(plugin: &Plugin) -> String {
    let log = plugin.path("debug.log");
    format!(
        "CVMFS_CACHE_PLUGIN_METRICS=127.0.0.1:0\nCVMFS_CACHE_PLUGIN_DEBUGLOG={}\n",
        log.display()
    )
}

/// The URL of the metrics, from the debug log.
pub fn url(plugin: &Plugin) -> String {
    let mut found = None;
    eventually("it logs where its metrics are", || {
        let log = fs::read_to_string(plugin.path("debug.log")).unwrap_or_default();
        let begin = log.find("http://");
        found = begin.and_then(|at| log[at..].split_once('\n')).map(|(url, _)| url.to_owned());
        found.is_some()
    });
    found.expect("found")
}

pub fn scrape(url: &str) -> String {
    let config = ureq::Agent::config_builder().timeout_global(Some(LIMIT)).proxy(None).build();
    let answer = config.new_agent().get(url).call();
    answer.expect("an answer").body_mut().read_to_string().expect("text")
}

/// The sum of all samples of a name with these labels.
pub fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    let scrape = Scrape::parse(lines).expect("the text format of Prometheus");
    let of_name = scrape.samples.iter().filter(|sample| sample.metric == name);
    let mut samples = of_name
        .filter(|sample| {
            labels.iter().all(|&(label, value)| sample.labels.get(label) == Some(value))
        })
        .peekable();
    assert!(samples.peek().is_some(), "no {name} with {labels:?} in\n{text}");
    let number = |value: &Value| match value {
        Value::Counter(number) | Value::Gauge(number) | Value::Untyped(number) => *number,
        Value::Histogram(buckets) => buckets.last().map_or(0.0, |bucket| bucket.count),
        Value::Summary(_) => panic!("{name} is a summary"),
    };
    samples.map(|sample| number(&sample.value)).sum()
}
