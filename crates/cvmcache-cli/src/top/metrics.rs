//! Samples of the plugin's metrics or statistics, and the rates between two. No clock, no thread.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_parse::{Scrape, Value};

use crate::admin::schema::{Gauge, Latency, Statistics};

/// The metrics of a plugin at one moment, as far as they are shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sample {
    operations: BTreeMap<String, Totals>,
    hits: f64,
    misses: f64,
    read: f64,
    stored: f64,
    /// Only plugins that tell have it, and only in their metrics.
    evicted: Option<f64>,
    /// Only tiered caches have it.
    pub(super) tier: Option<Tier>,
}

/// What a tiered cache has in its store, and how that is coming back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tier {
    pub(super) remote_objects: u64,
    pub(super) remote_bytes: u64,
    /// Objects that the store has lost.
    pub(super) lost: u64,
    pub(super) recalling: u64,
    pub(super) failed_recalls: u64,
}

/// One kind of request, since the plugin started.
#[derive(Debug, Clone, Default, PartialEq)]
struct Totals {
    requests: f64,
    failed: f64,
    /// How many took at most so many seconds, in rising order.
    durations: Vec<(f64, f64)>,
    /// Latencies that the plugin has worked out itself, over the last minute.
    recent: Option<Latency>,
}

/// Rates per second.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rates {
    /// Those that there were, the most frequent first.
    pub(super) operations: Vec<Operation>,
    /// Of the objects that were to be opened, the part that was there; none if none were.
    pub(super) hits: Option<f64>,
    /// In bytes.
    pub(super) read: f64,
    pub(super) stored: f64,
    pub(super) evicted: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) requests: f64,
    /// Without those that found no object.
    pub(super) failed: f64,
    pub(super) median: Option<Duration>,
    pub(super) slowest: Option<Duration>,
}

impl Sample {
    /// What the administration socket has.
    pub(super) fn of(statistics: &Statistics) -> Self {
        let (all, recent) = (&statistics.since_start, &statistics.last_minute);
        let operations = all.operations.iter().map(|operation| {
            let recent = recent.operations.iter().find(|it| it.operation == operation.operation);
            let totals = Totals {
                requests: operation.requests as f64,
                failed: operation.failed() as f64,
                durations: Vec::new(),
                recent: Some(recent.map(|it| it.latency_us).unwrap_or_default()),
            };
            (operation.operation.clone(), totals)
        });
        Self {
            operations: operations.collect(),
            hits: all.hits as f64,
            misses: all.misses as f64,
            read: all.read_bytes as f64,
            stored: all.stored_bytes as f64,
            evicted: None,
            tier: Tier::of(&statistics.plugin),
        }
    }

    /// Reads the text format of Prometheus. `None` if these are no metrics of a plugin.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).ok()?;
        let mut this = Self::default();
        let mut is_plugin = false;
        for sample in scrape.samples {
            let label = |name| sample.labels.get(name).unwrap_or_default().to_owned();
            match (sample.metric.as_str(), sample.value) {
                ("cvmcache_build_info", _) => is_plugin = true,
                ("cvmcache_requests_total", Value::Counter(count)) => {
                    let totals = this.operations.entry(label("operation")).or_default();
                    totals.requests += count;
                    if !["OK", "NOENTRY"].contains(&label("status").as_str()) {
                        totals.failed += count;
                    }
                }
                ("cvmcache_request_duration_seconds", Value::Histogram(buckets)) => {
                    let totals = this.operations.entry(label("operation")).or_default();
                    let bounds = buckets.iter().map(|bucket| (bucket.less_than, bucket.count));
                    totals.durations = bounds.collect();
                    totals.durations.sort_by(|(one, _), (other, _)| one.total_cmp(other));
                }
                ("cvmcache_hits_total", Value::Counter(count)) => this.hits = count,
                ("cvmcache_misses_total", Value::Counter(count)) => this.misses = count,
                ("cvmcache_read_bytes_total", Value::Counter(count)) => this.read = count,
                ("cvmcache_stored_bytes_total", Value::Counter(count)) => this.stored = count,
                ("cvmcache_evicted_bytes_total", Value::Counter(count)) => {
                    this.evicted = Some(count);
                }
                _ => {}
            }
        }
        is_plugin.then_some(this)
    }

    /// What has happened since an earlier sample. `None` if the plugin has begun to count anew.
    pub(super) fn rates_since(&self, before: &Self, time: Duration) -> Option<Rates> {
        let seconds = time.as_secs_f64();
        let rate = |now: f64, before: f64| (now >= before).then(|| (now - before) / seconds);
        let mut operations = Vec::new();
        let none = Totals::default();
        for (name, now) in &self.operations {
            let before = before.operations.get(name).unwrap_or(&none);
            let requests = rate(now.requests, before.requests)?;
            if requests == 0.0 {
                continue;
            }
            let durations = now.durations_since(before);
            operations.push(Operation {
                name: name.clone(),
                requests,
                failed: rate(now.failed, before.failed)?,
                median: match now.recent {
                    Some(recent) => recent.p50.and_then(micros),
                    None => quantile(&durations, 0.5),
                },
                slowest: match now.recent {
                    Some(recent) => recent.p99.and_then(micros),
                    None => quantile(&durations, 0.99),
                },
            });
        }
        operations.sort_by(|one, other| other.requests.total_cmp(&one.requests));
        let (hits, misses) = (rate(self.hits, before.hits)?, rate(self.misses, before.misses)?);
        Some(Rates {
            operations,
            hits: (hits + misses > 0.0).then(|| hits / (hits + misses)),
            read: rate(self.read, before.read)?,
            stored: rate(self.stored, before.stored)?,
            evicted: match self.evicted.zip(before.evicted) {
                Some((now, before)) => Some(rate(now, before)?),
                None => None,
            },
        })
    }
}

