//! What goes wrong, on purpose: faults and load for cache plugins built on [`cvmcache`].
//!
//! - [`Faulty`] wraps a plugin and makes chosen callbacks late, fail, panic or hang. It shows what
//!   clients see of that, and what the plugin around it does.
//! - The program `cvmcache-soak` runs many client processes against a plugin, with every behaviour
//!   that clients have and some that they should not, and checks what it has promised them.
//!
//! Both use nothing of cvmcache but what is public.

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
