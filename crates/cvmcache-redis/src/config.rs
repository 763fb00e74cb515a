//! The configuration: the server, the size of the cache, its secret. All of it is parsed here once, into
//! types that are valid by construction.

pub(crate) mod keys;
mod secret;
mod server;
mod tls;

use std::error::Error;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cvmcache::{ConfigKey, Options, OptionsError};
use thiserror::Error;

use keys::*;
pub use secret::{Secret, SecretError};
pub use server::{Server, ServerError};
pub use tls::{Tls, TlsError};

pub(crate) use secret::read_password;
pub(crate) use server::Address;

/// How a [`RedisCache`](crate::RedisCache) is set up.
///
/// [`from_options`](Self::from_options) reads these keys of a plugin's configuration:
///
#[doc = include_str!("config/keys.md")]
///
/// Instead of the URL, `CVMFS_CACHE_PLUGIN_REDIS_SERVER_ADDRESS` and `.._REDIS_SERVER_PORT` may
/// name a server without TLS and password; the port is 6379 by default. A key
/// `CVMFS_CACHE_redis_X` is understood as `CVMFS_CACHE_PLUGIN_X`, as everywhere.
///
/// A program of its own may set the fields instead. Their bounds are not checked then.
///
/// ```
/// use std::time::Duration;
/// use cvmcache_redis::Config;
///
/// let mut config = Config::new("redis://cache.example.org:6379")?;
/// config.size = 20 << 30;
/// config.prefix = "cvmfs-test".parse()?;
/// config.timeout = Duration::from_secs(2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The server, and the login.
    pub server: Server,
    /// A file with the password, which is read whenever a connection is made; the URL has none
    /// then.
    pub password_file: Option<PathBuf>,
    /// The authorities and the certificate for TLS; the authorities of the system by default.
    pub tls: Option<Tls>,
    /// What the objects may take of the server's memory, in bytes; default 1000 MiB, at least 100 MiB.
    /// All plugins that share the server must be configured alike, and have the same `prefix` and
    /// `secret`.
    pub size: u64,
    /// What the names of all keys begin with; default `cvmfs`.
    pub prefix: Prefix,
    /// The secret of the key file; `None` checks data against accidents only.
    pub secret: Option<Secret>,
    /// Lets a session see only what its own repository has added; default false.
    pub per_repository: bool,
    /// How long a request waits for the server; from 100 ms to 60 s, default 5 s.
    pub timeout: Duration,
    /// How long objects stay pinned, and uploads stay on the server, after their plugin has died; from 3 s
    /// to 1 hour, default 60 s. It is renewed three times in this time.
    pub lease: Duration,
}

/// Why there is no cache with this configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A key is missing or makes no sense.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The URL is none of a Redis server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server denies access.
    #[error(
        "the Redis server at {server} denies access ({code}); correct user and password in \
         {url}, or the password in the file of {file}", url = URL.name(), file = PASSWORD_FILE.name()
    )]
    AccessDenied {
        /// The server, without the password.
        server: String,
        /// The code of the server's answer, such as `WRONGPASS`.
        code: String,
    },
    /// The system refuses something.
    #[error("cannot start the Redis cache: {0}")]
    Io(#[from] std::io::Error),
}

const MEGABYTE: u64 = 1024 * 1024;

/// A smaller cache could not keep the catalogs of one mount.
const MIN_SIZE: u64 = 100 * MEGABYTE;

