//! Tests of CernVM-FS cache plugins: the conformance suite, and fault injection.
//!
//! - [`check`] runs the whole suite against a plugin in a test of yours. A [`Suite`] chooses cases and
//!   runs them against any [`Target`]: a plugin in this process, one that is started by a
//!   [`PluginCommand`], or one that runs already, in whatever language it is written.
//! - [`Soak`](soak::Soak) runs many client processes against a plugin, and kills some of them.
//! - [`AdminClient`] asks an administration socket, and checks what a plugin answers there.
//! - [`check_key_table`] holds the documentation of a plugin's configuration keys to its keys.
//! - [`Faulty`] wraps a plugin and makes chosen callbacks late, fail, panic or hang. It shows what
//!   clients see of that, and what the plugin around it does.
//!
//! ```
//! use cvmcache_testkit::Suite;
//!
//! # fn conforms(plugin: impl cvmcache::CachePlugin) -> Result<(), cvmcache_testkit::SuiteError> {
//! use cvmcache::Server;
//! use cvmcache_testkit::Target;
//!
//! let target = Target::server(Server::builder(plugin).workers(4));
//! let report = Suite::new().hostile(true).filter("reference").run(target)?;
//! report.assert_good();
//! # Ok(())
//! # }
//! ```
//!
//! The commands `cvmcache check` and `cvmcache soak` do the same without a test.

mod admin_client;
mod faults;
mod faulty;
mod key_table;
mod process;
pub mod soak;
mod suite;
mod usage;

pub use admin_client::{AdminAnswer, AdminClient, AdminError};
pub use faults::{Callback, Fault, Faults};
pub use faulty::Faulty;
pub use key_table::check_key_table;
pub use process::{ParseCommandError, PluginCommand, PluginProcess, StartError};
pub use suite::{
    Case, CaseResult, Failure, Kind, Outcome, Report, Suite, SuiteError, Target, check,
};
pub use usage::Memory;

// What is code in the README and in the book is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../../docs/checking-a-plugin.md")]
struct Readme;
