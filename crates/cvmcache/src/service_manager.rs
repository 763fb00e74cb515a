//! Service managers, such as systemd: socket activation, readiness and heartbeats.
//!
//! It passes them in variables of the environment, see `sd_notify(3)` and `sd_listen_fds(3)`.
//! [`run`](crate::run) understands them; other programs do so with [`ServiceManager`].

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use thiserror::Error;
use tracing::debug;

use crate::{Heartbeat, Locator, ServerBuilder};

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const LISTEN_FDS: &str = "LISTEN_FDS";

/// How long to wait for a service manager that is to know that clients can connect.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// How many heartbeats are sent within the time that it waits. Two would do if none were lost; but they
/// are sent without waiting for room in its queue, and a restart would end all mounts.
const BEATS: u32 = 4;

/// The service manager that started this process, if one did.
///
/// For programs that do not use [`run`](crate::run), which does the same:
///
/// ```no_run
/// use cvmcache::{CachePlugin, Locator, Server, ServiceManager};
///
/// fn serve(
///     plugin: impl CachePlugin,
///     locator: &Locator,
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let mut manager = ServiceManager::from_env()?;
///     let builder = manager.report_on(Server::builder(plugin), locator);
///     let listening = match manager.take_socket() {
///         Some(socket) => builder.listen_on(socket, locator)?,
///         None => builder.listen(locator)?,
///     };
///     let running = listening.spawn()?;
///     manager.ready(locator)?;
///     running.wait()?;
///     Ok(())
/// }
/// ```
///
/// Clients never wait for it: if it does not listen, it misses something.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<OwnedFd>,
    line: Option<Line>,
    watchdog: Option<Duration>,
}

/// The variables of a service manager are invalid.
#[derive(Debug, Error)]
#[error(
    "{variable}={value:?}: {reason}; a service manager sets this variable: unset it to start the \
     plugin by hand"
)]
pub struct ServiceManagerError {
    variable: &'static str,
    value: OsString,
    reason: String,
}

impl ServiceManagerError {
    fn new(variable: &'static str, reason: impl Into<String>) -> Self {
        let value = env::var_os(variable).unwrap_or_default();
        Self { variable, value, reason: reason.into() }
    }
}

impl ServiceManager {
    /// The service manager that started this process; without one, a value that hands over nothing and
    /// reports nothing.
    ///
    /// To be called once, before the program opens any file: descriptors that are handed over
    /// belong to what this returns, and programs started from now on do not inherit them. A program
    /// that a client starts does better without: the variables are those of the client's own
    /// service manager.
    ///
    /// # Errors
    ///
    /// [`ServiceManagerError`] if `LISTEN_FDS`, `NOTIFY_SOCKET` or `WATCHDOG_USEC` makes no sense, or
    /// more than one descriptor is handed over. What is meant for another process (`LISTEN_PID`,
    /// `WATCHDOG_PID`) is no error, and not for this one.
    pub fn from_env() -> Result<Self, ServiceManagerError> {
        let socket = handed_over()?;
        let line =
            match env::var_os(NOTIFY_SOCKET) {
                None => None,
                Some(name) => Some(Line::to(&name).map_err(|reason| {
                    ServiceManagerError::new(NOTIFY_SOCKET, reason.to_string())
                })?),
            };
        Ok(Self { socket, line, watchdog: watchdog()? })
    }

    /// The socket that listens for this process, for [`ServerBuilder::listen_on`]. It is handed out once.
    pub fn take_socket(&mut self) -> Option<OwnedFd> {
        self.socket.take()
    }

    pub(crate) fn socket(&self) -> Option<&OwnedFd> {
        self.socket.as_ref()
    }

