//! The plugin's configuration: obstacles to a start, and settings that make a poor cache.

use std::ffi::OsStr;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cvmcache::config_keys::{self, KEYS, PREFIX};
use cvmcache::{
    ConfigKey, Locator, MemoryLimit, MetricsAddress, Networks, Options, Users, percent_of,
};

use super::command_line::cannot;
use super::file::ConfFile;
use super::kind::Kind;
use super::locators;
use super::report::Section;
use crate::user::{Reason, User, Want};

const LOCATOR: &str = config_keys::LOCATOR.name();
const ALLOW: &str = config_keys::ALLOW.name();
const ALLOW_USERS: &str = config_keys::ALLOW_USERS.name();
const METRICS: &str = config_keys::METRICS.name();

/// The key that most plugins have for their size, to compare it with that of the plugin that runs.
const SIZE: &str = "CVMFS_CACHE_PLUGIN_SIZE";

/// What the other checks need of the configuration; `None` for what is missing or invalid.
#[derive(Debug)]
pub(crate) struct PluginConf {
    pub(crate) path: PathBuf,
    pub(crate) locator: Option<Locator>,
    /// In bytes.
    pub(crate) size: Option<u64>,
    networks: Option<Networks>,
    /// Where it serves metrics.
    metrics: Option<SocketAddr>,
    users: Option<Users>,
    options: Options,
    /// The plugin whose own keys are understood, too.
    name: Option<String>,
}

impl PluginConf {
    /// Parses a file, and adds findings to the section.
    pub(crate) fn check(file: &ConfFile, user: &User, section: &mut Section) -> Self {
        let name = own_name(file);
        let file = &match name.clone() {
            Some(name) => file.clone().for_plugin(name),
            None => file.clone(),
        };
        check_lines(file, section);
        let locator = check_locator(file, section);
        let size = file
            .get(SIZE)
            .and_then(|text| parse_size(&text.to_string_lossy(), MemoryLimit::physical().bytes));
        let networks = check_networks(file, locator.as_ref(), section);
        let users = check_value::<Users>(file, ALLOW_USERS, Kind::AllowUsersBad, section, || {
            format!("write names or numbers, as in {ALLOW_USERS}=cvmfs,1001, or * for all")
        });
        check_number(file, config_keys::WORKERS, Kind::WorkersBad, section);
        check_number(file, config_keys::POLL, Kind::PollBad, section);
        check_written(
            file,
            config_keys::DEBUG_LOG.name(),
            Kind::DebugLogNotWritable,
            user,
            section,
        );
        check_written(
            file,
            config_keys::CRASH_DUMP.name(),
            Kind::CrashDumpNotWritable,
            user,
            section,
        );
        let metrics = check_metrics(file, section);
        let (path, options) = (file.path().to_owned(), file.options().clone());
        Self { path, locator, size, networks, metrics, users, options, name }
    }

    /// The value of a key, which may have the name of the plugin in it.
    pub(crate) fn value(&self, key: &str) -> Option<&OsStr> {
        let own = self.name.as_ref().map(|name| format!("CVMFS_CACHE_{name}_"));
        let rest = own.and_then(|own| key.strip_prefix(&own));
        self.options.get(rest.map_or_else(|| key.to_owned(), |rest| format!("{PREFIX}{rest}")))
    }

    /// False if the plugin turns a user away that its socket lets in.
    pub(crate) fn admits(&self, user: &User) -> bool {
        match &self.users {
            Some(Users::OwnAnd(users)) => users.contains(&user.uid()),
            _ => true,
        }
    }

    /// Checks that no plugin before this one serves metrics at the same address, and adds its own.
    pub(crate) fn check_metrics_of_others(
        &self,
        others: &mut Vec<SocketAddr>,
        section: &mut Section,
    ) {
        let Some(own) = self.metrics else { return };
        let is_same = |other: &SocketAddr| {
            let either_is_any = own.ip().is_unspecified() || other.ip().is_unspecified();
            own.port() == other.port() && (own.ip() == other.ip() || either_is_any)
        };
        if others.iter().any(is_same) {
            let found = format!("{METRICS}={own} is the address of another plugin's metrics");
            let remedy = format!("write another port in {}", self.path.display());
            section.found(Kind::MetricsBad, found, remedy);
        }
        others.push(own);
    }

