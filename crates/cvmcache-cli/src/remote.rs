//! A running plugin: its locator, and sessions with it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::Args;
use cvmcache::client::{Client, ClientError};
use cvmcache::plugin::{Capabilities, ObjectId, ParseObjectIdError, Status};
use cvmcache::{Locator, LocatorError};
use thiserror::Error;

use crate::error;
use crate::unreachable::Unreachable;

const VARIABLE: &str = "CVMCACHE_LOCATOR";

type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a plugin is not reached, or fails a request.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error(
        "which plugin? Name its locator, as in unix=/path/to/socket or tcp=host:port, or set \
         {VARIABLE}"
    )]
    NoLocator,
    #[error(transparent)]
    Locator(#[from] LocatorError),
    /// An argument, by its name in the usage.
    #[error("{0} is missing; see --help for what to write")]
    MissingArgument(&'static str),
    #[error(transparent)]
    Id(#[from] ParseObjectIdError),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error("{locator}: {source}")]
    Client { locator: Locator, source: ClientError },
    #[error("{locator}: {doing}: {source}")]
    While { locator: Locator, doing: String, source: ClientError },
    #[error("{locator}: the plugin lacks the capability \"{needed}\": {}", meaning(*needed))]
    Lacks { locator: Locator, needed: Capabilities },
    #[error("{locator}: {id} is not in the cache")]
    NoObject { locator: Locator, id: ObjectId },
}

impl From<Error> for error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::NoLocator | Error::Locator(_) | Error::MissingArgument(_) | Error::Id(_) => {
                Self::usage(error)
            }
            _ => Self::failed(error),
        }
    }
}

/// What the lack of a capability means to the administrator of a plugin.
fn meaning(needed: Capabilities) -> &'static str {
    match needed {
        Capabilities::WRITE => "it takes no objects from clients",
        Capabilities::SHRINK => "it does not evict objects on request",
        Capabilities::INFO => "it does not report its size and fill",
        Capabilities::LIST => "it does not list its objects",
        _ => "it does not do this",
    }
}

/// The arguments by which commands name a plugin.
#[derive(Debug, Clone, Args)]
pub(crate) struct Remote {
    /// Where the plugin listens: unix=/path/to/socket or tcp=host:port
    #[arg(env = VARIABLE)]
    locator: Option<OsString>,
    /// How long to wait for a reply, in seconds
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

impl Remote {
    /// For commands with `[LOCATOR] ARGUMENT`: distinguishes them, and returns the second.
    ///
    /// A single argument is the locator if it has the form of one. clap can distinguish them by their
    /// number, but not if an option stands between them.
    pub(crate) fn take_argument(
        &mut self,
        second: Option<OsString>,
        name: &'static str,
    ) -> Result<OsString> {
        second.or_else(|| self.take_word()).ok_or(Error::MissingArgument(name))
    }

    /// Takes what stands in the place of the locator, and does not have the form of one.
    pub(crate) fn take_word(&mut self) -> Option<OsString> {
        let word = self.locator.take_if(|word| !is_locator(word))?;
        self.locator = env::var_os(VARIABLE);
        Some(word)
    }

    /// For options whose value is optional, as in `--watch LOCATOR`: true if the word behind one is the
    /// locator.
    pub(crate) fn give_locator(&mut self, word: &OsStr) -> bool {
        let is_one = is_locator(word);
        if is_one {
            self.locator = Some(word.to_owned());
        }
        is_one
    }

    /// How long to wait for a reply.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// The same, if the second is an object.
    pub(crate) fn take_id(&mut self, second: Option<OsString>) -> Result<ObjectId> {
        Ok(self.take_argument(second, "ID")?.to_string_lossy().parse()?)
    }

    /// The locator that was given.
    pub(crate) fn locator(&self) -> Result<Locator> {
        let text = self.locator.as_ref().ok_or(Error::NoLocator)?;
        Ok(Locator::from_os_str(text)?)
    }

    /// Opens a session. Its name has the `command` that it is for.
    pub(crate) fn connect(&self, command: &str) -> Result<Client> {
        let locator = self.locator()?;
        self.try_connect(command, &locator)
            .map_err(|source| Unreachable::new(locator, source).into())
    }

    /// Opens a session, for callers that retry.
    pub(crate) fn try_connect(
        &self,
        command: &str,
        locator: &Locator,
    ) -> Result<Client, ClientError> {
        let name = format!("cvmcache:{command}");
        let builder = Client::builder().name(name).timeout(self.timeout());
        builder.connect(locator)
    }

    /// Opens a session with a plugin that has a capability.
    pub(crate) fn connect_for(&self, command: &str, needed: Capabilities) -> Result<Client> {
        let client = self.connect(command)?;
        if client.capabilities().contains(needed) {
            return Ok(client);
        }
        client.quit().map_err(|error| self.error(error))?;
        Err(Error::Lacks { locator: self.locator()?, needed })
    }

    /// The error that an object is not in the cache.
    pub(crate) fn no_object(&self, id: ObjectId) -> Error {
        match self.locator() {
            Ok(locator) => Error::NoObject { locator, id },
            Err(error) => error,
        }
    }

    /// Adds the locator to an error.
    pub(crate) fn error(&self, source: ClientError) -> Error {
        match self.locator() {
            Ok(locator) => Error::Client { locator, source },
            Err(error) => error,
        }
    }

    /// Adds the locator and what was being done to an error.
    pub(crate) fn error_while(&self, doing: impl Into<String>, source: ClientError) -> Error {
        match self.locator() {
            Ok(locator) => Error::While { locator, doing: doing.into(), source },
            Err(error) => error,
        }
    }
}

/// True if a word has the form of a locator.
fn is_locator(word: &OsStr) -> bool {
    [&b"unix="[..], b"tcp="].iter().any(|scheme| word.as_bytes().starts_with(scheme))
}

/// Treats NOSUPPORT as success: the plugin lacks the optional capability.
pub(crate) fn unless_unsupported(result: Result<(), ClientError>) -> Result<(), ClientError> {
    match result {
        Err(error) if error.status() == Some(Status::NoSupport) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(word: Option<&str>) -> Remote {
        Remote { locator: word.map(OsString::from), timeout: 1 }
    }

    #[test]
    fn the_first_of_two_arguments_is_the_locator() {
        let mut remote = remote(Some("unix=/a"));
        assert_eq!(remote.take_argument(Some("tcp=b".into()), "ID").unwrap(), "tcp=b");
        assert_eq!(remote.locator().unwrap().to_string(), "unix=/a");
    }

    #[test]
    fn a_single_argument_is_the_locator_if_it_has_the_form_of_one() {
        assert_eq!(remote(Some("./unix=/a")).take_argument(None, "ID").unwrap(), "./unix=/a");
        for word in [None, Some("unix=/a"), Some("tcp=a:1")] {
            let error = remote(word).take_argument(None, "ID").unwrap_err();
            assert!(matches!(error, Error::MissingArgument("ID")), "{error}");
        }
    }
}
