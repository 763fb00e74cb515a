//! The settings of a server in a configuration: keys that are not the plugin's own.

use std::time::Duration;

use super::accept::{Networks, Users};
use super::builder::ServerBuilder;
use crate::config_keys::{ALLOW, ALLOW_USERS, POLL, WORKERS};
use crate::{Options, OptionsError};

impl ServerBuilder {
    /// Takes the server's keys of a configuration, and keeps the rest as it is:
    ///
    /// | key | as with |
    /// |---|---|
    /// | `CVMFS_CACHE_PLUGIN_WORKERS` | [`workers`](Self::workers), at most 1024 |
    /// | `CVMFS_CACHE_PLUGIN_POLL` | [`poll_for`](Self::poll_for), in microseconds, at most 1000 |
    /// | `CVMFS_CACHE_PLUGIN_ALLOW` | [`allow_networks`](Self::allow_networks) |
    /// | `CVMFS_CACHE_PLUGIN_ALLOW_USERS` | [`allow_users`](Self::allow_users) |
    ///
    /// # Errors
    ///
    /// [`OptionsError::Value`] if a value makes no sense, or is out of its bounds.
    pub fn configure(self, options: &Options) -> Result<Self, OptionsError> {
        Ok(Settings::from_options(options)?.apply(self))
    }
}

/// What is set, and makes sense.
#[derive(Debug)]
pub(crate) struct Settings {
    workers: Option<usize>,
    poll_for: Option<Duration>,
    networks: Option<Networks>,
    users: Option<Users>,
}

impl Settings {
    pub(crate) fn from_options(options: &Options) -> Result<Self, OptionsError> {
        Ok(Self {
            workers: options.value(&WORKERS)?,
            poll_for: options.value(&POLL)?.map(Duration::from_micros),
            networks: options.value(&ALLOW)?,
            users: options.value(&ALLOW_USERS)?,
        })
    }

    /// All that is wrong with what is set.
    #[cfg(feature = "program")]
    pub(crate) fn errors(options: &Options) -> Vec<OptionsError> {
        [
            options.value::<usize>(&WORKERS).err(),
            options.value::<u64>(&POLL).err(),
            options.value::<Networks>(&ALLOW).err(),
            options.value::<Users>(&ALLOW_USERS).err(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The users whose clients can connect to a unix socket.
    #[cfg(feature = "program")]
    pub(crate) fn users(&self) -> Users {
        self.users.clone().unwrap_or_default()
    }

    pub(crate) fn apply(self, mut builder: ServerBuilder) -> ServerBuilder {
        if let Some(count) = self.workers {
            builder = builder.workers(count);
        }
        if let Some(time) = self.poll_for {
            builder = builder.poll_for(time);
        }
        if let Some(networks) = self.networks {
            builder = builder.allow_networks(networks);
        }
        if let Some(users) = self.users {
            builder = builder.allow_users(users);
        }
        builder
    }
}