    /// Has the server send heartbeats with its number of clients, four times in the time that
    /// the service manager waits for that (`WatchdogSec=`), and that it ends.
    ///
    /// They come from the I/O thread: if a callback is stuck there, none is sent, and the service
    /// manager does what it is set up to do. A stuck worker does not stop them.
    ///
    /// It takes the place of another [`heartbeat`](ServerBuilder::heartbeat). If the service manager wants no
    /// heartbeats, only the end is reported; if there is no service manager, the builder stays as it is.
    pub fn report_on(&self, builder: ServerBuilder, locator: &Locator) -> ServerBuilder {
        let Some(line) = self.line.clone() else { return builder };
        let period = self.period();
        let is_watched = self.watchdog.is_some();
        let locator = locator.to_string();
        builder.heartbeat(period, move |heartbeat| {
            let told = match heartbeat {
                Heartbeat::Alive { clients } if is_watched => {
                    let status = format!("serving {clients} clients on {locator}");
                    line.tell(&[NotifyState::Watchdog, NotifyState::Status(&status)])
                }
                Heartbeat::Alive { .. } => Ok(()),
                Heartbeat::Ending => line.tell(&[NotifyState::Stopping]),
            };
            if let Err(error) = told {
                debug!(%error, "cannot tell the service manager");
            }
        })
    }

    fn period(&self) -> Duration {
        self.watchdog.map_or(Duration::MAX, |time| time / BEATS)
    }

    /// Tells that clients can connect. Unlike everything else, this waits for as long as the service
    /// manager takes, but for no more than 5 s.
    ///
    /// # Errors
    ///
    /// Those of the system, if the socket does not exist, or its queue stays full. Without a service
    /// manager there is nothing to report, which is no error.
    pub fn ready(&self, locator: &Locator) -> io::Result<()> {
        let status = format!("serving on {locator}");
        let line = self.line.as_ref();
        line.map_or(Ok(()), |line| line.insist(&[NotifyState::Ready, NotifyState::Status(&status)]))
    }
}

/// Where the service manager listens. The socket is kept, because there may be no descriptor left
/// when it is needed; and it is not connected, because the process that listens may be replaced.
#[derive(Debug, Clone)]
struct Line {
    socket: Arc<UnixDatagram>,
    address: SocketAddr,
}

impl Line {
    fn to(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => return Err(io::Error::other("neither a path nor an abstract name with @")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: socket.into(), address })
    }

    /// Does not wait.
    fn tell(&self, what: &[NotifyState<'_>]) -> io::Result<()> {
        self.socket.send_to_addr(&message(what), &self.address).map(|_| ())
    }

    /// Waits until there is room.
    fn insist(&self, what: &[NotifyState<'_>]) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(READY_TIMEOUT))?;
        socket.send_to_addr(&message(what), &self.address).map(|_| ())
    }
}

fn message(what: &[NotifyState<'_>]) -> Vec<u8> {
    what.iter().flat_map(|state| format!("{state}\n").into_bytes()).collect()
}

fn watchdog() -> Result<Option<Duration>, ServiceManagerError> {
    let Some(value) = env::var_os(WATCHDOG_USEC) else { return Ok(None) };
    match value.to_str().and_then(|text| text.parse::<u64>().ok()) {
        Some(1..) => Ok(sd_notify::watchdog_enabled()),
        _ => Err(ServiceManagerError::new(WATCHDOG_USEC, "not a number of microseconds")),
    }
}

fn handed_over() -> Result<Option<OwnedFd>, ServiceManagerError> {
    let bad = |reason| ServiceManagerError::new(LISTEN_FDS, reason);
    let mut descriptors = sd_notify::listen_fds().map_err(|error| bad(error.to_string()))?;
    match (descriptors.len(), descriptors.next()) {
        (1, Some(number)) => Ok(Some(inherit(number))),
        (0, _) => Ok(None),
        _ => Err(bad("a plugin serves one socket; give it one ListenStream=".to_owned())),
    }
}

#[expect(unsafe_code, reason = "a descriptor inherited by its number has no owner yet")]
fn inherit(number: RawFd) -> OwnedFd {
    // SAFETY: it is open, or could not have been set to be closed on exec; the service manager
    // opened it for the process of this number, and passed its number to no other code.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lost_heartbeat_does_not_exceed_watchdog_usec() {
        let watchdog = Duration::from_secs(60);
        let manager = ServiceManager { watchdog: Some(watchdog), ..ServiceManager::default() };
        // A turn of the event loop may keep each of them waiting.
        assert!(manager.period() * 2 + Duration::from_secs(10) < watchdog);
    }
}
