//! A plugin that runs already: where it is, and how to reach it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::Args;
use cvmcache::Locator;
use cvmcache::client::{Client, ClientError};
use cvmcache::plugin::{Capabilities, ObjectId, Status};

use crate::error::{Error, Result};

const VARIABLE: &str = "CVMCACHE_LOCATOR";

/// The arguments by which commands name a plugin.
#[derive(Debug, Clone, Args)]
pub(crate) struct Remote {
    /// Where the plugin listens: unix=/path/to/socket or tcp=host:port
    #[arg(env = VARIABLE)]
    locator: Option<OsString>,
    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

impl Remote {
    /// For commands with `[LOCATOR] WORD`: finds out which word is which, and returns the second.
    ///
    /// If there is one word only, it is the locator if it looks like one. clap can tell them apart
    /// by their number, but not if an option stands between them.
    pub(crate) fn take_word(
        &mut self,
        second: Option<OsString>,
        name: &'static str,
    ) -> Result<OsString> {
        if let Some(word) = second {
            return Ok(word);
        }
        let looks_like_a_locator = |word: &OsStr| {
            [&b"unix="[..], b"tcp="].iter().any(|scheme| word.as_bytes().starts_with(scheme))
        };
        match self.locator.take_if(|word| !looks_like_a_locator(word)) {
            Some(word) => {
                self.locator = env::var_os(VARIABLE);
                Ok(word)
            }
            None => Err(Error::MissingWord(name)),
        }
    }

    /// The same, if the second is an object.
    pub(crate) fn take_id(&mut self, second: Option<OsString>) -> Result<ObjectId> {
        Ok(self.take_word(second, "ID")?.to_string_lossy().parse()?)
    }

    /// The locator that was given.
    pub(crate) fn locator(&self) -> Result<Locator> {
        let text = self.locator.as_ref().ok_or(Error::NoLocator)?;
        Ok(Locator::from_os_str(text)?)
    }

    /// Opens a session. The plugin is told which `command` it is for.
    pub(crate) fn connect(&self, command: &str) -> Result<Client> {
        let locator = self.locator()?;
        self.try_connect(command, &locator).map_err(|source| match source {
            ClientError::Connect { .. } => Error::Connect(source),
            source => Error::Client { locator, source },
        })
    }

    /// The same, for who can go on without.
    pub(crate) fn try_connect(
        &self,
        command: &str,
        locator: &Locator,
    ) -> std::result::Result<Client, ClientError> {
        let name = format!("cvmcache:{command}");
        let builder = Client::builder().name(name).timeout(Duration::from_secs(self.timeout));
        builder.connect(locator)
    }

    /// Opens a session with a plugin that can do what the command needs.
    pub(crate) fn connect_for(&self, command: &str, needed: Capabilities) -> Result<Client> {
        let client = self.connect(command)?;
        if client.capabilities().contains(needed) {
            return Ok(client);
        }
        client.quit().map_err(|error| self.error(error))?;
        Err(Error::Lacks { locator: self.locator()?, needed })
    }

    /// Says that an object is not there.
    pub(crate) fn no_object(&self, id: ObjectId) -> Error {
        match self.locator() {
            Ok(locator) => Error::NoObject { locator, id },
            Err(error) => error,
        }
    }

    /// Says which plugin an error is about.
    pub(crate) fn error(&self, source: ClientError) -> Error {
        match self.locator() {
            Ok(locator) => Error::Client { locator, source },
            Err(error) => error,
        }
    }

    /// Says which plugin an error is about, and what was going on.
    pub(crate) fn error_while(&self, doing: impl Into<String>, source: ClientError) -> Error {
        match self.locator() {
            Ok(locator) => Error::While { locator, doing: doing.into(), source },
            Err(error) => error,
        }
    }
}

/// Takes an answer that a plugin may lack the capability for as no error.
pub(crate) fn unless_unsupported(
    result: std::result::Result<(), ClientError>,
) -> std::result::Result<(), ClientError> {
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
    fn of_two_words_the_first_is_the_locator() {
        let mut remote = remote(Some("unix=/a"));
        assert_eq!(remote.take_word(Some("tcp=b".into()), "ID").unwrap(), "tcp=b");
        assert_eq!(remote.locator().unwrap().to_string(), "unix=/a");
    }

    #[test]
    fn a_word_alone_is_the_locator_if_it_looks_like_one() {
        assert_eq!(remote(Some("./unix=/a")).take_word(None, "ID").unwrap(), "./unix=/a");
        for word in [None, Some("unix=/a"), Some("tcp=a:1")] {
            let error = remote(word).take_word(None, "ID").unwrap_err();
            assert!(matches!(error, Error::MissingWord("ID")), "{error}");
        }
    }
}
