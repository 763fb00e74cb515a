//! The configuration keys of the SDK, in one table: parsing, `--help`, the documentation and
//! `cvmcache doctor` come from it.
//!
//! A plugin has a table of its own of the same type, see [`Program::keys`](crate::Program::keys).

use std::ffi::OsString;
use std::fmt;

/// What the keys of every plugin begin with.
pub const PREFIX: &str = "CVMFS_CACHE_PLUGIN_";

/// A configuration key: its name, the form of its value, its meaning, and what it is by
/// default.
///
/// ```
/// use cvmcache::{ConfigKey, Options};
///
/// const SIZE: ConfigKey =
///     ConfigKey::new("CVMFS_CACHE_PLUGIN_SIZE", "MB", "how large the cache may grow, in megabytes")
///         .bounds(100, 1_000_000)
///         .default_value("1000");
///
/// let options = Options::parse(b"CVMFS_CACHE_PLUGIN_SIZE=50");
/// let error = options.value::<u64>(&SIZE).unwrap_err().to_string();
/// assert_eq!(error, "CVMFS_CACHE_PLUGIN_SIZE=\"50\": write a number from 100 to 1000000");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigKey {
    name: &'static str,
    value: &'static str,
    meaning: &'static str,
    default: Default,
    bounds: Option<(u64, u64)>,
    is_secret: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Default {
    Unset,
    Value(&'static str),
    InWords(&'static str),
    Required,
}

impl ConfigKey {
    /// A key with its name, the syntax of its value, such as `MB` or `on|off`, and its meaning, in a
    /// line without a full stop.
    pub const fn new(name: &'static str, value: &'static str, meaning: &'static str) -> Self {
        Self { name, value, meaning, default: Default::Unset, bounds: None, is_secret: false }
    }

    /// What it is without a line in the configuration, as a line would have it; without this, the
    /// meaning has to include it.
    pub const fn default_value(mut self, text: &'static str) -> Self {
        self.default = Default::Value(text);
        self
    }

    /// The same for a default that is no value, or not always the same one.
    pub const fn default_in_words(mut self, text: &'static str) -> Self {
        self.default = Default::InWords(text);
        self
    }

    /// The key must be in the configuration.
    pub const fn required(mut self) -> Self {
        self.default = Default::Required;
        self
    }

    /// The value is a whole number from `min` to `max`, which
    /// [`Options::value`](crate::Options::value) makes sure of.
    pub const fn bounds(mut self, min: u64, max: u64) -> Self {
        self.bounds = Some((min, max));
        self
    }

    /// The value is a secret: the [administration socket](crate::admin) does not tell it.
    pub const fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    /// True if the value is a secret.
    pub const fn is_secret(&self) -> bool {
        self.is_secret
    }

    /// The name, as in a configuration file.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The syntax of the value.
    pub const fn value_syntax(&self) -> &'static str {
        self.value
    }

    /// The meaning, in a line.
    pub const fn meaning(&self) -> &'static str {
        self.meaning
    }

    /// The default, as a value or in words, if there is one that the meaning does not include.
    pub const fn default_text(&self) -> Option<&'static str> {
        match self.default {
            Default::Value(text) | Default::InWords(text) => Some(text),
            Default::Unset | Default::Required => None,
        }
    }

    /// The value that holds without a line in the configuration, if that is always the same one.
    pub const fn fixed_default(&self) -> Option<&'static str> {
        match self.default {
            Default::Value(text) => Some(text),
            Default::InWords(_) | Default::Unset | Default::Required => None,
        }
    }

    /// True if there is no start without it.
    pub const fn is_required(&self) -> bool {
        matches!(self.default, Default::Required)
    }

    /// The least and the most that a number may be.
    pub const fn number_bounds(&self) -> Option<(u64, u64)> {
        self.bounds
    }

    /// The key as a row of a Markdown table, whose columns are key, value, meaning and default.
    pub fn markdown_row(&self) -> String {
        // A bar would end the cell.
        let cell = |text: &str| text.replace('|', "\\|");
        let value = match self.bounds {
            Some((min, max)) => format!("`{}`, {min} to {max}", self.value),
            None => format!("`{}`", self.value),
        };
        let default = match self.default {
            Default::Unset => "not set",
            Default::Value(text) | Default::InWords(text) => text,
            Default::Required => "must be there",
        };
        let (value, meaning) = (cell(&value), cell(self.meaning));
        format!("| `{}` | {value} | {meaning} | {} |", self.name, cell(default))
    }
}

/// The name.
impl AsRef<str> for ConfigKey {
    fn as_ref(&self) -> &str {
        self.name
    }
}

/// The name, for [`Options::set`](crate::Options::set).
impl From<ConfigKey> for OsString {
    fn from(key: ConfigKey) -> Self {
        key.name.into()
    }
}

/// As a line of `--help`: `NAME=VALUE  meaning; bounds; default`.
impl fmt::Display for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}  {}", self.name, self.value, self.meaning)?;
        if let Some((min, max)) = self.bounds {
            write!(f, "; {min} to {max}")?;
        }
        match self.default {
            Default::Unset => Ok(()),
            Default::Value(text) | Default::InWords(text) => write!(f, "; by default {text}"),
            Default::Required => f.write_str("; must be there"),
        }
    }
}

/// The locator; see [`Locator`](crate::Locator).
pub const LOCATOR: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_LOCATOR",
    "unix=/path/to/socket|tcp=host:port",
    "where clients connect, as in their own configuration",
)
.required();

/// The number of workers; see [`ServerBuilder::workers`](crate::ServerBuilder::workers).
pub const WORKERS: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_WORKERS",
    "N",
    "threads that run callbacks; 0 runs them on the I/O thread, fastest for a cache in memory",
)
.bounds(0, 1024)
.default_in_words("what the plugin asks for, mostly 0");

