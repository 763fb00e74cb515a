//! A CernVM-FS cache plugin that keeps its objects in Redis, for several nodes at once.

mod config;
mod link;
mod plugin;

pub use config::{
    Config, ConfigError, Prefix, PrefixError, Secret, SecretError, Server, ServerError, Tls,
    TlsError,
};
pub use plugin::RedisCache;

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod servers;
