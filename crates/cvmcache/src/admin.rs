//! The administration socket: what a running plugin tells, and what it can be asked to do.
//!
//! A server with an [`AdminSocket`] serves HTTP/1.1 with JSON on a second unix socket, for the plugin's user
//! and root: its sessions, statistics, configuration and health, and actions such as a detach. The page
//! `docs/administration.md` has the schema.
//!
//! ```sh
//! curl --unix-socket /run/cvmcache/ram.socket.admin http://plugin/v1/sessions
//! ```
//!
//! A plugin adds gauges and commands of its own with
//! [`CachePlugin::administration`](crate::CachePlugin::administration).

mod administration;
mod setting;
mod socket;

pub use administration::{Administration, Arguments, Command, CommandError, Gauge};
pub use serde_json::Value;
pub use setting::{Setting, SettingSource};
pub use socket::{AdminSocket, LogLevel};