    /// Checks whether a client with this locator gets to a plugin with this configuration.
    pub(crate) fn check_client(&self, key: &str, client: &Locator, section: &mut Section) {
        let Some(plugin) = &self.locator else { return };
        let remedy = || format!("write {LOCATOR}={client} in {}", self.path.display());
        match locators::compare(client, plugin) {
            locators::Agreement::Same => section.fine(format!("the client looks there: {plugin}")),
            locators::Agreement::SpelledDifferently => {
                let found = format!("{LOCATOR}={plugin}, and {key}={client}");
                section.found(Kind::LocatorsSpelledDifferently, found, remedy());
            }
            locators::Agreement::Different => {
                let found = format!("{LOCATOR}={plugin}, but {key}={client}");
                section.found(Kind::LocatorsDiffer, found, remedy());
                return;
            }
        }
        if let (Some(networks), Locator::Tcp { host, .. }) = (&self.networks, client)
            && let Ok(address) = host.parse::<IpAddr>()
            // The client's own address is known only on this machine.
            && address.is_loopback()
            && !networks.contains(address)
        {
            let found = format!("{ALLOW} does not hold {address}, from which the client connects");
            section.found(
                Kind::AllowExcludesClient,
                found,
                format!("add {address} to {ALLOW} in {}", self.path.display()),
            );
        }
    }
}

/// The name of the plugin in keys such as `CVMFS_CACHE_redis_LOCATOR`, which plugins understand.
fn own_name(file: &ConfFile) -> Option<String> {
    let name = |key: &str| {
        let name = key.strip_prefix("CVMFS_CACHE_")?.strip_suffix("_LOCATOR")?;
        (!name.is_empty() && name != "PLUGIN").then(|| name.to_owned())
    };
    file.options().keys().find_map(name)
}

fn check_lines(file: &ConfFile, section: &mut Section) {
    if let Some(lines) = file.skipped() {
        let remedy = format!("write KEY=VALUE, or # in front, in {}", file.path().display());
        section.found(Kind::LineSkipped, format!("{lines}: not KEY=VALUE"), remedy);
    }
    let known = || KEYS.iter().map(ConfigKey::name);
    for (written, key) in file.keys().filter(|(_, key)| !known().any(|known| known == key)) {
        if let Some(known) = config_keys::nearest(&key, known()) {
            let remedy = format!("write {known}, if that is what it should be");
            section.found(Kind::KeyMisspelled, format!("there is no key {written}"), remedy);
        } else if !key.starts_with(PREFIX) {
            let remedy = "remove it, unless the plugin's documentation has it";
            section.found(Kind::KeyUnknown, format!("{written} is no usual key"), remedy);
        }
        // Others are the plugin's own, which only the plugin can judge.
    }
    file.check_twice("", section);
}

fn check_locator(file: &ConfFile, section: &mut Section) -> Option<Locator> {
    let path = file.path().display();
    let Some(text) = file.get(LOCATOR) else {
        let found = format!("{LOCATOR} is not set");
        let remedy = format!("add {LOCATOR}=unix=/path/to/socket to {path}");
        section.found(Kind::PluginLocatorMissing, found, remedy);
        return None;
    };
    match Locator::from_os_str(text) {
        Ok(locator) => {
            if matches!(&locator, Locator::Unix(path) if path.is_relative()) {
                let remedy = format!("write the whole path, as in {LOCATOR}=unix=/path/to/socket");
                section.found(Kind::PathRelative, format!("{LOCATOR}={locator}"), remedy);
            }
            Some(locator)
        }
        Err(error) => {
            let remedy = format!("write {LOCATOR}=unix=/path/to/socket in {path}");
            section.found(Kind::PluginLocatorBad, format!("{LOCATOR}: {error}"), remedy);
            None
        }
    }
}

/// In bytes.
fn parse_size(text: &str, memory: u64) -> Option<u64> {
    let number = |digits: &str| {
        // The standard parser would take a plus sign.
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| is_number)
    };
    match text.strip_suffix('%') {
        Some(digits) => {
            let percent = number(digits).filter(|percent| (1..=100).contains(percent))?;
            Some(percent_of(memory, percent))
        }
        None => number(text)?.checked_mul(1024 * 1024),
    }
}

fn check_networks(
    file: &ConfFile,
    locator: Option<&Locator>,
    section: &mut Section,
) -> Option<Networks> {
    let remedy = || format!("write the clients' networks, as in {ALLOW}=10.0.0.0/8,127.0.0.1");
    let networks = check_value::<Networks>(file, ALLOW, Kind::AllowBad, section, remedy);
    if networks.is_some() && file.get(ALLOW).is_some_and(|text| text.is_empty()) {
        section.found(Kind::AllowBad, format!("{ALLOW} is empty"), remedy());
        return None;
    }
    if file.get(ALLOW).is_none()
        && let Some(locator @ Locator::Tcp { host, .. }) = locator
        && locators::is_exposed(host)
    {
        let found = format!("{LOCATOR}={locator}, and {ALLOW} is not set");
        section.found(Kind::AllowMissing, found, remedy());
    }
    networks
}

