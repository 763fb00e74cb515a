//! Why a plugin cannot be connected to, and what to do about it, in a sentence.

use std::fmt;
use std::fs::FileType;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use cvmcache::client::ClientError;
use cvmcache::{Locator, config_keys};
use nix::errno::Errno;

use crate::user::{Obstacle, Reason, User, Want};

/// No session, looked into from this machine.
#[derive(Debug)]
pub(crate) struct Unreachable {
    locator: Locator,
    error: ClientError,
}

impl Unreachable {
    pub(crate) fn new(locator: Locator, error: ClientError) -> Self {
        Self { locator, error }
    }
}

impl std::error::Error for Unreachable {}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { locator, error } = self;
        let what = match error {
            ClientError::Connect { source, .. } => match locator {
                Locator::Unix(path) => unix(path, source),
                Locator::Tcp { host, port } => tcp(host, *port, source),
                // `Locator` is non-exhaustive.
                _ => format!("{source}: {COMPARE}"),
            },
            ClientError::Frame(_) | ClientError::BadMessage => {
                format!("what listens there is no cache plugin ({error}): {COMPARE}")
            }
            ClientError::Closed => format!(
                "it closed the connection before the handshake was over: see its log, and whether \
                 {} and {} let this client in",
                config_keys::ALLOW_USERS.name(),
                config_keys::ALLOW.name()
            ),
            ClientError::Timeout => "it listens, but does not answer the handshake within the \
                 timeout: it is busy or stuck; see its log, or give it more time with --timeout"
                .to_owned(),
            error => error.to_string(),
        };
        write!(f, "cannot connect to {locator}: {what}")
    }
}

const COMPARE: &str = "compare the locator with CVMFS_CACHE_PLUGIN_LOCATOR in its configuration";

const START: &str =
    "start the plugin, or compare the locator with CVMFS_CACHE_PLUGIN_LOCATOR in its configuration";

fn unix(path: &Path, error: &io::Error) -> String {
    let user = User::current();
    let name = path.display();
    let holder = cvmcache::lock_holder(&lock_of(path));
    let file_type = || path.symlink_metadata().ok().map(|metadata| metadata.file_type());
    match error.kind() {
        ErrorKind::PermissionDenied => match user.may(path, Want::Write) {
            Err(obstacle) => forbidden(&user, path, &obstacle),
            Ok(()) => format!("the system does not permit it ({error}): run this as root"),
        },
        ErrorKind::NotFound | ErrorKind::ConnectionRefused if holder.is_some() => format!(
            "process {} holds its lock, but cannot be connected to: it is starting, ending, or its \
             socket was removed; look again in a minute, and ask cvmcache doctor",
            holder.unwrap_or_default()
        ),
        ErrorKind::NotFound | ErrorKind::NotADirectory => match user.may(path, Want::Write) {
            Err(Obstacle { path: missing, reason: Reason::Missing }) if missing != path => {
                format!("the directory {} does not exist: {COMPARE}", missing.display())
            }
            Err(Obstacle { path: file, reason: Reason::NotADirectory }) => {
                format!("{} is not a directory: {COMPARE}", file.display())
            }
            _ => format!("{name} does not exist, so no plugin runs there: {START}"),
        },
        ErrorKind::ConnectionRefused => match file_type() {
            Some(found) if !found.is_socket() && !found.is_symlink() => {
                format!("{name} is {}, not a socket: {COMPARE}", word(found))
            }
            _ => format!(
                "no process listens on {name}, which a plugin that was killed left: {START}"
            ),
        },
        _ if error.raw_os_error() == Some(Errno::EPROTOTYPE as i32) => {
            format!("{name} is a socket of another kind than a plugin's: {COMPARE}")
        }
        _ => format!("{error}: {COMPARE}"),
    }
}

fn forbidden(user: &User, socket: &Path, obstacle: &Obstacle) -> String {
    let remedy = match &obstacle.reason {
        Reason::Mode { owner, .. } => {
            match User::named(&owner.to_string()).filter(|owner| owner.uid() != 0) {
                Some(owner) => format!("run this as {owner} or root"),
                None => "run this as root".to_owned(),
            }
        }
        _ => "run this as the user of the plugin, or as root".to_owned(),
    };
    let or_let_in = match obstacle.path == socket {
        true => format!(", or add {user} to {}", config_keys::ALLOW_USERS.name()),
        false => String::new(),
    };
    format!("user {user} may not, since {obstacle}: {remedy}{or_let_in}")
}

fn lock_of(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

fn word(file_type: FileType) -> &'static str {
    match () {
        () if file_type.is_dir() => "a directory",
        () if file_type.is_fifo() => "a FIFO",
        () if file_type.is_file() => "a file",
        () => "a device",
    }
}

fn tcp(host: &str, port: u16, error: &io::Error) -> String {
    let host = if host.is_empty() { "this machine" } else { host };
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            format!("no process listens on port {port} of {host}: {START}")
        }
        _ if error.raw_os_error().is_none() && host.parse::<IpAddr>().is_err() => {
            format!("no address is known for {host:?} ({error}): write its IP address")
        }
        _ => {
            format!("{error}: see whether {host} is up, and whether a firewall lets port {port} in")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::net::TcpListener;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use cvmcache::client::Client;
    use nix::fcntl::{Flock, FlockArg};

    use super::*;

    fn text(locator: &str) -> String {
        let locator: Locator = locator.parse().unwrap();
        let error = Client::connect(&locator, "x").unwrap_err();
        Unreachable::new(locator, error).to_string()
    }

    #[test]
    fn each_reason_for_which_there_is_no_connection_has_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let unix = |name: &str| text(&format!("unix={}", path(name).display()));
        File::create(path("file")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        drop(UnixListener::bind(path("stale")).unwrap());
        let _datagram = UnixDatagram::bind(path("datagram")).unwrap();
        let lock = File::create(path("locked.lock")).unwrap();
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        for (name, expected) in [
            ("nothing", "does not exist, so no plugin runs there: start"),
            ("no/socket", "/no does not exist: compare"),
            ("file/socket", "/file is not a directory: compare"),
            ("file", "is a file, not a socket: compare"),
            ("directory", "is a directory, not a socket: compare"),
            ("stale", "no process listens on"),
            ("datagram", "is a socket of another kind"),
            ("locked", &format!("process {} holds its lock", std::process::id())),
        ] {
            let text = unix(name);
            assert!(text.contains(expected), "{name}: {text}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert!(text(&format!("tcp=127.0.0.1:{port}")).contains("no process listens on port"));
        assert!(text("tcp=no-such-host.invalid:1").contains("no address is known for"));
    }

    #[test]
    fn a_refusal_names_the_user_the_owner_and_the_mode() {
        let nobody = User::named("nobody").unwrap();
        let socket = Path::new("/run/plugin.socket");
        let obstacle = |path: &str| Obstacle {
            path: path.into(),
            reason: Reason::Mode { want: Want::Write, mode: 0o600, owner: 0 },
        };
        assert_eq!(
            forbidden(&nobody, socket, &obstacle("/run/plugin.socket")),
            "user nobody may not, since /run/plugin.socket belongs to root and has mode 0600: run this \
             as root, or add nobody to CVMFS_CACHE_PLUGIN_ALLOW_USERS"
        );
        let text = forbidden(&nobody, socket, &obstacle("/run"));
        assert!(text.ends_with("run this as root"), "{text}");
    }
}
