//! The supervisor, a client that has started the plugin: the report that it can connect.
//!
//! A client that starts a plugin passes the number of a pipe's descriptor in the environment, and
//! waits for one byte. [`run`](crate::run) writes it; other programs do so with [`Supervisor`].

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::fd::{FromRawFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use thiserror::Error;

/// The environment variable in which a supervisor passes the descriptor of its pipe.
const READY_PIPE: &str = "__CVMFS_CACHE_EXTERNAL_PIPE_READY__";

const READY: &[u8] = b"C";
const FAILED: &[u8] = b"F";

/// The client that started this process, and waits until it can connect.
///
/// For programs that do not use [`run`](crate::run), which does the same:
///
/// ```no_run
/// use cvmcache::{CachePlugin, Locator, Server, Supervisor};
///
/// fn serve(
///     plugin: impl CachePlugin,
///     locator: &Locator,
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let supervisor = Supervisor::from_env()?;
///     let builder = Server::builder(plugin).supervised(supervisor.is_some());
///     let started = builder.listen(locator).and_then(|listening| listening.spawn());
///     if let Some(mut client) = supervisor {
///         match &started {
///             // Another process serves the locator: the client will find that one.
///             Err(error) if !error.is_in_use() => client.failed()?,
///             _ => client.ready()?,
///         }
///     }
///     started?.wait()?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Supervisor(File);

/// The environment variable by which a client names its pipe makes no sense.
#[derive(Debug, Error)]
#[error(
    "{READY_PIPE}={value:?}: {reason}; a client sets this variable to the number of a pipe's \
     descriptor: unset it to start the plugin by hand"
)]
pub struct SupervisorError {
    value: OsString,
    reason: io::Error,
}

impl Supervisor {
    /// The client that waits for this process, if there is one.
    ///
    /// To be called once, before the program opens any file: the descriptor that the client names
    /// belongs to what this returns, and programs started from now on do not inherit it.
    ///
    /// # Errors
    ///
    /// [`SupervisorError`] if the variable `__CVMFS_CACHE_EXTERNAL_PIPE_READY__` names no open
    /// descriptor above 2.
    pub fn from_env() -> Result<Option<Self>, SupervisorError> {
        let Some(value) = env::var_os(READY_PIPE) else { return Ok(None) };
        let number = value.to_str().and_then(|text| text.parse().ok());
        let opened = match number {
            Some(number) if number > 2 => inherit(number),
            _ => Err(io::Error::other("not the number of a descriptor above 2")),
        };
        opened.map(|pipe| Some(Self(pipe))).map_err(|reason| SupervisorError { value, reason })
    }

    /// Tells the client that it can connect, to this process or to another one. The client reads
    /// one answer: say this or [`failed`](Self::failed), once.
    ///
    /// # Errors
    ///
    /// Those of the system, if the client has gone meanwhile.
    pub fn ready(&mut self) -> io::Result<()> {
        self.0.write_all(READY)
    }

    /// Tells the client that there will be no plugin.
    ///
    /// # Errors
    ///
    /// Those of the system, if the client has gone meanwhile.
    pub fn failed(&mut self) -> io::Result<()> {
        self.0.write_all(FAILED)
    }
}

#[expect(unsafe_code, reason = "a descriptor inherited by its number has no owner yet")]
fn inherit(number: RawFd) -> io::Result<File> {
    // SAFETY: the parent opened this descriptor for this process and passed its number to no other code; if
    // it is not open, the file is forgotten below and never closed.
    let pipe = unsafe { File::from_raw_fd(number) };
    match fcntl(&pipe, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        Ok(_) => Ok(pipe),
        Err(errno) => {
            mem::forget(pipe);
            Err(errno.into())
        }
    }
}
