//! The address of the server: one URL for a server, a unix socket and a Cluster. The redis crate
//! parses it; a list of hosts, which a Cluster may have, is taken apart here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo};
use thiserror::Error;

/// A Redis server, or a Cluster of them, and the login.
///
/// | URL | server |
/// |---|---|
/// | `redis://host:6379` | one server by TCP |
/// | `rediss://host:6379` | with TLS |
/// | `unix:///path/to/socket`, `redis+unix:///path/to/socket` | by a unix socket |
/// | `redis+cluster://host:port,host:port` | a Cluster; some of its nodes will do |
/// | `rediss+cluster://host:port,host:port` | with TLS |
///
/// User and password stand before the host, as in `redis://user:password@host`; a unix socket has
/// them behind the path, as in `?user=name&pass=password`. What is special in a URL is written
/// `%XX` there. A number of a database follows the host, as in `redis://host/1`, or the path, as
/// in `?db=1`; a Cluster has only 0.
///
/// `Display` and `Debug` leave the password out.
///
/// ```
/// use cvmcache_redis::Server;
///
/// let server: Server = "rediss://reader:secret@cache.example.org:6380".parse()?;
/// assert_eq!(server.to_string(), "rediss://cache.example.org:6380");
/// # Ok::<(), cvmcache_redis::ServerError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    addresses: Vec<Address>,
    cluster: bool,
    tls: bool,
    user: Option<String>,
    password: Option<String>,
    database: i64,
}

/// A URL is none of a Redis server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{url:?} is no URL of a Redis server: {reason}")]
pub struct ServerError {
    url: String,
    reason: &'static str,
}

/// The address of one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

const REMEDY: &str = "write redis://host:6379, rediss://host:6379 (TLS), unix:///path/to/socket or \
                      redis+cluster://host:port,host:port; what is special in a password is \
                      written %XX, and a # begins a comment";

impl Server {
    pub(super) fn at(host: &str, port: u16) -> Result<Self, ServerError> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("redis://{host}:{port}").parse()
    }

    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.cluster
    }

    pub(crate) fn uses_tls(&self) -> bool {
        self.tls
    }

    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The login, with this password.
    pub(crate) fn login(&self, password: Option<&str>) -> RedisConnectionInfo {
        // CLIENT SETINFO would need a permission.
        let mut login =
            RedisConnectionInfo::default().set_db(self.database).set_skip_set_lib_name();
        if let Some(user) = &self.user {
            login = login.set_username(user);
        }
        match password {
            Some(password) => login.set_password(password),
            None => login,
        }
    }
}

impl ServerError {
    pub(super) fn not_utf8() -> Self {
        Self { url: String::new(), reason: REMEDY }
    }

    /// A `#` stands in the URL, of which only what is before it was read.
    pub(super) fn cut_by_comment() -> Self {
        Self {
            url: "***".to_owned(),
            reason: "a # begins a comment; write %23 for one in a password",
        }
    }

    /// The scheme of the URL; the rest may hold a password.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn into_reason(self) -> &'static str {
        self.reason
    }
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let error = |reason| ServerError { url: redacted(url), reason };
        let (scheme, rest) = url.split_once("://").ok_or(error(REMEDY))?;
        let (scheme, cluster) = match scheme.strip_suffix("+cluster") {
            Some(scheme) => (scheme, true),
            None => (scheme, false),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, hosts) = match authority.rfind('@') {
            Some(at) => authority.split_at(at + 1),
            None => ("", authority),
        };
        let nodes: Vec<ConnectionInfo> = hosts
            .split(',')
            .map(|host| format!("{scheme}://{user}{host}{path}").parse())
            .collect::<Result<_, _>>()
            .map_err(|_| error(REMEDY))?;
        let addresses: Vec<_> = nodes.iter().filter_map(|node| Address::of(node.addr())).collect();
        let [first, ..] = nodes.as_slice() else { return Err(error(REMEDY)) };
        let (first, login) = (first.addr(), first.redis_settings());
        let tls = match first {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err(error("#insecure trusts any server; name a CA for the server instead"));
            }
            ConnectionAddr::TcpTls { .. } => true,
            _ => false,
        };
        if addresses.len() != nodes.len() {
            return Err(error(REMEDY));
        }
        if !cluster && addresses.len() > 1 {
            return Err(error("several hosts make a Cluster; write redis+cluster://"));
        }
        if cluster && !matches!(addresses[0], Address::Tcp { .. }) {
            return Err(error("a Cluster has no unix sockets; write redis+cluster://host:port"));
        }
        if cluster && login.db() != 0 {
            return Err(error("a Cluster has no database but 0; write none"));
        }
        if login.db() < 0 {
            return Err(error("databases are counted from 0"));
        }
        Ok(Self {
            addresses,
            cluster,
            tls,
            user: login.username().map(str::to_owned),
            password: login.password().map(str::to_owned),
            database: login.db(),
        })
    }
}

impl Address {
    fn of(address: &ConnectionAddr) -> Option<Self> {
        Some(match address {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Self::Tcp { host: host.clone(), port: *port }
            }
            ConnectionAddr::Unix(path) => Self::Unix(path.clone()),
            _ => return None,
        })
    }
}

/// What is shown of a URL that is none of a Redis server: its scheme. What follows may be a password, or a part of
/// one, wherever it stands: a `#` in it begins a comment, its `@` may be forgotten or written `%40`, and
/// what is before a `/` in it looks like host and port.
fn redacted(url: &str) -> String {
    const SHOWN: [&str; 11] = [
        "redis",
        "rediss",
        "unix",
        "redis+unix",
        "redis+cluster",
        "rediss+cluster",
        "unix+cluster",
        "valkey",
        "valkeys",
        "http",
        "https",
    ];
    match url.split_once("://") {
        Some((scheme, "")) if SHOWN.contains(&scheme) => format!("{scheme}://"),
        Some((scheme, _)) if SHOWN.contains(&scheme) => format!("{scheme}://***"),
        _ if url.is_empty() => String::new(),
        _ => "***".to_owned(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (&self.addresses[0], self.tls) {
            (Address::Unix(_), _) => "unix",
            (_, false) => "redis",
            (_, true) => "rediss",
        };
        write!(f, "{scheme}{}://", if self.cluster { "+cluster" } else { "" })?;
        for (n, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if n > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_deref().unwrap_or_default();
        write!(f, "Server({self}, user {user:?}, database {})", self.database)
    }
}
