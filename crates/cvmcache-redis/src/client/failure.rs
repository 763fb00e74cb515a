//! Failures of requests to the server, and the status that a client gets for each.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use cvmcache::plugin::Status;
use redis::{ErrorKind, RedisError};
use thiserror::Error;

use crate::config::keys::URL;

/// Why a request to the server failed. Invariant: it never holds what may be a password. Of an error
/// of a login, only the code is kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Failure {
    #[error("the server cannot be reached")]
    Unreachable,
    #[error("no reply within the timeout")]
    Timeout,
    #[error("the server is out of memory")]
    OutOfMemory,
    #[error("the server refuses to write ({0}){remedy}", remedy = remedy_of(.0))]
    ReadOnly(String),
    #[error("the server is not ready ({0}){remedy}", remedy = remedy_of(.0))]
    Unready(String),
    #[error("access denied ({0}); correct user, password or the user's permissions")]
    AccessDenied(String),
    #[error("command refused: {0}")]
    Refused(String),
    #[error("invalid response: {0}")]
    InvalidResponse(String),
}

/// The remedy for a server that refuses requests with this code.
pub(super) fn remedy(code: &str) -> Option<String> {
    let remedy = match code {
        "READONLY" => return Some(format!("it is a replica: name its primary in {}", URL.name())),
        "MISCONF" => "it cannot save its data: make room on its disk, see its own log",
        "NOREPLICAS" => "it has fewer replicas than its min-replicas-to-write: start them",
        "LOADING" => "it loads its data: wait until it is ready",
        "BUSY" => "a script or function of another client runs too long: wait, or send SCRIPT KILL",
        "MASTERDOWN" => "it is a replica that has lost its primary: start that, or fail over",
        "CLUSTERDOWN" => {
            "slots of the Cluster have no server: start it, or set cluster-require-full-coverage no"
        }
        _ => return None,
    };
    Some(remedy.to_owned())
}

fn remedy_of(code: &str) -> String {
    remedy(code).map(|remedy| format!("; {remedy}")).unwrap_or_default()
}

impl Failure {
    /// Whether the server refuses over this connection what it, or the server that its name leads to by now, may
    /// do over another one. Nothing was done.
    pub(super) fn is_of_this_connection(&self) -> bool {
        match self {
            Self::ReadOnly(code) => matches!(code.as_str(), "READONLY" | "NOREPLICAS"),
            Self::Unready(code) => matches!(code.as_str(), "LOADING" | "BUSY" | "MASTERDOWN"),
            // The password is read again.
            Self::AccessDenied(code) => code == "NOAUTH",
            _ => false,
        }
    }

    /// Whether a Cluster refuses because slots have no server. Nothing was done.
    pub(super) fn is_of_cluster(&self) -> bool {
        matches!(self, Self::Unready(code) if code == "CLUSTERDOWN")
    }

    /// The server's code of a refusal, if it is one of few.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::ReadOnly(code) | Self::Unready(code) => code,
            _ => "",
        }
    }

    /// The failure that an error of a login is.
    pub(super) fn of_login(error: &RedisError) -> Self {
        match error.kind() {
            // The server's text may repeat what was sent.
            ErrorKind::AuthenticationFailed => Self::AccessDenied("AUTH".to_owned()),
            ErrorKind::Io | ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
                Self::from(error.clone())
            }
            _ => Self::AccessDenied("SELECT".to_owned()),
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let text = || error.to_string();
        match error.kind() {
            ErrorKind::Io => match io_source(&error).map(io::Error::kind) {
                Some(io::ErrorKind::InvalidData) if is_too_large(&error) => {
                    Self::InvalidResponse(text())
                }
                Some(io::ErrorKind::TimedOut) => Self::Timeout,
                _ => Self::Unreachable,
            },
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
                Self::InvalidResponse(error.category().to_owned())
            }
            _ => match error.code().unwrap_or_default() {
                "OOM" => Self::OutOfMemory,
                code @ ("READONLY" | "MISCONF" | "NOREPLICAS") => Self::ReadOnly(code.to_owned()),
                "ERR" if text().contains("cluster support disabled") => {
                    Self::Refused("it is no Cluster; write redis:// or rediss://".to_owned())
                }
                // A Cluster client follows these.
                code @ ("MOVED" | "ASK") => Self::Unready(format!(
                    "{code}: it is a node of a Cluster; write redis+cluster:// or rediss+cluster://"
                )),
                code @ ("LOADING" | "BUSY" | "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN") => {
                    Self::Unready(code.to_owned())
                }
                code @ ("NOAUTH" | "WRONGPASS") => Self::AccessDenied(code.to_owned()),
                "NOPERM" => {
                    Self::AccessDenied(format!("NOPERM {}", error.detail().unwrap_or_default()))
                }
                _ => Self::Refused(text()),
            },
        }
    }
}

