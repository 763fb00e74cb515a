//! Why there is no connection to a server: the server's own words, and the remedy.

use std::io;

use redis::RedisError;
use rustls::{AlertDescription, CertificateError, InvalidMessage};

use super::Failure;
use super::failure::{io_source, remedy};
use crate::config::keys::{CA, CERT, CERT_KEY, PASSWORD_FILE, URL};

/// Why there is no connection: what requests fail with, and the reason for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectError {
    pub(crate) failure: Failure,
    pub(crate) reason: String,
}

/// What an attempt to connect was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connect,
    TlsHandshake,
    /// AUTH, SELECT and PING.
    Login,
}

/// What is known of an attempt that failed.
pub(super) struct Attempt<'a> {
    pub(super) phase: Phase,
    pub(super) uses_tls: bool,
    pub(super) shows_certificate: bool,
    /// The first bytes that the server has sent.
    pub(super) opening: &'a [u8],
    /// What must not be printed.
    pub(super) password: Option<&'a str>,
}

/// How much of the server's words is printed.
const MAX_WORDS: usize = 100;

impl ConnectError {
    /// The failure of a file, or of something else that was not the server's.
    pub(super) fn local(failure: Failure) -> Self {
        Self { reason: failure.to_string(), failure }
    }
}

impl Attempt<'_> {
    /// The error of an attempt that took too long.
    pub(super) fn timed_out(&self) -> ConnectError {
        let reason = match self.phase {
            Phase::Connect => "no connection within the timeout; is the address right, and does a \
                               firewall let it through?"
                .to_owned(),
            Phase::TlsHandshake => format!(
                "the TLS handshake does not end within the timeout; if the server speaks no TLS at \
                 this port, write redis:// in {}, or name its TLS port",
                URL.name()
            ),
            Phase::Login => match self.words() {
                Some((failure, reason)) => return ConnectError { failure, reason },
                None => "it accepts connections and does not answer".to_owned(),
            },
        };
        ConnectError { failure: Failure::Timeout, reason }
    }

    /// The error of a socket, or of TLS on it.
    pub(super) fn io_error(&self, error: &io::Error) -> ConnectError {
        let failure = Failure::Unreachable;
        if let Some(error) = tls_error(error) {
            return ConnectError { failure, reason: self.tls_reason(error) };
        }
        let reason = match self.phase {
            Phase::TlsHandshake if is_end(error) => format!(
                "the server ends the TLS handshake; if it speaks no TLS at this port, write redis:// \
                 in {}; if it does, it may have no room for more clients (maxclients)",
                URL.name()
            ),
            _ => error.to_string(),
        };
        ConnectError { failure, reason }
    }

    /// The error of the login, or of the PING behind it.
    pub(super) fn login_error(&self, error: &RedisError, failure: Failure) -> ConnectError {
        if let Some(io) = io_source(error)
            && let Some(error) = tls_error(io)
        {
            return ConnectError { failure: Failure::Unreachable, reason: self.tls_reason(error) };
        }
        self.answered(failure)
    }

    /// The error of a server that has answered otherwise than a Redis server does, or not at all.
    pub(super) fn answered(&self, failure: Failure) -> ConnectError {
        if let Some((failure, reason)) = self.words() {
            return ConnectError { failure, reason };
        }
        let reason = match &failure {
            Failure::Unreachable if self.opening.is_empty() && !self.uses_tls => format!(
                "the server closes the connection without an answer; if it expects TLS, write \
                 rediss:// in {}",
                URL.name()
            ),
            // The alert that says so is lost if the connection is reset before it is read: with TLS 1.3,
            // the login is on its way by then.
            Failure::Unreachable if self.opening.is_empty() => format!(
                "the server closes the connection without an answer; if it asks for a certificate, name \
                 one in {} and its key in {}",
                CERT.name(),
                CERT_KEY.name()
            ),
            failure => failure.to_string(),
        };
        ConnectError { failure, reason }
    }

    /// What the server has sent behind the replies to what went well.
    fn said(&self) -> &[u8] {
        let mut said = self.opening;
        while said.starts_with(b"+")
            && let Some(end) = said.iter().position(|&byte| byte == b'\n')
            && end + 1 < said.len()
        {
            said = &said[end + 1..];
        }
        said
    }

    /// What the server has said, if that explains the failure.
    fn words(&self) -> Option<(Failure, String)> {
        let quoted = self.quoted();
        let no_redis = |what: &str| {
            let reason = format!("{what}; correct host and port in {}", URL.name());
            Some((Failure::InvalidResponse("it is no Redis server".to_owned()), reason))
        };
        match self.said() {
            [] => None,
            [b'-', ..] => Some(self.error_reply(&quoted)),
            [b'*', ..] => no_redis("it sends back what it is sent, and is no Redis server"),
            // A record of TLS: an alert, or a handshake.
            [0x15 | 0x16, 3, ..] => Some((
                Failure::Unreachable,
                format!("the server speaks TLS at this port; write rediss:// in {}", URL.name()),
            )),
            [b'+' | b':' | b'$', ..] => None,
            [b'H', b'T', b'T', b'P', b'/', ..] => {
                no_redis(&format!("it is an HTTP server ({quoted})"))
            }
            _ => no_redis(&format!("it is no Redis server, and says {quoted}")),
        }
    }

    /// The failure that an error reply to the login is.
    fn error_reply(&self, quoted: &str) -> (Failure, String) {
        let text = String::from_utf8_lossy(&self.said()[1..]);
        let code = text.split([' ', '\r', '\n']).next().unwrap_or_default();
        let (failure, remedy) = match code {
            "NOAUTH" => (
                Failure::AccessDenied(code.to_owned()),
                format!(
                    "name user and password in {}, or the password in {}",
                    URL.name(),
                    PASSWORD_FILE.name()
                ),
            ),
            "WRONGPASS" => (
                Failure::AccessDenied(code.to_owned()),
                format!(
                    "correct user and password in {}, or the password in the file of {}",
                    URL.name(),
                    PASSWORD_FILE.name()
                ),
            ),
            "NOPERM" => (
                Failure::AccessDenied(code.to_owned()),
                "add the permission to the user on the server".to_owned(),
            ),
            "DENIED" => (
                Failure::Refused("DENIED".to_owned()),
                "the server is in protected mode: give it a password (requirepass), or let it bind \
                 only to addresses that are safe and set protected-mode no"
                    .to_owned(),
            ),
            "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" => {
                (Failure::Unready(code.to_owned()), remedy(code).unwrap_or_default())
            }
            "ERR" if text.contains("max number of clients") => (
                Failure::Unready("max number of clients reached".to_owned()),
                "raise maxclients on the server, or have fewer clients".to_owned(),
            ),
            "ERR" if text.contains("without any password") || text.contains("no password is set") => (
                Failure::AccessDenied("AUTH".to_owned()),
                format!(
                    "the server has no password: take it out of {} or {}",
                    URL.name(),
                    PASSWORD_FILE.name()
                ),
            ),
            "ERR" if text.contains("DB index") => (
                Failure::AccessDenied("SELECT".to_owned()),
                format!("correct the number of the database in {}", URL.name()),
            ),
            _ => (Failure::Refused(quoted.to_owned()), format!("correct {}", URL.name())),
        };
        (failure, format!("the server says {quoted}; {remedy}"))
    }

    fn tls_reason(&self, error: &rustls::Error) -> String {
        use rustls::Error as Tls;
        let remedy = match error {
            Tls::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => {
                return format!(
                    "the server speaks no TLS at this port; write redis:// in {}, or name its TLS port",
                    URL.name()
                );
            }
            Tls::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => format!("name the authority of the server's certificate in {}", CA.name()),
            Tls::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => format!("the server's certificate has to be for the host in {}", URL.name()),
            Tls::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => "renew the server's certificate, or set the clock".to_owned(),
            Tls::InvalidCertificate(_) => "correct the server's certificate".to_owned(),
            Tls::AlertReceived(alert) if self.is_about_certificate(*alert) => {
                if self.shows_certificate {
                    format!(
                        "the server does not accept the certificate of {}; name one whose \
                         authority it knows",
                        CERT.name()
                    )
                } else {
                    format!(
                        "the server asks for a certificate; name one in {} and {}",
                        CERT.name(),
                        CERT_KEY.name()
                    )
                }
            }
            _ => "correct the TLS settings of the server".to_owned(),
        };
        format!("{error}; {remedy}")
    }

    /// Whether an alert of the server is about the certificate of the plugin. With TLS 1.2, a handshake
    /// fails without a better reason.
    fn is_about_certificate(&self, alert: AlertDescription) -> bool {
        use AlertDescription as Alert;
        matches!(
            alert,
            Alert::CertificateRequired
                | Alert::NoCertificate
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
        ) || (alert == Alert::HandshakeFailure && !self.shows_certificate)
    }

    /// The first line that the server has sent. It is not shown when it has the password in it: a server
    /// may repeat what it was sent.
    fn quoted(&self) -> String {
        let line = self.said().strip_prefix(b"-").unwrap_or(self.said());
        let end = line.iter().position(|&byte| byte == b'\r' || byte == b'\n');
        let line = &line[..end.unwrap_or(line.len())];
        let text = String::from_utf8_lossy(line);
        // What the server cuts off leaves a part of it, so that the whole opening is not shown.
        let has_password = self.password.is_some_and(|password| repeats(&text, password));
        if has_password || (self.password.is_some() && text.contains("args beginning")) {
            return "something that repeats the login".to_owned();
        }
        let text: String = text.chars().take(MAX_WORDS).collect();
        format!("{text:?}")
    }
}