impl Tier {
    fn of(gauges: &[Gauge]) -> Option<Self> {
        let value = |name| gauges.iter().find(|gauge| gauge.name == name)?.value.as_u64();
        Some(Self {
            remote_objects: value("remote_objects")?,
            remote_bytes: value("remote_bytes")?,
            lost: value("error_objects")?,
            recalling: value("recalling_objects")?,
            failed_recalls: value("failed_recalls")?,
        })
    }
}

impl Rates {
    /// All requests.
    pub(super) fn requests(&self) -> f64 {
        self.operations.iter().map(|operation| operation.requests).sum()
    }
}

impl Totals {
    fn durations_since(&self, before: &Self) -> Vec<(f64, f64)> {
        let earlier = before.durations.iter().map(|(_, count)| *count);
        let earlier = earlier.chain(std::iter::repeat(0.0));
        let both = self.durations.iter().zip(earlier);
        both.map(|((bound, now), before)| (*bound, now - before)).collect()
    }
}

fn micros(micros: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(micros / 1e6).ok()
}

/// The time within which a part of all requests was done, as Prometheus has it: within a bucket,
/// they are taken to be spread evenly. What is above the last bound counts as that.
fn quantile(durations: &[(f64, f64)], part: f64) -> Option<Duration> {
    let wanted = durations.last().map(|(_, all)| all * part).filter(|wanted| *wanted > 0.0)?;
    let (mut from, mut below) = (0.0, 0.0);
    for &(bound, count) in durations {
        if count >= wanted {
            let to = if bound.is_finite() { bound } else { from };
            let seconds = from + (to - from) * (wanted - below) / (count - below);
            return Duration::try_from_secs_f64(seconds).ok();
        }
        (from, below) = (bound, count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(opened: u32, failed: u32, fast: u32, all: u32, hits: u32) -> Sample {
        let text = format!(
            r#"# TYPE cvmcache_build_info gauge
cvmcache_build_info{{plugin="cvmcache ram",version="0.1.0"}} 1
# TYPE cvmcache_requests_total counter
cvmcache_requests_total{{operation="open",status="OK"}} {opened}
cvmcache_requests_total{{operation="open",status="NOSPACE"}} {failed}
cvmcache_requests_total{{operation="read",status="OK"}} 0
# TYPE cvmcache_request_duration_seconds histogram
cvmcache_request_duration_seconds_bucket{{operation="open",le="0.001"}} {fast}
cvmcache_request_duration_seconds_bucket{{operation="open",le="0.002"}} {all}
cvmcache_request_duration_seconds_bucket{{operation="open",le="+Inf"}} {all}
cvmcache_request_duration_seconds_sum{{operation="open"}} 1
cvmcache_request_duration_seconds_count{{operation="open"}} {all}
# TYPE cvmcache_hits_total counter
cvmcache_hits_total {hits}
# TYPE cvmcache_misses_total counter
cvmcache_misses_total 10
"#
        );
        Sample::parse(&text).unwrap()
    }

    #[test]
    fn rates_are_those_between_two_samples() {
        let (before, after) = (sample(10, 0, 10, 10, 0), sample(108, 2, 60, 110, 30));
        let rates = after.rates_since(&before, Duration::from_secs(10)).unwrap();
        let [open] = &rates.operations[..] else { panic!("{rates:?}") };
        assert_eq!((open.name.as_str(), open.requests, open.failed), ("open", 10.0, 0.2));
        assert_eq!(open.median, Some(Duration::from_millis(1)));
        assert_eq!(open.slowest, Some(Duration::from_micros(1980)));
        assert_eq!(rates.hits, Some(1.0));
    }

    #[test]
    fn counters_that_were_reset_have_no_rates() {
        let second = Duration::from_secs(1);
        assert_eq!(sample(1, 0, 1, 1, 0).rates_since(&sample(2, 0, 2, 2, 0), second), None);
        let same = sample(2, 0, 2, 2, 0);
        let rates = same.rates_since(&same, second).unwrap();
        assert_eq!((rates.operations.len(), rates.hits), (0, None));
    }

    #[test]
    fn metrics_of_another_program_are_refused() {
        assert_eq!(Sample::parse("# TYPE up gauge\nup 1\n"), None);
        assert_eq!(Sample::parse("<html>"), None);
    }
}
