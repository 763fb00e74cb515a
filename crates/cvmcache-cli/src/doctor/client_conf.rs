//! The client's configuration: its caches, and how it reaches their plugins.
//!
//! The client takes the keys from the file, and has a shell evaluate them; so `shell` determines
//! what a line means.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cvmcache::{Locator, config_keys};

use super::command_line::{self, Starter};
use super::file::{ConfFile, Line};
use super::kind::Kind;
use super::report::Section;
use super::shell::{self, Value};
use crate::user::{User, quoted};

pub(crate) const PRIMARY: &str = "CVMFS_CACHE_PRIMARY";
pub(crate) const USER: &str = "CVMFS_USER";

/// What the client knows of a cache that is a plugin, or tiered.
const KEYS: [&str; 6] = ["TYPE", "LOCATOR", "CMDLINE", "UPPER", "LOWER", "LOWER_READONLY"];

#[derive(Debug)]
pub(crate) struct ClientConf {
    file: ConfFile,
    values: BTreeMap<String, Value>,
}

/// A cache of type external.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) name: String,
    /// `None` if it is not known; the section has the findings.
    pub(crate) locator: Option<Locator>,
    pub(crate) starter: Starter,
}

impl ClientConf {
    pub(crate) fn new(file: ConfFile) -> Self {
        let values =
            file.lines().iter().map(|line| (line.key.clone(), shell::value(line))).collect();
        Self { file, values }
    }

