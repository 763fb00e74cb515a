//! The administration socket of a running plugin, from the side of the administrator.
//!
//! `command` is `cvmcache admin`. `place` finds it from the locator, `schema` has the types of the answers,
//! and `error` what is said where there is none. `docs/administration.md` describes it.

pub(crate) mod command;
mod error;
mod place;
pub(crate) mod schema;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use cvmcache::Locator;
use cvmcache_testkit::{AdminAnswer, AdminClient, AdminError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::remote::{self, Remote};
pub(crate) use error::Error;
use error::{Absent, Reason};

type Result<T, E = Error> = std::result::Result<T, E>;

/// The arguments by which commands name an administration socket.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdminRemote {
    #[command(flatten)]
    remote: Remote,
    /// The administration socket [default: where plugins with this locator have it]
    #[arg(long, value_name = "PATH")]
    admin: Option<PathBuf>,
}

/// The administration socket of a plugin.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    path: PathBuf,
    timeout: Duration,
}

/// What was answered: as a type, and as it was sent, which may have more fields.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) json: Value,
}

impl AdminRemote {
    /// For commands with `[LOCATOR] [WORD]...`: what are words if the locator is left out.
    pub(crate) fn shift(&mut self, words: &mut Vec<OsString>) {
        if let Some(word) = self.remote.take_word() {
            words.insert(0, word);
        }
    }

    /// For options whose value is optional: true if the word behind one is the locator.
    pub(crate) fn give_locator(&mut self, word: &OsStr) -> bool {
        self.remote.give_locator(word)
    }

    /// Finds the socket. `command` is the name of the subcommand, `instead` what can be done without it.
    pub(crate) fn find(&self, command: &str, instead: &'static str) -> Result<Admin> {
        let timeout = self.remote.timeout();
        if let Some(path) = &self.admin {
            return Ok(Admin { path: path.clone(), timeout });
        }
        let locator = self.remote.locator()?;
        let places = place::candidates(&locator);
        if let Some(path) = place::first(&places) {
            return Ok(Admin { path, timeout });
        }
        // It tells no plugin from one without the socket, and which process to look at.
        let client = self.remote.connect(command)?;
        let configured = client.plugin_pid().and_then(place::configured);
        let found = match configured {
            Some(place::Configured::At(path)) if place::exists(&path) => {
                Ok(Admin { path, timeout })
            }
            configured => Err(Error::Absent(Box::new(Absent {
                name: client.plugin_name().to_vec(),
                pid: client.plugin_pid(),
                locator,
                places,
                configured,
                instead,
            }))),
        };
        // The answer that matters has been given.
        let _ = client.quit();
        found
    }
}

impl Admin {
    /// The socket of a plugin with this locator, if there is one: for commands that show more with it.
    pub(crate) fn of(locator: &Locator, pid: Option<u64>, timeout: Duration) -> Option<Self> {
        let beside = place::first(&place::candidates(locator));
        let configured = || match pid.and_then(place::configured)? {
            place::Configured::At(path) => Some(path).filter(|path| place::exists(path)),
            place::Configured::No => None,
        };
        Some(Self { path: beside.or_else(configured)?, timeout })
    }

    pub(crate) fn new(path: PathBuf, timeout: Duration) -> Self {
        Self { path, timeout }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, resource: &str) -> Result<Answer<T>> {
        self.succeeded(resource, self.client().get(resource))
    }

    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        resource: &str,
        body: Option<&Value>,
    ) -> Result<Answer<T>> {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.succeeded(resource, self.client().post(resource, &body))
    }

    /// The answer whatever its status is, which health has two of.
    pub(crate) fn get_of_any_status<T: DeserializeOwned>(
        &self,
        resource: &str,
    ) -> Result<Answer<T>> {
        let answer = self.client().get(resource).map_err(|error| self.error(error.into()))?;
        self.parse(resource, answer.body)
    }

    fn succeeded<T: DeserializeOwned>(
        &self,
        resource: &str,
        answer: Result<AdminAnswer, AdminError>,
    ) -> Result<Answer<T>> {
        let AdminAnswer { status, body, .. } = answer.map_err(|error| self.error(error.into()))?;
        if !(200..300).contains(&status) {
            let text = || body.as_str().unwrap_or_default().trim().to_owned();
            let failure = schema::Failure::deserialize(&body);
            let error = failure.map_or_else(|_| text(), |failure| failure.error);
            return Err(self.error(Reason::Status { code: status, error }));
        }
        self.parse(resource, body)
    }

    fn parse<T: DeserializeOwned>(&self, resource: &str, json: Value) -> Result<Answer<T>> {
        match T::deserialize(&json) {
            Ok(value) => Ok(Answer { value, json }),
            Err(source) => {
                Err(self.error(Reason::Answer { resource: resource.to_owned(), source }))
            }
        }
    }

    fn client(&self) -> AdminClient {
        AdminClient::at(&self.path).timeout(self.timeout)
    }

    fn error(&self, reason: Reason) -> Error {
        Error::Request { path: self.path.clone(), reason }
    }
}

impl From<remote::Error> for Error {
    fn from(error: remote::Error) -> Self {
        Self::Remote(error)
    }
}