/// The error of the system in an error of the redis crate, which shares them.
pub(super) fn io_source(error: &RedisError) -> Option<&io::Error> {
    let shared: &Arc<dyn StdError + Send + Sync> = error.source()?.downcast_ref()?;
    shared.downcast_ref()
}

/// Other data that is invalid is that of TLS, which ends with an alert.
fn is_too_large(error: &RedisError) -> bool {
    io_source(error).and_then(io::Error::get_ref).is_some_and(|error| !error.is::<rustls::Error>())
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Timeout => Status::Timeout,
            Failure::OutOfMemory => Status::NoSpace,
            _ => Status::IoErr,
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn error_reply(error: &str) -> Failure {
        let value = parse_redis_value(format!("-{error}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err().into()
    }

    fn code(code: &str) -> String {
        code.to_owned()
    }

    #[test]
    fn error_replies_are_mapped_by_their_code() {
        for (error, failure, status) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                Failure::OutOfMemory,
                Status::NoSpace,
            ),
            (
                "READONLY You can't write against a read only replica.",
                Failure::ReadOnly(code("READONLY")),
                Status::IoErr,
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots, but",
                Failure::ReadOnly(code("MISCONF")),
                Status::IoErr,
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                Failure::Unready(code("LOADING")),
                Status::IoErr,
            ),
            ("BUSY Redis is busy running a script.", Failure::Unready(code("BUSY")), Status::IoErr),
            (
                "CLUSTERDOWN Hash slot not served",
                Failure::Unready(code("CLUSTERDOWN")),
                Status::IoErr,
            ),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                Failure::Unready(code("TRYAGAIN")),
                Status::IoErr,
            ),
            (
                "NOAUTH Authentication required.",
                Failure::AccessDenied(code("NOAUTH")),
                Status::IoErr,
            ),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                Failure::AccessDenied(code("WRONGPASS")),
                Status::IoErr,
            ),
        ] {
            assert_eq!(error_reply(error), failure, "{error}");
            assert_eq!(Status::from(failure), status, "{error}");
        }
        let no_permission = "NOPERM no permission to run 'keys'";
        assert_eq!(error_reply(no_permission), Failure::AccessDenied(code(no_permission)));
        assert!(matches!(error_reply("WRONGTYPE Operation against"), Failure::Refused(_)));
        let oops = error_reply("ERR user_script:1: oops");
        assert!(matches!(oops, Failure::Refused(what) if what.contains("oops")));
        assert!(matches!(error_reply(""), Failure::Refused(_)));
    }

    #[test]
    fn an_error_in_a_script_is_mapped_by_the_code_that_it_passes_on() {
        // Redis 7 passes the error of a command in a script on with its code.
        let oom =
            "OOM command not allowed when used memory > 'maxmemory'. script: f, on @user_script:1.";
        assert_eq!(error_reply(oom), Failure::OutOfMemory);
    }

    #[test]
    fn a_reply_of_another_type_is_an_invalid_response() {
        let value = parse_redis_value(b"$3\r\nabc\r\n").unwrap();
        let error = redis::from_redis_value::<Vec<u64>>(value).unwrap_err();
        assert!(matches!(RedisError::from(error).into(), Failure::InvalidResponse(_)));
    }

    #[test]
    fn a_lost_connection_and_a_reply_over_the_bound_are_different_failures() {
        let failure = |kind| Failure::from(RedisError::from(io::Error::from(kind)));
        assert_eq!(failure(io::ErrorKind::ConnectionReset), Failure::Unreachable);
        assert_eq!(failure(io::ErrorKind::NotFound), Failure::Unreachable);
        assert_eq!(failure(io::ErrorKind::TimedOut), Failure::Timeout);
        let too_large = io::Error::new(io::ErrorKind::InvalidData, "too large");
        let too_large = Failure::from(RedisError::from(too_large));
        assert!(matches!(too_large, Failure::InvalidResponse(_)));
    }

    #[test]
    fn the_failure_of_a_login_does_not_repeat_the_password() {
        let error = (ErrorKind::AuthenticationFailed, "refused", "args: 'secret'".to_owned());
        assert_eq!(Failure::of_login(&error.into()), Failure::AccessDenied(code("AUTH")));
    }
}