    /// The name of the user that the client changes to.
    pub(crate) fn user(&self) -> Option<&str> {
        self.text(USER)?.to_str()
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Finds lines that the client's shell evaluates otherwise than they look.
    pub(crate) fn check_lines(&self, section: &mut Section) {
        let path = self.path();
        let lines = || self.file.lines().iter().filter(|line| line.key.starts_with("CVMFS_"));
        if let Some(line) = lines().find(|line| line.text.ends_with(b"\r")) {
            let found = format!("line {} ends with a carriage return, as on Windows", line.number);
            let remedy = format!(r"sed -i 's/\r$//' {}", quoted(path));
            section.found(Kind::CarriageReturn, found, remedy);
        }
        for line in lines() {
            let Line { number, key, value: simple, .. } = line;
            match shell::value(line) {
                Value::Lost if !command_line::has_blank_for_comma(key, simple) => {
                    let found = format!("line {number} is no assignment of {key} to a shell");
                    let remedy = format!("write {key}={}", quoted(Path::new(simple)));
                    section.found(Kind::NotAnAssignment, found, remedy);
                }
                Value::Unclear if !(key.starts_with("CVMFS_CACHE_") || key == USER) => {}
                Value::Unclear if shell::has_open_quote(line) => {
                    let found = format!("line {number}: {key}={}", simple.display());
                    let remedy = "close the quote, or remove it";
                    section.found(Kind::QuoteNotClosed, found, remedy);
                }
                Value::Unclear => {
                    let found = format!("line {number}: {key}={}", simple.display());
                    let remedy = "have a look yourself, or write the value as it is";
                    section.found(Kind::NotExpanded, found, remedy);
                }
                _ => {}
            }
        }
        if let Some(lines) = self.file.skipped() {
            let found = format!("{lines}: commands for the shell");
            let remedy = "check the files that it reads, and what it sets, yourself";
            section.found(Kind::NotExpanded, found, remedy);
        }
        self.file.check_twice("CVMFS_CACHE_", section);
    }

    /// The plugins that the client uses, with what is wrong with how it gets there.
    pub(crate) fn instances(&self, user: &User, section: &mut Section) -> Vec<Instance> {
        let mut names = Vec::new();
        match self.values.get(PRIMARY) {
            Some(Value::Unclear | Value::Lost) => {}
            Some(Value::Text(name)) if !name.is_empty() && name != "default" => {
                let before = section.kinds().len();
                self.collect(&name.to_string_lossy(), &mut names, section);
                if names.is_empty() && section.kinds().len() > before {
                    // They may be what is meant, and should be in order, too.
                    names = self.external();
                } else if names.is_empty() {
                    let found = format!("no part of the tiered cache {} is", name.display());
                    let remedy = "set the TYPE of the upper or the lower one to external";
                    section.found(Kind::NotExternal, found, remedy);
                }
            }
            primary => {
                names = self.external();
                let found = match primary {
                    Some(Value::Text(name)) => format!("{PRIMARY} is {:?}", name.display()),
                    _ => format!("{PRIMARY} is not set in {}", self.path().display()),
                };
                let name = names.first().map_or("ram", String::as_str);
                let remedy = format!("add {PRIMARY}={name} to {}", self.path().display());
                section.found(Kind::PrimaryMissing, found, remedy);
            }
        }
        names.iter().map(|name| self.instance(name, user, section)).collect()
    }

    /// True if a cache has keys that only plugins have, whatever its type.
    fn is_plugin(&self, name: &str) -> bool {
        ["LOCATOR", "CMDLINE"].iter().any(|part| self.values.contains_key(&key(name, part)))
    }

    /// Finds keys of a cache that are near to one that the client knows.
    fn check_keys(&self, name: &str, section: &mut Section) {
        let prefix = key(name, "");
        let keys = self.values.range(prefix.clone()..).map(|(key, _)| key);
        let parts = keys.map_while(|key| Some((key, key.strip_prefix(&prefix)?)));
        for (written, part) in parts {
            if KEYS.contains(&part) {
                continue;
            }
            let in_capitals = part.to_ascii_uppercase();
            if let Some(known) = config_keys::nearest(&in_capitals, KEYS) {
                let remedy = format!("write {prefix}{known}, if that is what it should be");
                let found = format!("the client has no key {written}");
                section.found(Kind::ClientKeyMisspelled, found, remedy);
            }
        }
    }

    /// Follows tiers to the plugins below them. There may be thousands, so nothing is called for each.
    fn collect(&self, primary: &str, plugins: &mut Vec<String>, section: &mut Section) {
        let external = self.external();
        let (mut seen, mut left) = (BTreeSet::new(), vec![primary.to_owned()]);
        while let Some(name) = left.pop() {
            self.collect_one(&name, &external, &mut seen, &mut left, plugins, section);
        }
    }

    /// Checks the type of a cache. Those that it is made of are `left` to be checked.
    fn collect_one(
        &self,
        name: &str,
        external: &[String],
        seen: &mut BTreeSet<String>,
        left: &mut Vec<String>,
        plugins: &mut Vec<String>,
        section: &mut Section,
    ) {
        if !is_instance_name(name) {
            let remedy = format!("rename it in all keys of {}", self.path().display());
            section.found(Kind::InstanceNameBad, format!("the cache is called {name:?}"), remedy);
            return;
        }
        if !seen.insert(name.to_owned()) {
            let found = format!("the tiered cache {name} is a part of itself, or is used twice");
            let remedy = format!("name another cache in its {} or LOWER", key(name, "UPPER"));
            section.found(Kind::TiersCircular, found, remedy);
            return;
        }
        self.check_keys(name, section);
        // The client's own cache is of type posix, whatever is written.
        let type_key = key(name, "TYPE");
        let type_name = match name {
            "default" => Some(OsStr::new("posix")),
            _ => self.text(&type_key),
        };
        match type_name.map(OsStr::as_bytes) {
            Some(b"external") => plugins.push(name.to_owned()),
            Some(b"tiered") => {
                // The upper one is the next.
                for part in ["LOWER", "UPPER"].map(|part| key(name, part)) {
                    match self.text(&part) {
                        Some(part) => left.push(part.to_string_lossy().into_owned()),
                        None if self.is_unknown(&part) => {}
                        None => {
                            let remedy = format!("add {part}=NAME, with the name of a cache");
                            section.found(Kind::TierMissing, format!("{part} is not set"), remedy);
                        }
                    }
                }
            }
            // As a part of a tiered cache they are fine.
            Some(b"posix" | b"ram") if seen.len() > 1 => {}
            Some(b"posix" | b"ram") => {
                let found = format!("{type_key} is {}", type_name.unwrap_or_default().display());
                section.found(Kind::NotExternal, found, format!("write {type_key}=external"));
                plugins.extend(self.is_plugin(name).then(|| name.to_owned()));
            }
            Some(_) => {
                let found = format!("{type_key} is {:?}", type_name.unwrap_or_default().display());
                section.found(Kind::TypeUnknown, found, format!("write {type_key}=external"));
                plugins.extend(self.is_plugin(name).then(|| name.to_owned()));
            }
            None if self.is_unknown(&type_key) => {
                plugins.extend(self.is_plugin(name).then(|| name.to_owned()));
            }
            None => {
                let found = format!("{type_key} is not set in {}", self.path().display());
                let remedy = match external.first() {
                    Some(other) => format!("add {type_key}=external, or use the cache {other}"),
                    None => format!("add {type_key}=external"),
                };
                section.found(Kind::TypeMissing, found, remedy);
                plugins.extend(self.is_plugin(name).then(|| name.to_owned()));
            }
        }
    }

    fn instance(&self, name: &str, user: &User, section: &mut Section) -> Instance {
        section.fine(format!("the cache {name} is a plugin"));
        let locator = self.locator(name, section);
        let starter_key = key(name, "CMDLINE");
        let simple = self.file.get(&starter_key).unwrap_or_default();
        let starter = match self.values.get(&starter_key) {
            Some(Value::Text(line)) if !line.is_empty() => {
                command_line::check(&starter_key, line, user, section)
            }
            Some(Value::Lost) if command_line::has_blank_for_comma(&starter_key, simple) => {
                command_line::check(&starter_key, simple, user, section)
            }
            Some(Value::Lost | Value::Unclear) => Starter::Unknown,
            _ => Starter::External,
        };
        Instance { name: name.to_owned(), locator, starter }
    }

    fn locator(&self, name: &str, section: &mut Section) -> Option<Locator> {
        let key = key(name, "LOCATOR");
        let Some(text) = self.text(&key) else {
            if !self.is_unknown(&key) {
                let found = format!("{key} is not set in {}", self.path().display());
                let remedy = format!("add {key}= with the plugin's CVMFS_CACHE_PLUGIN_LOCATOR");
                section.found(Kind::ClientLocatorMissing, found, remedy);
            }
            return None;
        };
        match Locator::from_os_str(text) {
            Ok(locator) => {
                check_for_client(&key, &locator, section);
                Some(locator)
            }
            Err(error) => {
                let remedy = format!("write {key}=unix=/path/to/socket");
                section.found(Kind::ClientLocatorBad, format!("{key}: {error}"), remedy);
                None
            }
        }
    }

    /// All caches that are plugins, used or not.
    fn external(&self) -> Vec<String> {
        let names = self.values.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix("CVMFS_CACHE_")?.strip_suffix("_TYPE")?;
            (*value == Value::Text("external".into())).then(|| name.to_owned())
        });
        names.collect()
    }

    /// The value of a key; `None` if it is not there, empty, or not known.
    fn text(&self, key: &str) -> Option<&OsStr> {
        match self.values.get(key) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// True if there is a value, which has been complained of already.
    fn is_unknown(&self, key: &str) -> bool {
        matches!(self.values.get(key), Some(Value::Lost | Value::Unclear))
    }
}

