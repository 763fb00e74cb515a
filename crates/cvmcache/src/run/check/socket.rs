//! Whether a plugin could listen at its locator. Nothing is made or locked, and no connection is made, so
//! that no plugin that serves, starts or ends meanwhile notices.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;

use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};

use super::{Findings, ports};
use crate::config_keys::{ALLOW, ALLOW_USERS};
use crate::files;
use crate::run::{appendable, lock_holder};
use crate::server::{FoundSocket, LOCK_STEP, LOCK_STEPS, find_socket, lock_path};
use crate::{ListenError, Locator, Networks, Options, Users};

/// The processes that serve a locator already.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Live {
    No,
    /// These; none if the system does not tell.
    Yes(BTreeSet<u32>),
}

impl Live {
    /// True if this process, or one that is not known, can be the plugin that serves.
    pub(super) fn may_be(&self, process: Option<u32>) -> bool {
        match (self, process) {
            (Self::No, _) => false,
            (Self::Yes(processes), Some(process)) if !processes.is_empty() => {
                processes.contains(&process)
            }
            (Self::Yes(_), _) => true,
        }
    }
}

/// Checks a locator.
pub(super) fn check(locator: &Locator, options: &Options, findings: &mut Findings) -> Live {
    match locator {
        Locator::Unix(path) => {
            let users = options.value::<Users>(&ALLOW_USERS).ok().flatten().unwrap_or_default();
            users.closed_directories(path).into_iter().for_each(|it| findings.warning(it));
            check_unix(locator, path, findings)
        }
        Locator::Tcp { host, port } => check_tcp(locator, host, *port, options, findings),
    }
}

fn check_unix(locator: &Locator, path: &Path, findings: &mut Findings) -> Live {
    let (server, live) = match look(path) {
        Ok(Place::Free) => return Live::No,
        Ok(Place::Served { by: Some(holder) }) => {
            (format!("process {holder} serves {locator} already"), [holder].into())
        }
        Ok(Place::Served { by: None }) => {
            let lock = lock_path(path);
            let server = format!(
                "some process serves {locator} already, without the lock {}",
                lock.display()
            );
            (server, BTreeSet::new())
        }
        Err(error) => {
            findings.error(error);
            return Live::No;
        }
    };
    findings.note(format!(
        "{server}: a client that starts the plugin connects to that one; a start by hand is refused"
    ));
    Live::Yes(live)
}

/// What a start would find at the path of a unix socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It can be bound.
    Free,
    /// A process serves there; which one, if it has the lock.
    Served { by: Option<u32> },
}

/// Looks at the path of a unix socket and its lock file, as binding it would.
pub(super) fn look(path: &Path) -> Result<Place, ListenError> {
    let locator = || Locator::Unix(path.to_owned());
    let lock = lock_path(path);
    // The file is opened, which no other process notices, and not locked.
    match files::open_regular(File::options().write(true), &lock) {
        Ok(_) => match wait_for_holder(&lock, path) {
            Lock::Free => {}
            Lock::Serves(holder) => return Ok(Place::Served { by: Some(holder) }),
            Lock::Held => return Err(ListenError::NotServed { locator: locator(), lock }),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Err(source) = appendable::check_new(&lock) {
                return Err(ListenError::LockFile { path: lock, source });
            }
        }
        Err(source) => return Err(ListenError::LockFile { path: lock, source }),
    }
    let system = |source| ListenError::System { locator: locator(), source };
    match find_socket(path).map_err(system)? {
        FoundSocket::NoSocket => Err(ListenError::NotASocket { path: path.to_owned() }),
        FoundSocket::Live(_) => Ok(Place::Served { by: None }),
        // A socket that is left over is removed, which the directory has to allow as well.
        FoundSocket::Nothing | FoundSocket::Stale(_) => {
            appendable::check_directory(path).map_err(system)?;
            Ok(Place::Free)
        }
    }
}

/// What is known of the lock by the process that holds it.
enum Lock {
    Free,
    /// The process that holds it listens.
    Serves(u32),
    /// The process that holds it does not listen.
    Held,
}

