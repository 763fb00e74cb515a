//! Where a plugin listens: the `unix=…` and `tcp=…` of client and plugin configurations.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Where a plugin listens, and a client finds it.
///
/// ```
/// use cvmcache::Locator;
///
/// let unix: Locator = "unix=/var/lib/cvmfs/cache.socket".parse()?;
/// assert!(matches!(unix, Locator::Unix(_)));
/// let tcp: Locator = "tcp=[::1]:4224".parse()?;
/// assert_eq!(tcp.to_string(), "tcp=[::1]:4224");
/// # Ok::<(), cvmcache::LocatorError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Locator {
    /// `unix=PATH`: a unix domain socket. The path need not be UTF-8, and may be longer than the
    /// 107 bytes that fit into a socket address; a relative one is taken from the working
    /// directory.
    Unix(PathBuf),
    /// `tcp=HOST:PORT`. The host is a name, an IPv4 address or an IPv6 address in brackets. An
    /// empty one is every address of this machine to a plugin, and `localhost` to a
    /// [client](crate::client). A plugin listens on the first address of a name that it can have.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// The port; 0 lets the system choose one, which
        /// [`BoundServer::locator`](crate::BoundServer::locator) has.
        port: u16,
    },
}

/// Why a text is not a locator.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LocatorError {
    /// It starts with neither `unix=` nor `tcp=`.
    #[error("{locator:?} is not a locator: use unix=/path/to/socket or tcp=host:port")]
    Scheme {
        /// The text in question.
        locator: OsString,
    },
    /// There is nothing after `unix=`, or it holds a zero byte.
    #[error("{locator:?} names no path: use unix=/path/to/socket")]
    Path {
        /// The text in question.
        locator: OsString,
    },
    /// What follows `tcp=` is not a host and a port.
    #[error(
        "{locator:?} names no address: use tcp=host:port, with a port from 0 to 65535 and an \
         IPv6 address in brackets, as in tcp=[::1]:4224"
    )]
    Address {
        /// The text in question.
        locator: OsString,
    },
}

impl Locator {
    /// Reads a locator that need not be UTF-8.
    ///
    /// # Errors
    ///
    /// [`LocatorError`], which shows the form of a locator. The address of a `tcp=` has to be
    /// UTF-8.
    pub fn from_os_str(text: &OsStr) -> Result<Self, LocatorError> {
        let bytes = text.as_bytes();
        let locator = || text.to_owned();
        if let Some(path) = bytes.strip_prefix(b"unix=") {
            if path.is_empty() || path.contains(&0) {
                return Err(LocatorError::Path { locator: locator() });
            }
            return Ok(Self::Unix(OsString::from_vec(path.to_vec()).into()));
        }
        let Some(address) = bytes.strip_prefix(b"tcp=") else {
            return Err(LocatorError::Scheme { locator: locator() });
        };
        std::str::from_utf8(address)
            .ok()
            .and_then(parse_address)
            .ok_or_else(|| LocatorError::Address { locator: locator() })
    }
}

impl From<&Locator> for OsString {
    /// As it stands in a configuration, without loss.
    fn from(locator: &Locator) -> Self {
        match locator {
            Locator::Unix(path) => {
                let mut text = OsString::from("unix=");
                text.push(path);
                text
            }
            tcp @ Locator::Tcp { .. } => tcp.to_string().into(),
        }
    }
}

fn parse_address(address: &str) -> Option<Locator> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    // A sign is fine with the parser of numbers, but not here.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Locator::Tcp { host: host.to_owned(), port: port.parse().ok()? })
}

impl FromStr for Locator {
    type Err = LocatorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_os_str(text.as_ref())
    }
}

/// As it stands in a configuration. A path that is not UTF-8 is shown with replacements; converting the
/// locator into an [`OsString`] keeps it.
impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Locator::Unix(path) => write!(f, "unix={}", path.display()),
            Locator::Tcp { host, port } if host.contains(':') => write!(f, "tcp=[{host}]:{port}"),
            Locator::Tcp { host, port } => write!(f, "tcp={host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locators_print_as_they_parse() {
        for text in
            ["unix=/a/b", "unix=relative=with=signs", "tcp=host:1", "tcp=[::1]:65535", "tcp=:80"]
        {
            assert_eq!(text.parse::<Locator>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_path_need_not_be_utf8() {
        let locator = Locator::from_os_str(OsStr::from_bytes(b"unix=/caf\xe9")).unwrap();
        assert_eq!(locator, Locator::Unix(OsStr::from_bytes(b"/caf\xe9").into()));
        assert_eq!(OsString::from(&locator), OsStr::from_bytes(b"unix=/caf\xe9"));
    }

    #[test]
    fn an_invalid_locator_is_an_error_with_an_example() {
        for (text, remedy) in [
            ("", "use unix=/path/to/socket or tcp=host:port"),
            ("/tmp/socket", "use unix=/path/to/socket or tcp=host:port"),
            ("unix=", "use unix=/path/to/socket"),
            ("tcp=localhost", "use tcp=host:port"),
            ("tcp=localhost:", "use tcp=host:port"),
            ("tcp=localhost:70000", "from 0 to 65535"),
            ("tcp=localhost:+80", "use tcp=host:port"),
            ("tcp=::1:80", "in brackets"),
            ("tcp=[::1:80", "in brackets"),
        ] {
            let error = text.parse::<Locator>().unwrap_err().to_string();
            assert!(error.contains(remedy), "{text}: {error}");
            assert!(error.contains(text), "{text}: {error}");
        }
    }
}
