//! A plugin that runs already: where it is, and how to reach it.

use std::time::Duration;

use clap::Args;
use cvmcache::Locator;
use cvmcache::client::{Client, ClientError};

use crate::error::{Error, Result};

/// The arguments by which commands name a plugin.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    /// Where the plugin listens: unix=/path/to/socket or tcp=host:port
    #[arg(env = "CVMCACHE_LOCATOR")]
    locator: Option<Locator>,
    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

impl Remote {
    /// The locator that was given.
    pub(crate) fn locator(&self) -> Result<&Locator> {
        self.locator.as_ref().ok_or(Error::NoLocator)
    }

    /// Opens a session. The plugin is told which `command` it is for.
    pub(crate) fn connect(&self, command: &str) -> Result<Client> {
        let name = format!("cvmcache:{command}");
        let builder = Client::builder().name(name).timeout(Duration::from_secs(self.timeout));
        let locator = self.locator()?;
        builder.connect(locator).map_err(|source| match source {
            ClientError::Connect { .. } => Error::Connect(source),
            source => Error::Client { locator: locator.clone(), source },
        })
    }

    /// Says which plugin an error is about.
    pub(crate) fn error(&self, source: ClientError) -> Error {
        match &self.locator {
            Some(locator) => Error::Client { locator: locator.clone(), source },
            None => Error::NoLocator,
        }
    }
}
