//! Scrapes the plugin's metrics, on a thread of its own.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use cvmcache::Options;
use procfs::process::Process;
use ureq::Agent;

use super::interval::{Command, pause};
use super::metrics::Sample;
use super::state::Update;

const METRICS: &str = "CVMFS_CACHE_PLUGIN_METRICS";

/// The timeout of a scrape, and the maximum length of its reply in bytes.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER: u64 = 4 << 20;

/// The URL of the metrics, from an argument of the user: an address or a port suffices.
pub(super) fn url(text: &str) -> String {
    if text.contains("://") {
        return text.to_owned();
    }
    let is_port = text.bytes().all(|byte| byte.is_ascii_digit());
    let host = if is_port { "127.0.0.1:" } else { "" };
    format!("http://{host}{text}/metrics")
}

/// The URL of the metrics of a process on this machine, from its configuration file.
pub(super) fn of_process(pid: u64) -> Option<String> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let arguments = Process::new(pid.try_into().ok()?).ok()?.cmdline().ok()?;
    let config = arguments.into_iter().rfind(|argument| !argument.is_empty())?;
    let options = Options::from_file(&process.join("cwd").join(config)).ok()?;
    Some(url(options.get(METRICS)?.to_str()?))
}

/// Sends samples until the view has ended.
pub(super) fn scrape_repeatedly(
    url: &str,
    mut interval: Duration,
    send: impl Fn(Update) -> bool,
    commands: &Receiver<Command>,
) {
    let config = Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None).max_redirects(0);
    let agent = config.build().new_agent();
    loop {
        let update = match scrape(&agent, url) {
            Ok(sample) => Update::Measured { sample, at: Instant::now() },
            Err(error) => Update::NotMeasured(format!("{url}: {error}")),
        };
        if !send(update) || !pause(&mut interval, commands, Duration::ZERO) {
            return;
        }
    }
}

fn scrape(agent: &Agent, url: &str) -> Result<Sample, String> {
    let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
    let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
    let text = body.map_err(|error| error.to_string())?;
    Sample::parse(&text).ok_or_else(|| "these are not the metrics of a plugin".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_or_an_address_is_enough() {
        assert_eq!(url("9469"), "http://127.0.0.1:9469/metrics");
        assert_eq!(url("[::1]:9469"), "http://[::1]:9469/metrics");
        assert_eq!(url("http://node7:9469/x"), "http://node7:9469/x");
    }
}