impl Config {
    /// The defaults, for the server at this URL: [`Server`] documents its form. It does not
    /// connect.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Server`] if the URL is none of a Redis server.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        Ok(Self::for_server(url.parse()?))
    }

    fn for_server(server: Server) -> Self {
        Self {
            server,
            password_file: None,
            tls: None,
            size: 1000 * MEGABYTE,
            prefix: Prefix("cvmfs".to_owned()),
            secret: None,
            per_repository: false,
            timeout: Duration::from_secs(5),
            lease: Duration::from_secs(60),
        }
    }

    /// Reads the options of a plugin, and the files that they name. [`Config`] lists them.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Options`], which names the key, if one is missing, makes no sense or is out of
    /// its bounds, or a file cannot be used.
    pub fn from_options(options: &Options) -> Result<Self, ConfigError> {
        let mut config = Self::for_server(server(options)?);
        config.password_file = password_file(options, &config.server)?;
        config.tls = tls(options, &config.server)?;
        if let Some(megabytes) = options.value::<Megabytes>(&SIZE)? {
            config.size = megabytes.0;
        }
        if let Some(prefix) = options.value(&PREFIX)? {
            config.prefix = prefix;
        }
        config.secret = secret(options)?;
        if let Some(switch) = options.value::<Switch>(&PER_REPOSITORY)? {
            config.per_repository = switch.0;
        }
        if let Some(ms) = options.value(&TIMEOUT)? {
            config.timeout = Duration::from_millis(ms);
        }
        if let Some(seconds) = options.value(&LEASE)? {
            config.lease = Duration::from_secs(seconds);
        }
        Ok(config)
    }
}

impl Config {
    /// All that is wrong with the options of a plugin, while
    /// [`from_options`](Self::from_options) stops at the first.
    pub(crate) fn errors(options: &Options) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        match server(options) {
            Ok(server) => {
                errors.extend(password_file(options, &server).err());
                errors.extend(tls(options, &server).err());
            }
            Err(error) => {
                errors.push(error);
                // The files can be judged without a server.
                errors.extend(options.get(PASSWORD_FILE).and_then(|path| {
                    let path = Path::new(path);
                    let error = secret::read_password(path).err()?;
                    Some(bad_password_file(options, path, error))
                }));
                if [CA, CERT, CERT_KEY].into_iter().any(|key| options.get(key).is_some()) {
                    errors.extend(certificates(options).err());
                }
            }
        }
        errors.extend(options.value::<Megabytes>(&SIZE).err());
        errors.extend(options.value::<Prefix>(&PREFIX).err());
        errors.extend(secret(options).err());
        errors.extend(options.value::<Switch>(&PER_REPOSITORY).err());
        errors.extend(options.value::<u64>(&TIMEOUT).err());
        errors.extend(options.value::<u64>(&LEASE).err());
        errors.into_iter().map(ConfigError::from).collect()
    }
}

fn secret(options: &Options) -> Result<Option<Secret>, OptionsError> {
    let Some(path) = options.get(KEYFILE).map(Path::new) else { return Ok(None) };
    Secret::from_file(path).map(Some).map_err(|error| options.bad_value(KEYFILE, error))
}

/// The URL or, as the tutorial's plugin has it, address and port.
fn server(options: &Options) -> Result<Server, OptionsError> {
    if let Some(url) = options.get(URL) {
        let parsed = match url.to_str() {
            _ if is_cut_by_comment(options, URL) => Err(ServerError::cut_by_comment()),
            Some(url) => url.parse(),
            None => Err(ServerError::not_utf8()),
        };
        return parsed.map_err(|error: ServerError| OptionsError::Value {
            key: options.written(URL),
            // What stands there may hold a password.
            value: error.url().into(),
            file: options.source().map(Path::to_owned),
            source: error.into_reason().into(),
        });
    }
    let Some(host) = options.value::<String>(&SERVER_ADDRESS)? else {
        return Err(
            options.missing(URL, format!("name the server, as in {}={EXAMPLE}", URL.name()))
        );
    };
    let port = options.value::<u16>(&SERVER_PORT)?.unwrap_or(DEFAULT_PORT);
    Server::at(&host, port).map_err(|error| OptionsError::Value {
        key: options.written(SERVER_ADDRESS),
        // A URL with a password may stand there.
        value: "***".into(),
        file: options.source().map(Path::to_owned),
        source: error.into_reason().into(),
    })
}

/// Whether a comment begins within the value of a key: what stands before it may be a part of a
/// password that looks like host and port.
fn is_cut_by_comment(options: &Options, key: ConfigKey) -> bool {
    let Some(content) = options.source().and_then(|path| std::fs::read(path).ok()) else {
        return false;
    };
    let written = options.written(key);
    let lines = content.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.starts_with(b"#")).any(|line| {
        let line = String::from_utf8_lossy(line);
        let Some((name, value)) = line.split_once('=') else { return false };
        let is_key = name.split_ascii_whitespace().next_back() == Some(written.as_str());
        let cut = value.split_once('#').map(|(before, _)| before);
        is_key && cut.is_some_and(|before| !before.ends_with([' ', '\t']) && !before.is_empty())
    })
}

