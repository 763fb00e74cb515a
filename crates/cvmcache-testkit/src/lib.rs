//! What a CernVM-FS cache plugin is tested with: the conformance suite, and faults on purpose.
//!
//! - [`check`] runs the whole suite against a plugin in a test of yours. A [`Suite`] chooses cases and
//!   runs them against any [`Target`]: a plugin in this process, one that is started by a
//!   [`PluginCommand`], or one that runs already, in whatever language it is written.
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
//! The command `cvmcache check` does the same for who has no test to write it in.

mod faults;
mod faulty;
mod process;
mod suite;

pub use faults::{Callback, Fault, Faults};
pub use faulty::Faulty;
pub use process::{ParseCommandError, PluginCommand, PluginProcess, StartError};
pub use suite::{
    Case, CaseResult, Failure, Kind, Outcome, Report, Suite, SuiteError, Target, check,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
