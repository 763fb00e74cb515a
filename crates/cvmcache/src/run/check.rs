//! `--check`: checks a configuration as a start would, without serving and without leaving files.

mod administration;
mod findings;
mod ports;
mod socket;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use super::metrics::{self, Exporter};
use super::{CheckPlugin, appendable, serve, terminal, unknown_keys};
use crate::config_keys::{CRASH_DUMP, ConfigKey, DEBUG_LOG, LOCATOR, METRICS};
use crate::files;
use crate::server::Settings;
use crate::{MetricsAddress, Options, OptionsError, PluginContext, ServerHandle};

pub use findings::Findings;
use socket::Live;

/// Prints all that is wrong with a configuration file, each with a remedy in a line, and `ok` if a
/// start would succeed.
pub(super) fn check(
    name: &str,
    keys: &[ConfigKey],
    plugin: Option<CheckPlugin<'_>>,
    config: &Path,
) -> ExitCode {
    let findings = judge(name, keys, plugin, config);
    terminal::print(&findings.to_string());
    if findings.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn judge(
    name: &str,
    keys: &[ConfigKey],
    plugin: Option<CheckPlugin<'_>>,
    config: &Path,
) -> Findings {
    let mut findings = Findings::default();
    let text = match files::read_config(config) {
        Ok(text) => text,
        Err(source) => {
            findings.error(OptionsError::Read { path: config.to_owned(), source });
            return findings;
        }
    };
    check_lines(config, &text, &mut findings);
    let options = Options::parse_file(config, &text).for_plugin(name);
    for warning in unknown_keys::warnings(&options, name, keys) {
        findings.warning(warning);
    }
    let locator = serve::locator(&options);
    let live = match &locator {
        Err(_) => Live::No,
        Ok(locator) => socket::check(locator, &options, &mut findings),
    };
    for error in Settings::errors(&options) {
        findings.error(error);
    }
    administration::check(locator.as_ref().ok(), &options, &live, &mut findings);
    if let Err(error) = locator {
        findings.error(error);
    }
    check_files(&options, &mut findings);
    check_metrics(&options, &live, &mut findings);
    match plugin {
        Some(check) => {
            let context = PluginContext::new(options, ServerHandle::new());
            findings.collect_warnings(|findings| check(&context, findings));
        }
        None if keys.is_empty() => {}
        None => findings.note("the plugin has no check of its own keys"),
    }
    findings
}

/// Lines that a start skips or overrides silently.
fn check_lines(config: &Path, text: &[u8], findings: &mut Findings) {
    let file = config.display();
    for line in Options::skipped_lines(text) {
        let remedy = "write KEY=VALUE, or # in front";
        findings.warning(format!("{file}:{line}: the line is skipped; {remedy}"));
    }
    for (line, key) in Options::repeated_keys(text) {
        let key = key.display();
        findings
            .warning(format!("{file}:{line}: {key} is there before; this line wins, remove one"));
    }
}

fn check_files(options: &Options, findings: &mut Findings) {
    let check = |key: ConfigKey| -> Option<OptionsError> {
        let error = appendable::check(Path::new(options.get(key)?)).err()?;
        Some(options.bad_value(key, format!("{error}; {}", appendable::REMEDY)))
    };
    if let Some(error) = check(DEBUG_LOG) {
        findings.error(error);
    }
    // The plugin starts all the same.
    if let Some(error) = check(CRASH_DUMP) {
        findings.warning(error);
    }
}

fn check_metrics(options: &Options, live: &Live, findings: &mut Findings) {
    let address = match options.value::<MetricsAddress>(&METRICS) {
        Ok(None) => return,
        Ok(Some(address)) => address.get(),
        Err(error) => return findings.error(error),
    };
    if let Err(error) = Exporter::available() {
        return findings.error(error);
    }
    if serve::locator(options).is_ok_and(|locator| socket::overlaps(&locator, address)) {
        let remedy = format!("{} has this port; set another port", LOCATOR.name());
        return findings.error(options.bad_value(METRICS, remedy));
    }
    let bound = match live {
        Live::Yes(_) => socket::bind(address),
        Live::No => metrics::wait_for_port(|| socket::bind(address)),
    };
    match bound {
        Ok(()) => warn_of_readers(address, findings),
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_its_own(live, address) => {
            findings.note(format!("{address} is in use, as for its metrics"));
        }
        Err(error) => {
            let remedy = format!("{error}; set another port");
            findings.error(options.bad_value(METRICS, remedy));
        }
    }
}

/// True unless another process than the plugin that serves already is known to listen there.
fn is_its_own(live: &Live, address: SocketAddr) -> bool {
    let Live::Yes(plugin) = live else { return false };
    let others = ports::listeners(address);
    plugin.is_empty() || others.is_empty() || !plugin.is_disjoint(&others)
}

fn warn_of_readers(address: SocketAddr, findings: &mut Findings) {
    if !address.ip().is_loopback() {
        let what = format!("all that reach {address} can read the metrics");
        findings
            .warning(format!("{what}; write 127.0.0.1, or admit Prometheus alone in a firewall"));
    }
}