fn check_value<T: FromStr<Err: Display>>(
    file: &ConfFile,
    key: &str,
    kind: Kind,
    section: &mut Section,
    remedy: impl Fn() -> String,
) -> Option<T> {
    match file.options().parse_value(key) {
        Ok(value) => value,
        Err(error) => {
            section.found(kind, error.to_string(), remedy());
            None
        }
    }
}

fn check_number(file: &ConfFile, key: ConfigKey, kind: Kind, section: &mut Section) {
    let Err(error) = file.options().value::<u64>(&key) else { return };
    section.found(kind, error.to_string(), format!("remove the line of {}", key.name()));
}

fn check_metrics(file: &ConfFile, section: &mut Section) -> Option<SocketAddr> {
    let remedy = || format!("write {METRICS}=127.0.0.1:9469, or remove the line");
    let address = check_value(file, METRICS, Kind::MetricsBad, section, remedy);
    let address = address.map(MetricsAddress::get)?;
    if address.port() == 0 {
        let found = format!("{METRICS}={address} is another port at each start");
        section.found(Kind::MetricsBad, found, remedy());
    }
    if !address.ip().is_loopback() {
        let found = format!("{METRICS}={address} is no loopback address");
        let remedy = "have a firewall let in Prometheus alone, or write 127.0.0.1";
        section.found(Kind::MetricsExposed, found, remedy);
    }
    Some(address).filter(|address| address.port() != 0)
}

