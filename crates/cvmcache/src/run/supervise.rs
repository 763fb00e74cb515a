//! Being started by a client: telling it when it can connect.
//!
//! A client that starts a plugin passes the number of a pipe's descriptor in the environment, and
//! waits for one byte.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::fd::{FromRawFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use thiserror::Error;

/// The environment variable by which a client says that it waits, and where.
const READY_PIPE: &str = "__CVMFS_CACHE_EXTERNAL_PIPE_READY__";

const READY: &[u8] = b"C";
const FAILED: &[u8] = b"F";

/// The client that started this process.
#[derive(Debug)]
pub(super) struct Supervisor(File);

/// The client's environment variable makes no sense.
#[derive(Debug, Error)]
#[error(
    "{READY_PIPE}={value:?}: {reason}; a client sets this variable to the number of a pipe's \
     descriptor: unset it to start the plugin by hand"
)]
pub(super) struct BadSupervisor {
    value: OsString,
    reason: io::Error,
}

impl Supervisor {
    /// The client that waits for this process, if there is one. To be called once, before the
    /// program opens any file.
    pub(super) fn from_env() -> Result<Option<Self>, BadSupervisor> {
        let Some(value) = env::var_os(READY_PIPE) else { return Ok(None) };
        let number = value.to_str().and_then(|text| text.parse().ok());
        let opened = match number {
            Some(number) if number > 2 => inherit(number),
            _ => Err(io::Error::other("not the number of a descriptor above 2")),
        };
        opened.map(|pipe| Some(Self(pipe))).map_err(|reason| BadSupervisor { value, reason })
    }

    /// Tells the client that it can connect, to this process or to another one.
    pub(super) fn ready(&mut self) -> io::Result<()> {
        self.0.write_all(READY)
    }

    /// Tells the client that nobody will be there.
    pub(super) fn failed(&mut self) -> io::Result<()> {
        self.0.write_all(FAILED)
    }
}

#[expect(unsafe_code, reason = "a descriptor inherited by its number has no owner yet")]
fn inherit(number: RawFd) -> io::Result<File> {
    // SAFETY: the parent opened this descriptor for this process and named it to nobody else; if
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
