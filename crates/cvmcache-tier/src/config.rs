//! The configuration: which store, what is written to it and when, and how long it may take.

use std::str::FromStr;
use std::time::Duration;

use cvmcache::{ConfigKey, Options, OptionsError};
use thiserror::Error;
use url::Url;

use crate::cold::StoreSettings;

/// The configuration of a tier, besides that of its hot cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierConfig {
    /// The store.
    pub store: StoreSettings,
    /// When objects are written to the store.
    pub write: WritePolicy,
    /// What a client is told when an object cannot be written to the store.
    pub errors: ErrorPolicy,
    /// How objects that are in the store alone are read.
    pub read: ReadPolicy,
    /// Objects that have not been used for this long are archived; `None` for only by command.
    pub archive_after: Option<Duration>,
}

/// When objects are written to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WritePolicy {
    /// When they have not been used for a while; then the bytes here go.
    #[default]
    Archive,
    /// When a client stores them, before that is answered.
    Through,
    /// Soon after a client has stored them.
    Back,
}

/// What a client is told when an object cannot be written to the store with [`WritePolicy::Through`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorPolicy {
    /// Nothing: it is logged, and written later.
    #[default]
    Log,
    /// That it was not stored.
    Fail,
}

/// How objects that are in the store alone are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadPolicy {
    /// All of an object comes back when it is opened.
    #[default]
    Recall,
    /// Large objects stay in the store, and each read takes the blocks that it needs. A store that is away
    /// fails those reads.
    Ranges,
}

/// Why a text is none of the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("write {0}")]
pub struct ParsePolicyError(pub(crate) &'static str);

const STORE: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_STORE",
    "URL",
    "where cold objects are, as in s3://bucket/prefix: s3, gs, az, http, https (read only), file or memory",
)
.required();
const ENDPOINT: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_STORE_ENDPOINT",
    "URL",
    "the server, if it is not the provider's: http:// and https:// alike",
);
const REGION: ConfigKey =
    ConfigKey::new("CVMFS_CACHE_PLUGIN_STORE_REGION", "NAME", "the region of an s3 store")
        .default_value("us-east-1");
const CREDENTIALS: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_STORE_CREDENTIALS",
    "FILE",
    "credentials, for s3 in the form of ~/.aws/credentials; read again when the store refuses them",
)
.default_value("the environment, as the provider's tools read it");
const WRITE: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_STORE_WRITE",
    "archive|through|back",
    "when objects are written to the store: cold ones, all before the commit is answered, or all soon after it",
)
.default_value("archive");
const ERRORS: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_STORE_ERRORS",
    "log|fail",
    "with STORE_WRITE=through: whether a store that fails is only logged, or fails the commit",
)
.default_value("log");
const READ: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_STORE_READ",
    "recall|ranges",
    "whether objects come back whole when they are opened, or large ones are read from the store in blocks of 1 MiB",
)
.default_value("recall");
const ARCHIVE_AFTER: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_STORE_ARCHIVE_AFTER",
    "DURATION",
    "how long an object is not used until it is archived, as in 30d; 0 for only by command",
)
.default_value("30d");
const TIMEOUT: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_STORE_TIMEOUT",
    "DURATION",
    "how long the store may take without progress, as in 10s; an open fails after ten times that without a byte",
)
.default_value("10s");

impl TierConfig {
    /// The table of the tier's own keys.
    pub const KEYS: &'static [ConfigKey] =
        &[STORE, ENDPOINT, REGION, CREDENTIALS, WRITE, ERRORS, READ, ARCHIVE_AFTER, TIMEOUT];

    /// A tier on this store, with defaults for the rest.
    pub fn new(store: StoreSettings) -> Self {
        Self {
            store,
            write: WritePolicy::default(),
            errors: ErrorPolicy::default(),
            read: ReadPolicy::default(),
            archive_after: Some(ARCHIVE_AFTER_DEFAULT),
        }
    }

    /// Reads the configuration.
    ///
    /// # Errors
    ///
    /// If no store is configured, or a value makes no sense.
    pub fn from_options(options: &Options) -> Result<Self, OptionsError> {
        let Some(url) = parse_url(options, STORE)? else {
            let hint = "add a line like CVMFS_CACHE_PLUGIN_STORE=s3://bucket/prefix";
            return Err(options.missing(STORE, hint));
        };
        let mut store = StoreSettings::new(url);
        store.endpoint = parse_url(options, ENDPOINT)?;
        store.region = options.value(&REGION)?;
        store.credentials = options.get(CREDENTIALS).map(Into::into);
        if let Some(Period(timeout)) = options.value(&TIMEOUT)? {
            if timeout.is_zero() {
                return Err(options.bad_value(TIMEOUT, "write at least 1ms"));
            }
            if timeout > LONGEST_TIMEOUT {
                return Err(options.bad_value(TIMEOUT, "write at most 1000d"));
            }
            store.timeout = timeout;
        }
        let archive_after = match options.value(&ARCHIVE_AFTER)? {
            Some(Period(Duration::ZERO)) => None,
            Some(Period(after)) => Some(after),
            None => Some(ARCHIVE_AFTER_DEFAULT),
        };
        Ok(Self {
            store,
            write: options.value(&WRITE)?.unwrap_or_default(),
            errors: options.value(&ERRORS)?.unwrap_or_default(),
            read: options.value(&READ)?.unwrap_or_default(),
            archive_after,
        })
    }
}