/// Checks a file that the plugin writes to.
fn check_written(file: &ConfFile, key: &str, kind: Kind, user: &User, section: &mut Section) {
    let Some(path) = file.get(key).map(Path::new) else { return };
    if path.is_relative() {
        let remedy = format!("write the whole path, as in {key}=/var/log/cvmfs/cache.log");
        section.found(Kind::PathRelative, format!("{key}={}", path.display()), remedy);
        return;
    }
    // What does not exist is made.
    let parent = path.parent().unwrap_or(path);
    let written = if path.symlink_metadata().is_ok() { path } else { parent };
    let found = match user.may(written, Want::Write) {
        Ok(()) if path.is_dir() => format!("{key}={} is a directory", path.display()),
        Ok(()) => return,
        Err(obstacle) => {
            let remedy = match &obstacle.reason {
                Reason::Missing => format!("install -d -o {user} {}", crate::user::quoted(parent)),
                _ => obstacle.remedy(user),
            };
            let kind = match obstacle.reason {
                Reason::Hidden(_) => Kind::NotLookedAt,
                _ => kind,
            };
            let found = format!("{key}: {}", cannot(user, "write", path, &obstacle));
            section.found(kind, found, remedy);
            return;
        }
    };
    let remedy = format!("name a file, as in {key}=/var/log/cvmfs/cache.log");
    section.found(kind, found, remedy);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (PluginConf, Section) {
        let mut section = Section::new("file");
        let file = ConfFile::parse(Path::new("ram.conf"), text.as_bytes());
        let conf = PluginConf::check(&file, &User::current(), &mut section);
        (conf, section)
    }

    #[test]
    fn mistakes_in_a_configuration_are_found() {
        const UNIX: &str = "CVMFS_CACHE_PLUGIN_LOCATOR=unix=/s\n";
        const ANY: &str = "CVMFS_CACHE_PLUGIN_LOCATOR=tcp=:4224\n";
        for (locator, line, kinds) in [
            (UNIX, "", vec![]),
            ("", "", vec![Kind::PluginLocatorMissing]),
            ("", "CVMFS_CACHE_PLUGIN_LOCATOR=/s", vec![Kind::PluginLocatorBad]),
            ("", "CVMFS_CACHE_PLUGIN_LOCATOR=unix=s", vec![Kind::PathRelative]),
            (UNIX, "CVMFS_CACHE_PLUGIN_WORKERS=many", vec![Kind::WorkersBad]),
            (UNIX, "CVMFS_CACHE_PLUGIN_WORKERS=1025", vec![Kind::WorkersBad]),
            (UNIX, "CVMFS_CACHE_PLUGIN_POLL=1001", vec![Kind::PollBad]),
            (UNIX, "CVMFS_CACHE_PLUGIN_ALLOW=home", vec![Kind::AllowBad]),
            (UNIX, "CVMFS_CACHE_PLUGIN_ALLOW=", vec![Kind::AllowBad]),
            (UNIX, "CVMFS_CACHE_PLUGIN_ALLOW_USERS=no-such-user", vec![Kind::AllowUsersBad]),
            (ANY, "", vec![Kind::AllowMissing]),
            (ANY, "CVMFS_CACHE_PLUGIN_ALLOW=::1", vec![]),
            ("", "CVMFS_CACHE_PLUGIN_LOCATOR=tcp=127.0.0.1:1", vec![]),
            (UNIX, "CVMFS_CACHE_PLUGIN_WORKER=1", vec![Kind::KeyMisspelled]),
            (UNIX, "CVMFS_CACHE_PLUGIN_SIZE=lots", vec![]),
            (UNIX, "MY_PLUGINS_OWN=1", vec![Kind::KeyUnknown]),
            (
                "CVMFS_CACHE_redis_LOCATOR=unix=/s\n",
                "CVMFS_CACHE_redis_REDIS_SERVER_ADDRESS=localhost\nCVMFS_CACHE_redis_SIZE=99999999",
                vec![],
            ),
            (
                "CVMFS_CACHE_redis_LOCATOR=unix=/s\n",
                "CVMFS_CACHE_ram_SIZE=1",
                vec![Kind::KeyUnknown],
            ),
            ("", "CVMFS_CACHE_redis_LOCATOR=unix=s", vec![Kind::PathRelative]),
            (UNIX, "just words", vec![Kind::LineSkipped]),
            (
                UNIX,
                "CVMFS_CACHE_PLUGIN_SIZE=200\nCVMFS_CACHE_PLUGIN_SIZE=201",
                vec![Kind::KeyTwice],
            ),
            (UNIX, "CVMFS_CACHE_PLUGIN_DEBUGLOG=log", vec![Kind::PathRelative]),
            (UNIX, "CVMFS_CACHE_PLUGIN_DEBUGLOG=/nowhere/log", vec![Kind::DebugLogNotWritable]),
            (UNIX, "CVMFS_CACHE_PLUGIN_DEBUGLOG=/", vec![Kind::DebugLogNotWritable]),
            (UNIX, "CVMFS_CACHE_PLUGIN_CRASH_DUMP=/tmp/dump", vec![]),
            (UNIX, "CVMFS_CACHE_PLUGIN_CRASH_DUMP=dump", vec![Kind::PathRelative]),
            (UNIX, "CVMFS_CACHE_PLUGIN_CRASH_DUMP=/nowhere/a", vec![Kind::CrashDumpNotWritable]),
            (UNIX, "CVMFS_CACHE_PLUGIN_METRICS=9469", vec![]),
            (UNIX, "CVMFS_CACHE_PLUGIN_METRICS=localhost:9469", vec![Kind::MetricsBad]),
            (UNIX, "CVMFS_CACHE_PLUGIN_METRICS=0", vec![Kind::MetricsBad]),
            (UNIX, "CVMFS_CACHE_PLUGIN_METRICS=0.0.0.0:9469", vec![Kind::MetricsExposed]),
        ] {
            let (_, section) = check(&format!("{locator}{line}"));
            assert_eq!(section.kinds(), kinds, "{line}");
        }
    }

    #[test]
    fn a_client_with_another_locator_is_found() {
        for (conf, client, kinds) in [
            ("unix=/s", "unix=/s", vec![]),
            ("unix=/s", "unix=//s", vec![Kind::LocatorsSpelledDifferently]),
            ("unix=/s", "unix=/t", vec![Kind::LocatorsDiffer]),
            ("tcp=localhost:1\nCVMFS_CACHE_PLUGIN_ALLOW=127.0.0.0/8", "tcp=127.0.0.1:1", vec![]),
            (
                "tcp=:1\nCVMFS_CACHE_PLUGIN_ALLOW=10.0.0.0/8",
                "tcp=127.0.0.1:1",
                vec![Kind::AllowExcludesClient],
            ),
        ] {
            let (conf, mut section) = check(&format!("CVMFS_CACHE_PLUGIN_LOCATOR={conf}"));
            conf.check_client("CVMFS_CACHE_ram_LOCATOR", &client.parse().unwrap(), &mut section);
            assert_eq!(section.kinds(), kinds, "{client}");
        }
    }

    #[test]
    fn sizes_are_read_as_the_ram_cache_reads_them() {
        assert_eq!(parse_size("1000", 0), Some(1000 << 20));
        assert_eq!(parse_size("25%", 400), Some(100));
        for text in ["", "%", "+1", "1.5", "101%", "10 %", "10MB"] {
            assert_eq!(parse_size(text, 1 << 40), None, "{text}");
        }
    }
}