/// Waits for as long as a start would.
fn wait_for_holder(lock: &Path, path: &Path) -> Lock {
    for _ in 0..LOCK_STEPS {
        let Some(holder) = lock_holder(lock) else { return Lock::Free };
        if let Ok(FoundSocket::Live(_)) = find_socket(path) {
            return Lock::Serves(holder);
        }
        thread::sleep(LOCK_STEP);
    }
    Lock::Held
}

fn check_tcp(
    locator: &Locator,
    host: &str,
    port: u16,
    options: &Options,
    findings: &mut Findings,
) -> Live {
    // As with `Listener::bind`, no host is any address.
    let resolve = |host: &str| (host, port).to_socket_addrs().map(Vec::from_iter);
    let addresses = match host {
        "" => resolve("::").and_then(|v6| Ok([v6, resolve("0.0.0.0")?].concat())),
        _ => resolve(host),
    };
    let addresses = match addresses {
        Ok(addresses) => addresses,
        Err(source) => {
            findings.error(ListenError::Resolve { locator: locator.clone(), source });
            return Live::No;
        }
    };
    let is_exposed = addresses.iter().any(|address| !address.ip().to_canonical().is_loopback());
    if is_exposed && options.get(ALLOW).is_none() {
        let allow = ALLOW.name();
        findings.warning(format!(
            "all that reach {locator} can connect; name the clients' networks, as in \
             {allow}=10.0.0.0/8"
        ));
    }
    // What is wrong with its value is found elsewhere.
    if let Ok(Some(networks)) = options.value::<Networks>(&ALLOW) {
        let addresses: Vec<_> = addresses.iter().map(SocketAddr::ip).collect();
        if let Some(reason) = networks.closed_at(locator, &addresses) {
            findings.warning(reason);
        }
    }
    let mut failure = io::Error::from(ErrorKind::AddrNotAvailable);
    for &address in &addresses {
        match bind(address) {
            Ok(()) => return Live::No,
            Err(error) => failure = error,
        }
    }
    if failure.kind() == ErrorKind::AddrInUse {
        findings.note(format!(
            "some process listens on {locator} already: a client that starts the plugin connects to \
             that one; a start by hand is refused"
        ));
        return Live::Yes(addresses.into_iter().flat_map(ports::listeners).collect());
    }
    findings.error(ListenError::System { locator: locator.clone(), source: failure });
    Live::No
}

/// True if a locator's socket keeps another from this address.
pub(super) fn overlaps(locator: &Locator, address: SocketAddr) -> bool {
    let Locator::Tcp { host, port } = locator else { return false };
    if *port == 0 || *port != address.port() {
        return false;
    }
    let is_same = |ip: IpAddr| ip == address.ip() || ip.is_unspecified();
    let resolved = || (host.as_str(), *port).to_socket_addrs();
    host.is_empty()
        || address.ip().is_unspecified()
        || resolved().is_ok_and(|mut addresses| addresses.any(|other| is_same(other.ip())))
}

