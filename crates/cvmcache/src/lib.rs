//! Write a cache plugin for CernVM-FS.

pub mod client;
mod control;
mod limits;
mod locator;
mod options;
pub mod plugin;
mod session;

pub use control::Control;
pub use limits::Limits;
pub use locator::{Locator, LocatorError};
pub use options::{Options, OptionsError};
pub use plugin::{CachePlugin, Transaction};
pub use session::Session;