/// Whether a text has a part of a password in it that is long enough to tell something.
fn repeats(text: &str, password: &str) -> bool {
    const TELLING: usize = 3;
    let letters: Vec<char> = password.chars().collect();
    match letters.len() {
        0 => false,
        1..=TELLING => text.contains(password),
        _ => letters.windows(TELLING + 1).any(|part| text.contains(&String::from_iter(part))),
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(opening: &str, password: Option<&str>) -> ConnectError {
        let attempt = Attempt {
            phase: Phase::Login,
            uses_tls: false,
            shows_certificate: false,
            opening: opening.as_bytes(),
            password,
        };
        attempt.answered(Failure::Unreachable)
    }

    #[test]
    fn the_reason_has_the_words_of_the_server_and_the_remedy() {
        for (opening, words, remedy) in [
            ("-ERR max number of clients reached\r\n", "max number of clients", "maxclients"),
            (
                "-NOAUTH Authentication required.\r\n",
                "Authentication required",
                PASSWORD_FILE.name(),
            ),
            ("-WRONGPASS invalid username-password pair\r\n", "invalid username", URL.name()),
            ("-DENIED Redis is running in protected mode because\r\n", "protected mode", "bind"),
            ("-LOADING Redis is loading the dataset in memory\r\n", "loading", "wait"),
            ("+OK\r\n-ERR DB index is out of range\r\n", "out of range", "database"),
            ("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n", "400 Bad Request", "port"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2", "no Redis server"),
            ("*1\r\n$4\r\nPING\r\n", "sends back", "port"),
            ("\x15\x03\x03\0\x02\x02F", "speaks TLS", "rediss://"),
            ("", "without an answer", "rediss://"),
        ] {
            let reason = told(opening, None).reason;
            assert!(reason.contains(words) && reason.contains(remedy), "{opening:?}: {reason}");
        }
    }

    #[test]
    fn words_of_the_server_that_repeat_the_password_are_not_printed() {
        for opening in [
            "-ERR unknown command 'AUTH', with args beginning with: 'hunter2xyz' \r\n",
            "-ERR unknown command 'AUTH', with args beginning with: 'hunt",
            "hunter2xyz\r\n",
            "AUTH hunter2xyz\r\n",
            "-ERR no such user hunter2\r\n",
        ] {
            let error = told(opening, Some("hunter2xyz"));
            let shown = format!("{error:?} {}", error.failure);
            assert!(!shown.contains("hunt"), "{shown}");
        }
    }
}