/// Multiples of it have to be a time of the clock.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(1000 * 24 * 3600);
const ARCHIVE_AFTER_DEFAULT: Duration = Duration::from_secs(30 * 24 * 3600);

/// A URL. There may be a password in one that is refused, so the error does not repeat it.
fn parse_url(options: &Options, key: ConfigKey) -> Result<Option<Url>, OptionsError> {
    let Some(value) = options.get(key) else { return Ok(None) };
    let url = value.to_str().and_then(|text| Url::parse(text).ok());
    // The user of a web server may be a token; that of other stores names a container.
    let is_open = |url: &Url| url.username().is_empty() || !url.scheme().starts_with("http");
    let url = url.filter(|url| url.password().is_none() && is_open(url));
    let refused = || OptionsError::Value {
        key: options.written(key),
        value: "...".into(),
        file: options.source().map(Into::into),
        source: "write a URL as in s3://bucket/prefix, and passwords into the file of credentials"
            .into(),
    };
    url.map(Some).ok_or_else(refused)
}

/// A duration with its unit.
struct Period(Duration);

impl FromStr for Period {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let duration = humantime::parse_duration(text);
        duration
            .map(Self)
            .map_err(|_| ParsePolicyError("a number with its unit, as in 30d, 12h, 10s or 500ms"))
    }
}

impl FromStr for WritePolicy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "archive" => Ok(Self::Archive),
            "through" => Ok(Self::Through),
            "back" => Ok(Self::Back),
            _ => Err(ParsePolicyError("archive, through or back")),
        }
    }
}

impl FromStr for ErrorPolicy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "log" => Ok(Self::Log),
            "fail" => Ok(Self::Fail),
            _ => Err(ParsePolicyError("log or fail")),
        }
    }
}

impl FromStr for ReadPolicy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "recall" => Ok(Self::Recall),
            "ranges" => Ok(Self::Ranges),
            _ => Err(ParsePolicyError("recall or ranges")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<TierConfig, String> {
        let text = format!("CVMFS_CACHE_PLUGIN_STORE=s3://bucket/prefix\n{text}");
        let options = Options::parse(text.as_bytes());
        TierConfig::from_options(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let config = config("").unwrap();
        assert_eq!(
            config,
            TierConfig::new(StoreSettings::new(Url::parse("s3://bucket/prefix").unwrap()))
        );
        assert_eq!(config.store.timeout, Duration::from_secs(10));
        assert_eq!(config.archive_after, Some(Duration::from_secs(30 * 86400)));
    }

    #[test]
    fn durations_have_units_and_0_turns_archiving_off() {
        let after = |text| config(&format!("CVMFS_CACHE_PLUGIN_STORE_ARCHIVE_AFTER={text}"));
        assert_eq!(after("0").unwrap().archive_after, None);
        assert_eq!(after("12h").unwrap().archive_after, Some(Duration::from_secs(12 * 3600)));
        assert_eq!(after("500ms").unwrap().archive_after, Some(Duration::from_millis(500)));
        for bad in ["30", "d", "-1d", "1 fortnight", ""] {
            let error = after(bad).unwrap_err();
            assert!(error.contains("a number with its unit"), "{error}");
        }
    }

    #[test]
    fn an_invalid_value_is_an_error_with_a_remedy() {
        for (line, remedy) in [
            ("_WRITE=now", "archive, through or back"),
            ("_ERRORS=ignore", "log or fail"),
            ("_READ=whole", "recall or ranges"),
            ("_TIMEOUT=0", "at least 1ms"),
            ("_TIMEOUT=500000000000y", "at most 1000d"),
            ("_ENDPOINT=localhost", "a URL"),
        ] {
            let error = config(&format!("CVMFS_CACHE_PLUGIN_STORE{line}")).unwrap_err();
            assert!(error.contains(remedy), "{error}");
        }
        let error = TierConfig::from_options(&Options::new()).unwrap_err().to_string();
        assert!(error.contains("CVMFS_CACHE_PLUGIN_STORE is missing"), "{error}");
    }

    #[test]
    fn a_secret_in_a_url_is_refused() {
        for url in ["s3://user:hunter2@bucket", "https://hunter2@host/"] {
            let options = Options::parse(format!("CVMFS_CACHE_PLUGIN_STORE={url}").as_bytes());
            let error = TierConfig::from_options(&options).unwrap_err().to_string();
            assert!(error.contains("into the file of credentials"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