/// The key of a cache.
pub(crate) fn key(instance: &str, what: &str) -> String {
    format!("CVMFS_CACHE_{instance}_{what}")
}

fn is_instance_name(name: &str) -> bool {
    name.len() <= 24 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Finds what plugins understand and the client does not.
fn check_for_client(key: &str, locator: &Locator, section: &mut Section) {
    let (found, remedy) = match locator {
        Locator::Unix(path) if path.as_os_str().as_bytes().contains(&b'=') => (
            format!("{key}={locator}: the client ends the path at the second ="),
            "choose a path without =, for the plugin too".to_owned(),
        ),
        Locator::Unix(path) if path.is_relative() => {
            let remedy = format!("write the whole path, as in {key}=unix=/path/to/socket");
            section.found(Kind::PathRelative, format!("{key}={locator}"), remedy);
            return;
        }
        Locator::Tcp { host, .. } if host.parse::<Ipv4Addr>().is_err() => (
            format!("{key}={locator}: the client takes no host but an IPv4 address"),
            format!("write the address of {host:?}, as in {key}=tcp=127.0.0.1:4224"),
        ),
        Locator::Tcp { host, port: 0 } => (
            format!("{key}={locator}: there is no port 0 to connect to"),
            format!("choose a port for both, as in {key}=tcp={host}:4224"),
        ),
        _ => return,
    };
    section.found(Kind::LocatorNotForClient, found, remedy);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &[u8]) -> ClientConf {
        ClientConf::new(ConfFile::parse(Path::new("default.local"), text))
    }

    #[test]
    fn the_plugins_of_a_tiered_cache_are_found() {
        let conf = conf(
            b"CVMFS_CACHE_PRIMARY=both\nCVMFS_CACHE_both_TYPE=tiered\nCVMFS_CACHE_both_UPPER=ram\n\
              CVMFS_CACHE_both_LOWER=default\nCVMFS_CACHE_ram_TYPE=external\n\
              CVMFS_CACHE_ram_LOCATOR=unix=/s",
        );
        let mut section = Section::new("file");
        let instances = conf.instances(&User::current(), &mut section);
        assert_eq!(section.kinds(), []);
        assert_eq!(instances.len(), 1);
        assert_eq!(instances[0].name, "ram");
        assert_eq!(instances[0].locator, Some("unix=/s".parse().unwrap()));
    }

    #[test]
    fn tiers_of_any_depth_are_followed_without_delay() {
        let tier = |n: usize| {
            format!(
                "CVMFS_CACHE_t{n}_TYPE=tiered\nCVMFS_CACHE_t{n}_UPPER=u{n}\n\
                 CVMFS_CACHE_u{n}_TYPE=posix\nCVMFS_CACHE_t{n}_LOWER=t{}\n",
                n + 1
            )
        };
        let tiers: String = (0..12_000).map(tier).collect();
        let text = format!("CVMFS_CACHE_PRIMARY=t0\nCVMFS_CACHE_t12000_TYPE=external\n{tiers}");
        let mut section = Section::new("file");
        let instances = conf(text.as_bytes()).instances(&User::current(), &mut section);
        assert_eq!(instances.len(), 1);
    }

    #[test]
    fn mistakes_in_the_definition_of_a_cache_are_found() {
        const RAM: &str = "CVMFS_CACHE_PRIMARY=ram\nCVMFS_CACHE_ram_TYPE=external\n";
        const TIERED: &str = "CVMFS_CACHE_PRIMARY=both\nCVMFS_CACHE_both_TYPE=tiered\n";
        const LOCATOR: &str = "CVMFS_CACHE_ram_LOCATOR=";
        for (text, kind) in [
            (String::new(), Kind::PrimaryMissing),
            ("CVMFS_CACHE_PRIMARY=".to_owned(), Kind::PrimaryMissing),
            ("CVMFS_CACHE_PRIMARY=default".to_owned(), Kind::PrimaryMissing),
            ("CVMFS_CACHE_PRIMARY=a-b".to_owned(), Kind::InstanceNameBad),
            ("CVMFS_CACHE_PRIMARY=ram".to_owned(), Kind::TypeMissing),
            ("CVMFS_CACHE_PRIMARY=ram\nCVMFS_CACHE_ram_TYPE=plugin".to_owned(), Kind::TypeUnknown),
            ("CVMFS_CACHE_PRIMARY=ram\nCVMFS_CACHE_ram_TYPE=ram".to_owned(), Kind::NotExternal),
            (format!("{TIERED}CVMFS_CACHE_both_UPPER=default"), Kind::TierMissing),
            (
                format!("{TIERED}CVMFS_CACHE_both_UPPER=default\nCVMFS_CACHE_both_LOWER=both"),
                Kind::TiersCircular,
            ),
            (
                format!("{RAM}{LOCATOR}unix=/s\nCVMFS_CACHE_ram_CMDLIN=/p"),
                Kind::ClientKeyMisspelled,
            ),
            (
                format!("{RAM}{LOCATOR}unix=/s\nCVMFS_CACHE_ram_cmdline=/p"),
                Kind::ClientKeyMisspelled,
            ),
            (RAM.to_owned(), Kind::ClientLocatorMissing),
            (format!("{RAM}{LOCATOR}/path"), Kind::ClientLocatorBad),
            (format!("{RAM}{LOCATOR}unix=/a=b"), Kind::LocatorNotForClient),
            (format!("{RAM}{LOCATOR}tcp=localhost:1"), Kind::LocatorNotForClient),
            (format!("{RAM}{LOCATOR}tcp=127.0.0.1:0"), Kind::LocatorNotForClient),
            (format!("{RAM}{LOCATOR}tcp=[::1]:4"), Kind::LocatorNotForClient),
            (format!("{RAM}{LOCATOR}unix=socket"), Kind::PathRelative),
        ] {
            let mut section = Section::new("file");
            conf(text.as_bytes()).instances(&User::current(), &mut section);
            assert_eq!(section.kinds(), [kind], "{text}");
        }
    }

    #[test]
    fn a_cache_of_a_wrong_type_is_examined_as_the_plugin_that_it_is_meant_to_be() {
        const REST: &str = "CVMFS_CACHE_ram_LOCATOR=unix=/s\nCVMFS_CACHE_PRIMARY=";
        for text in [
            format!("CVMFS_CACHE_ram_TYPE=externl\n{REST}ram"),
            format!("CVMFS_CACHE_ram_TYPE=posix\n{REST}ram"),
            format!("CVMFS_CACHE_ram_TYPE=$TYPE\n{REST}ram"),
            format!("{REST}ram"),
            format!("CVMFS_CACHE_ram_TYPE=external\n{REST}rma"),
            format!("CVMFS_CACHE_ram_TYPE=external\n{REST}r.m"),
        ] {
            let mut section = Section::new("file");
            let instances = conf(text.as_bytes()).instances(&User::current(), &mut section);
            assert_eq!(instances.len(), 1, "{text}");
            assert_eq!(instances[0].locator, Some("unix=/s".parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn lines_that_a_shell_parses_differently_are_found() {
        for (text, kind) in [
            (&b"CVMFS_CACHE_PRIMARY = ram"[..], Kind::NotAnAssignment),
            (b"CVMFS_CACHE_PRIMARY=ram\r", Kind::CarriageReturn),
            (b"CVMFS_CACHE_PRIMARY=$NAME", Kind::NotExpanded),
            (b"CVMFS_CACHE_PRIMARY=\"ram", Kind::QuoteNotClosed),
            (b". /etc/site.conf", Kind::NotExpanded),
            (b"CVMFS_CACHE_PRIMARY=a\nCVMFS_CACHE_PRIMARY=b", Kind::KeyTwice),
        ] {
            let mut section = Section::new("file");
            conf(text).check_lines(&mut section);
            assert_eq!(section.kinds(), [kind], "{text:?}");
        }
    }
}