/// Binds an address, but does not listen: with SO_REUSEADDR, that keeps no other process from
/// binding it or listening, see socket(7).
pub(super) fn bind(address: SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    Ok(socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use std::os::unix::fs::symlink;

    use nix::fcntl::{Flock, FlockArg};
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    fn found(locator: &Locator) -> (String, bool) {
        found_with(locator, &Options::new())
    }

    fn found_with(locator: &Locator, options: &Options) -> (String, bool) {
        let mut findings = Findings::default();
        let live = check(locator, options, &mut findings);
        (findings.to_string(), live != Live::No)
    }

    #[test]
    fn obstacles_to_a_unix_socket_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let unix = |path: &Path| found(&Locator::Unix(path.to_owned()));
        assert_eq!(unix(&path), ("ok\n".to_owned(), false));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(unix(&path), ("ok\n".to_owned(), false), "it is stale");
        let lock = File::create(directory.path().join("socket.lock")).unwrap();
        assert_eq!(unix(&path), ("ok\n".to_owned(), false), "nothing holds the lock");
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
        let (text, is_live) = unix(&path);
        assert!(!is_live && text.starts_with("error: a process holds the lock"), "{text}");
        fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        let (text, is_live) = unix(&path);
        assert!(is_live && text.starts_with("note: process "), "{text}");
        drop(lock);
        let (text, is_live) = unix(&path);
        assert!(is_live && text.starts_with("note: some process serves"), "{text}");
        listener.set_nonblocking(true).unwrap();
        let error = listener.accept().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "the process that serves notices nothing");
        drop(listener);
        assert_eq!(unix(&path), ("ok\n".to_owned(), false), "it is stale again");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(unix(&path).0.contains("is not a socket: remove it"));
        assert!(unix(&directory.path().join("no/socket")).0.starts_with("error: cannot lock"));
        assert!(unix(&directory.path().join("s".repeat(252))).0.contains("at most 255 bytes"));
    }

    #[test]
    fn obstacles_to_a_tcp_socket_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tcp = |host: &str| found(&Locator::Tcp { host: host.to_owned(), port });
        let (text, is_live) = tcp("127.0.0.1");
        assert!(is_live && text.contains("listens on tcp="), "{text}");
        drop(listener);
        assert_eq!(tcp("127.0.0.1"), ("ok\n".to_owned(), false));
        let (text, _) = tcp("192.0.2.1");
        assert!(text.contains("error: cannot listen on tcp=192.0.2.1"), "{text}");
        assert!(text.contains("warning: all that reach tcp=192.0.2.1"), "{text}");
    }

    #[test]
    fn networks_that_admit_no_client_are_found() {
        let locator = Locator::Tcp { host: "127.0.0.1".to_owned(), port: 0 };
        for (networks, is_closed) in [("::/0", true), ("", true), ("127.0.0.0/8", false)] {
            let mut options = Options::new();
            options.set(ALLOW.name(), networks);
            let (text, _) = found_with(&locator, &options);
            let warning = "warning: no client can connect to tcp=127.0.0.1:0";
            assert_eq!(text.starts_with(warning), is_closed, "{networks}: {text}");
        }
    }

    #[test]
    fn a_lock_file_that_no_start_can_open_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let locator = Locator::Unix(directory.path().join("socket"));
        let lock = directory.path().join("socket.lock");
        mkfifo(&lock, Mode::S_IRWXU).unwrap();
        assert!(found(&locator).0.starts_with("error: cannot lock"), "a FIFO");
        fs::remove_file(&lock).unwrap();
        symlink("no/lock", &lock).unwrap();
        assert!(found(&locator).0.starts_with("error: cannot lock"), "a link to no directory");
        fs::remove_file(&lock).unwrap();
        symlink("other", &lock).unwrap();
        assert_eq!(found(&locator).0, "ok\n", "a start makes the target");
    }

    #[test]
    fn the_address_of_a_locator_is_known() {
        let overlap = |locator: &str, address: &str| {
            overlaps(&locator.parse().unwrap(), address.parse().unwrap())
        };
        assert!(overlap("tcp=127.0.0.1:9470", "127.0.0.1:9470"));
        assert!(overlap("tcp=:9470", "127.0.0.1:9470"));
        assert!(overlap("tcp=0.0.0.0:9470", "127.0.0.1:9470"));
        assert!(overlap("tcp=127.0.0.1:9470", "0.0.0.0:9470"));
        assert!(!overlap("tcp=127.0.0.1:9471", "127.0.0.1:9470"));
        assert!(!overlap("tcp=127.0.0.1:9470", "[::1]:9470"));
        assert!(!overlap("tcp=127.0.0.1:0", "127.0.0.1:0"), "ports of their own");
        assert!(!overlap("unix=/socket", "127.0.0.1:9470"));
    }

    #[test]
    fn an_address_that_is_checked_can_be_bound_by_another() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        bind(address).unwrap();
        let _listener = TcpListener::bind(address).unwrap();
        assert_eq!(bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
    }
}
