//! A CernVM-FS cache plugin that keeps its objects in Redis, for several nodes at once.

mod config;
mod link;
mod plugin;

pub use config::{Config, ConfigError};
pub use plugin::RedisCache;
