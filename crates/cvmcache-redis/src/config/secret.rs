//! Secrets in files: the key of the authenticator, and the password of the server.

use std::fmt;
use std::fs;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::warn;

/// A secret of at least 32 bytes, which `Debug` leaves out.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Why a file holds no secret that can be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// It cannot be read.
    #[error("cannot read {path:?}: {source}; name a regular file that the plugin's user can read")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// It is too short to be safe.
    #[error(
        "a key needs at least 32 bytes, not {length}; make one with \
         head -c 32 /dev/urandom > FILE"
    )]
    Short {
        /// How many bytes there are.
        length: usize,
    },
    /// It is longer than 64 KiB.
    #[error("{path:?} has more than {MAX} bytes; is it the right file?")]
    Long {
        /// The file.
        path: PathBuf,
    },
    /// There is no password in it.
    #[error("{path:?} holds no password; write it there, in one line")]
    NoPassword {
        /// The file.
        path: PathBuf,
    },
}

/// A bound on what is read, should the configuration name a wrong file.
const MAX: usize = 64 * 1024;

const MIN: usize = 32;

impl Secret {
    /// Takes these bytes.
    ///
    /// # Errors
    ///
    /// [`SecretError::Short`] if they are fewer than 32.
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecretError> {
        match bytes.len() {
            length @ 0..MIN => Err(SecretError::Short { length }),
            _ => Ok(Self(bytes)),
        }
    }

    /// Takes the whole content of a file, line feeds included. A file that is
    /// world-readable is logged.
    ///
    /// # Errors
    ///
    /// [`SecretError::Read`], [`SecretError::Short`] for fewer than 32 bytes, and
    /// [`SecretError::Long`] for more than 64 KiB.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        warn_if_world_readable(path);
        Self::new(read(path)?)
    }
}

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The password in the first line of a file.
pub(crate) fn read_password(path: &Path) -> Result<String, SecretError> {
    let content = read(path)?;
    let line = content.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match str::from_utf8(line) {
        Ok(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(SecretError::NoPassword { path: path.to_owned() }),
    }
}

/// Logs that a secret file is world-readable.
pub(super) fn warn_if_world_readable(path: &Path) {
    const OTHERS: u32 = 0o004;
    if fs::metadata(path).is_ok_and(|metadata| metadata.mode() & OTHERS != 0) {
        warn!(?path, "secret file is world-readable; run chmod o-r on it");
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    cvmcache::read_regular_file(path, MAX as u64).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => SecretError::Long { path: path.to_owned() },
        _ => failed(error),
    })
}
