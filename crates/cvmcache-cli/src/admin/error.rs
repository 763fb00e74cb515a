//! Why an administrator gets no answer, and what to do about it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cvmcache::{Locator, config_keys};
use cvmcache_testkit::AdminError;
use thiserror::Error;

use super::place::Configured;
use crate::output;
use crate::remote;
use crate::user::{Reason as Obstruction, User, Want};

/// Why a plugin was not looked into.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// There is no plugin, or it was not named.
    #[error(transparent)]
    Remote(remote::Error),
    /// The plugin runs, and has no administration socket.
    #[error(transparent)]
    Absent(Box<Absent>),
    #[error("{}", Failure { path, reason })]
    Request { path: PathBuf, reason: Reason },
}

/// A plugin without an administration socket.
#[derive(Debug, Error)]
#[error("{}; {instead}", absent(locator, places, name, *pid, configured.as_ref()))]
pub(crate) struct Absent {
    pub(super) locator: Locator,
    /// Where it was looked for.
    pub(super) places: Vec<PathBuf>,
    pub(super) name: Vec<u8>,
    pub(super) pid: Option<u64>,
    pub(super) configured: Option<Configured>,
    /// What can be done without it.
    pub(super) instead: &'static str,
}

/// Why a request was not answered as it should be.
#[derive(Debug)]
pub(crate) enum Reason {
    NoAnswer(AdminError),
    Status { code: u16, error: String },
    Answer { resource: String, source: serde_json::Error },
}

impl Error {
    /// True if another user would be answered.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Request { reason: Reason::NoAnswer(AdminError::Connect(error)), .. } => {
                error.kind() == ErrorKind::PermissionDenied
            }
            _ => false,
        }
    }
}

impl From<AdminError> for Reason {
    fn from(error: AdminError) -> Self {
        Self::NoAnswer(error)
    }
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Remote(error) => error.into(),
            // What was asked makes no sense to the plugin.
            Error::Request { reason: Reason::Status { code: 400 | 404, .. }, .. } => {
                Self::usage(error)
            }
            error => Self::failed(error),
        }
    }
}

fn absent(
    locator: &Locator,
    places: &[PathBuf],
    name: &[u8],
    pid: Option<u64>,
    configured: Option<&Configured>,
) -> String {
    let key = config_keys::ADMIN.name();
    let name = match output::text(name) {
        name if name.is_empty() => "the plugin".to_owned(),
        name => name,
    };
    let process = pid.map(|pid| format!(", process {pid},")).unwrap_or_default();
    let why = match (configured, locator) {
        (Some(Configured::No), _) => format!("its configuration has {key}=no"),
        (Some(Configured::At(path)), _) => format!(
            "{}, which its configuration names in {key}, does not exist: its log has why",
            path.display()
        ),
        (None, Locator::Tcp { .. }) => format!(
            "none is in {} on this machine: run this where the plugin runs, or name the socket with \
             --admin; plugins with the library of CernVM-FS have none, and {key}=no does without",
            directories(places)
        ),
        (None, _) => format!(
            "{} does not exist: its SDK is older than these sockets or is the library of CernVM-FS, \
             or its configuration has {key}=no",
            places.first().map(|path| path.display().to_string()).unwrap_or_default()
        ),
    };
    format!("{name} at {locator}{process} has no administration socket: {why}")
}

fn directories(places: &[PathBuf]) -> String {
    let mut directories: Vec<_> = places.iter().filter_map(|path| path.parent()).collect();
    directories.dedup();
    let names: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

struct Failure<'a> {
    path: &'a Path,
    reason: &'a Reason,
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.reason {
            Reason::NoAnswer(error) => no_answer(f, self.path, error),
            Reason::Status { code, error } => match error.is_empty() {
                true => write!(f, "the plugin answers with status {code}"),
                false => write!(f, "{} (status {code})", output::escaped(error)),
            },
            Reason::Answer { resource, source } => write!(
                f,
                "{path}: the answer of {resource} is not understood ({source}): this command and the \
                 plugin are of versions that do not go together"
            ),
        }
    }
}

fn no_answer(f: &mut fmt::Formatter<'_>, path: &Path, error: &AdminError) -> fmt::Result {
    let name = path.display();
    match error {
        AdminError::Connect(error) => {
            write!(f, "cannot connect to {name}: {}", connecting(path, error))
        }
        AdminError::Exchange(error) => write!(
            f,
            "{name}: {error}: the plugin has gone meanwhile; look at its log, and try again"
        ),
        AdminError::TimedOut => write!(
            f,
            "{name}: no answer within the timeout: the plugin is stuck, or all threads of the \
             socket are busy; see its log, or give it more time with --timeout"
        ),
        AdminError::Closed => write!(
            f,
            "{name}: closed without an answer: the plugin ends, or this user is refused; the \
             plugin's user and root are served"
        ),
        AdminError::NotHttp(what) => write!(
            f,
            "{name} is not an administration socket ({what}): compare it with {} in the \
             configuration of the plugin",
            config_keys::ADMIN.name()
        ),
        error => write!(f, "{name}: {error}"),
    }
}

fn connecting(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => forbidden(path),
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            "it does not exist: compare it with the log of the plugin, which names its \
             administration socket at the start"
                .to_owned()
        }
        ErrorKind::ConnectionRefused => {
            "no process listens there: the plugin has gone, or this is no socket".to_owned()
        }
        _ => format!("{error}: see whether it is the administration socket of a plugin"),
    }
}

fn forbidden(path: &Path) -> String {
    let user = User::current();
    let named = |uid: u32| User::named(&uid.to_string()).map(|user| user.to_string());
    let owner = match user.may(path, Want::Write) {
        Err(obstacle) => match obstacle.reason {
            Obstruction::Mode { owner, .. } if obstacle.path == path => named(owner),
            _ => None,
        },
        Ok(()) => path.metadata().ok().and_then(|metadata| named(metadata.uid())),
    };
    let may = match owner.filter(|owner| owner != "root") {
        Some(owner) => format!("{owner} and root: run this as one of them"),
        None => "the user of the plugin and root: run this as one of them".to_owned(),
    };
    format!("user {user} may not; administrators are {may}")
}
