//! Write a cache plugin for CernVM-FS.

pub mod client;
mod control;
mod limits;
mod locator;
mod options;
pub mod plugin;
mod run;
mod server;
pub mod service;
mod session;

pub use control::Control;
pub use limits::{InvalidLimit, Limits};
pub use locator::{Locator, LocatorError};
pub use options::{Options, OptionsError};
pub use plugin::{CachePlugin, Transaction};
pub use run::run;
pub use server::{Builder, ListenError, Listening, Running, Server, ServerError};
pub use session::Session;