/// The error of a password file that cannot be read. What has no `/` may be the password itself.
fn bad_password_file(options: &Options, path: &Path, error: SecretError) -> OptionsError {
    if path.as_os_str().as_encoded_bytes().contains(&b'/') {
        return options.bad_value(PASSWORD_FILE, error);
    }
    OptionsError::Value {
        key: options.written(PASSWORD_FILE),
        value: "***".into(),
        file: options.source().map(Path::to_owned),
        source: "it is no file; write the password into a file, and the path of that here".into(),
    }
}

const EXAMPLE: &str = "redis://localhost:6379";
const DEFAULT_PORT: u16 = 6379;

fn password_file(options: &Options, server: &Server) -> Result<Option<PathBuf>, OptionsError> {
    let Some(path) = options.get(PASSWORD_FILE).map(PathBuf::from) else { return Ok(None) };
    let bad = |reason: Box<dyn Error + Send + Sync>| options.bad_value(PASSWORD_FILE, reason);
    if server.password().is_some() {
        return Err(
            bad(format!("{} has a password already; take it out there", URL.name()).into()),
        );
    }
    secret::read_password(&path).map_err(|error| bad_password_file(options, &path, error))?;
    Ok(Some(path))
}

fn tls(options: &Options, server: &Server) -> Result<Option<Tls>, OptionsError> {
    let path = |key: ConfigKey| options.get(key).map(Path::new);
    if !server.uses_tls() {
        return match [CA, CERT, CERT_KEY].into_iter().find(|&key| path(key).is_some()) {
            Some(key) => {
                let reason =
                    format!("it is of no use without TLS; write rediss:// in {}", URL.name());
                Err(options.bad_value(key, reason))
            }
            None => Ok(None),
        };
    }
    certificates(options).map(Some)
}

/// The files of certificates, which are for a server with TLS.
fn certificates(options: &Options) -> Result<Tls, OptionsError> {
    let path = |key: ConfigKey| options.get(key).map(Path::new);
    let identity = match (path(CERT), path(CERT_KEY)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return Err(options.missing(CERT_KEY, "name the file with its key")),
        (None, Some(_)) => return Err(options.missing(CERT, "name the file with its certificate")),
    };
    Tls::new(path(CA), identity).map_err(|error| {
        let key = match &error {
            TlsError::Identity { .. } => CERT,
            TlsError::Key { .. } => CERT_KEY,
            TlsError::Certificate { path: bad, .. } if path(CERT) == Some(bad) => CERT,
            _ => CA,
        };
        options.bad_value(key, error)
    })
}

/// What the names of all keys on the server begin with: letters, digits, `.`, `_`, `-`, `/` and
/// `:`, at most 64 of them. Braces would move keys to other slots of a Cluster, and stars change
/// what an ACL rule with them means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

/// A text cannot be a [`Prefix`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("it has to be 1 to 64 letters, digits or any of . _ - / :")]
pub struct PrefixError(());

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
        if text.is_empty() || text.len() > 64 || !text.chars().all(is_allowed) {
            return Err(PrefixError(()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl std::ops::Deref for Prefix {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Megabytes, as bytes.
struct Megabytes(u64);

impl FromStr for Megabytes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.ends_with('%') {
            return Err(
                "the plugin does not know the memory of the server; write megabytes, as in 1000",
            );
        }
        let bytes = text.parse().ok().and_then(|number: u64| number.checked_mul(MEGABYTE));
        let bytes = bytes.ok_or("it is no number of megabytes; write one, as in 1000")?;
        Ok(Self(bytes.max(MIN_SIZE)))
    }
}

struct Switch(bool);

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The values that the client's own parser accepts.
        match text.to_ascii_lowercase().as_str() {
            "on" | "yes" | "true" | "1" => Ok(Self(true)),
            "off" | "no" | "false" | "0" => Ok(Self(false)),
            _ => Err("write on or off"),
        }
    }
}

#[cfg(test)]
mod tests;
