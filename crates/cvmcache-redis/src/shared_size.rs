//! The `SIZE` of the plugins that share a server. Each records its own there when it starts, and warns of another.
//!
//! No plugin follows the record: each evicts down to its own `SIZE` when it starts and when it stores, so that
//! the smallest of those that store rules. The record is for the administrator, and has no other effect.

use tracing::warn;

use crate::client::{Failure, RedisClient, Traits};
use crate::config::Config;
use crate::config::keys::SIZE;
use crate::keys::Keys;

/// The record of the size.
pub(crate) struct SharedSize {
    client: RedisClient,
    key: String,
    /// The size of this plugin.
    own: u64,
    is_recorded: bool,
    /// The size of another plugin that was logged.
    logged: Option<u64>,
}

/// More than the digits of any size.
const MAX_DIGITS: u64 = 20;

impl SharedSize {
    pub(crate) fn new(config: &Config, client: RedisClient) -> Self {
        Self {
            client,
            key: Keys::new(&config.prefix).size(),
            own: config.size,
            is_recorded: false,
            logged: None,
        }
    }

    /// Records the size of this plugin, once, and warns of another.
    pub(crate) async fn follow(&mut self) -> Result<(), Failure> {
        let recorded = self.recorded().await?;
        let other = recorded.filter(|size| *size != self.own);
        if let Some(other) = other.filter(|other| self.logged != Some(*other)) {
            warn!("{}", self.finding(other));
        }
        self.logged = other;
        // A server that was emptied has none.
        if !self.is_recorded || recorded.is_none() {
            self.record().await?;
            self.is_recorded = true;
        }
        Ok(())
    }

    pub(crate) fn own(&self) -> u64 {
        self.own
    }

    /// The size that was recorded last, if it is not this plugin's.
    pub(crate) async fn other(&self) -> Result<Option<u64>, Failure> {
        Ok(self.recorded().await?.filter(|size| *size != self.own))
    }

    /// What another size means.
    pub(crate) fn finding(&self, other: u64) -> String {
        format!(
            "the plugin that has started last on this server has {size}={} (MB), and this one has {}: each \
             evicts what is more than its own, so that the smallest rules; give all plugins that \
             share the server the same {size}",
            other >> 20,
            self.own >> 20,
            size = SIZE.name()
        )
    }

    async fn recorded(&self) -> Result<Option<u64>, Failure> {
        let mut command = redis::cmd("GETRANGE");
        command.arg(&self.key).arg(0).arg(MAX_DIGITS);
        let text: Vec<u8> = self.client.command(Traits::REPEATABLE, &command).await?;
        Ok(std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()))
    }

    async fn record(&self) -> Result<(), Failure> {
        let mut command = redis::cmd("SET");
        self.client.command(Traits::REPEATABLE, command.arg(&self.key).arg(self.own)).await
    }
}