/// The time of busy polling; see [`ServerBuilder::poll_for`](crate::ServerBuilder::poll_for).
pub const POLL: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_POLL",
    "N",
    "microseconds of busy polling for requests before the I/O thread sleeps, where it pays; \
     0 sleeps at once",
)
.bounds(0, 1000)
.default_value("200");

/// The networks of clients; see [`Networks`](crate::Networks).
pub const ALLOW: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_ALLOW",
    "NETWORK,...",
    "TCP: addresses or networks whose clients may connect, as in 10.0.0.0/8, ::1",
)
.default_in_words("all, with a warning unless the address is loopback");

/// The users of clients; see [`Users`](crate::Users).
pub const ALLOW_USERS: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_ALLOW_USERS",
    "USER,...|*",
    "unix: users whose clients may connect besides the plugin's own and root; * for all",
)
.default_in_words("no others");

/// The debug log; see [`Log`](crate::Log).
pub const DEBUG_LOG: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_DEBUGLOG",
    "FILE",
    "log everything to FILE, which becomes FILE.1 at 64 MiB",
)
.default_in_words("none");

/// The crash dump; see [`watchdog`](crate::watchdog).
pub const CRASH_DUMP: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_CRASH_DUMP",
    "FILE",
    "append reports of crashes and panics to FILE",
)
.default_in_words("only to syslog and standard error");

/// The address of the metrics; see [`MetricsAddress`](crate::MetricsAddress).
pub const METRICS: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_METRICS",
    "127.0.0.1:PORT",
    "serve metrics to Prometheus on this address, or on a port of the loopback address",
)
.default_in_words("none");

/// The administration socket; see [`admin`](crate::admin).
pub const ADMIN: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_ADMIN",
    "no|PATH",
    "serve an administration socket at PATH, for the plugin's user and root; no for none",
)
.default_in_words("beside the socket, with .admin appended");

/// A start for tests, in the background.
pub const TEST: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_TEST",
    "yes",
    "whatever the value: print the process id once it listens, and go to the background",
);

/// The keys of the SDK, which every plugin has.
pub static KEYS: &[ConfigKey] =
    &[LOCATOR, WORKERS, POLL, ALLOW, ALLOW_USERS, DEBUG_LOG, CRASH_DUMP, METRICS, ADMIN, TEST];

/// The name that is nearest to one that is none of the `known` keys, if it is so near that a slip of
/// the fingers explains it: one letter too many, too few, wrong or swapped in a name of up to 6
/// letters after [`PREFIX`], two in one of up to 12, and three in a longer one.
///
/// ```
/// use cvmcache::config_keys::{self, KEYS};
///
/// let nearest = |name| config_keys::nearest(name, KEYS.iter().map(|key| key.name()));
/// assert_eq!(nearest("CVMFS_CACHE_PLUGIN_WORKER"), Some("CVMFS_CACHE_PLUGIN_WORKERS"));
/// assert_eq!(nearest("CVMFS_CACHE_PLUGIN_TYPE"), None);
/// ```
#[cfg(feature = "program")]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name_len = name.chars().count();
    let near = known.into_iter().filter_map(|known| {
        let most = match known.strip_prefix(PREFIX).unwrap_or(known).chars().count() {
            0..=6 => 1,
            7..=12 => 2,
            _ => 3,
        };
        // A file may have many keys, and long ones: the distance takes the product of the lengths.
        if known.chars().count().abs_diff(name_len) > most {
            return None;
        }
        let (written, meant) = match (name.strip_prefix(PREFIX), known.strip_prefix(PREFIX)) {
            (Some(written), Some(meant)) => (written, meant),
            _ => (name, known),
        };
        let distance = strsim::damerau_levenshtein(written, meant);
        (distance <= most).then_some((distance, known))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

#[cfg(all(test, feature = "program"))]
mod tests {
    use super::*;

    #[test]
    fn only_a_key_with_few_edits_is_near() {
        let names: Vec<_> = KEYS.iter().map(ConfigKey::name).collect();
        let nearest = |rest: &str| {
            let name = format!("{PREFIX}{rest}");
            let near = super::nearest(&name, names.iter().copied())?;
            near.strip_prefix(PREFIX)
        };
        for (written, meant) in [
            ("LOCATR", "LOCATOR"),
            ("WORKER", "WORKERS"),
            ("DEBUG_LOG", "DEBUGLOG"),
            ("CRASHDUMP", "CRASH_DUMP"),
            ("ALLOW_USER", "ALLOW_USERS"),
            ("POLLL", "POLL"),
        ] {
            assert_eq!(nearest(written), Some(meant), "{written}");
        }
        for written in ["TYPE", "CMDLINE", "SIZE", "SHARED", "DIRECTORY", ""] {
            assert_eq!(nearest(written), None, "{written}");
        }
        let prefix = super::nearest("CVMFS_CACHE_PLUGN_TEST", names.iter().copied());
        assert_eq!(prefix, Some(TEST.name()));
    }

    #[test]
    fn every_key_has_its_own_name_and_documents_its_default() {
        for (number, key) in KEYS.iter().enumerate() {
            assert!(key.name().starts_with(PREFIX));
            assert!(KEYS[..number].iter().all(|other| other.name() != key.name()));
            assert!(!key.meaning().ends_with('.'), "{key}");
        }
        let poll = POLL.to_string();
        assert!(poll.ends_with("; 0 to 1000; by default 200"), "{poll}");
        assert!(ALLOW_USERS.markdown_row().contains(r"| `USER,...\|*` |"));
    }
}
