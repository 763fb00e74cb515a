//! The soak test: many client processes at once, well-behaved and hostile, against one plugin, which
//! has to keep what the protocol promises them.
//!
//! Each client is a process of its own, since some are killed: a program that runs a [`Soak`] starts
//! itself, or another program, once for each [`SoakClient`].
//!
//! ```no_run
//! use std::env;
//! use std::process::Command;
//!
//! use cvmcache_testkit::PluginCommand;
//! use cvmcache_testkit::soak::{Soak, SoakClient};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! if let Some(client) = env::args().nth(1) {
//!     let found_violation = !client.parse::<SoakClient>()?.run();
//!     std::process::exit(i32::from(found_violation));
//! }
//! let program = env::current_exe()?;
//! let summary = Soak::new().clients(20).run(PluginCommand::new("./my-plugin"), |client| {
//!     let mut command = Command::new(&program);
//!     command.arg(client.to_string());
//!     command
//! })?;
//! assert!(summary.violations.is_empty(), "{:#?}", summary.violations);
//! # Ok(())
//! # }
//! ```
//!
//! `run` is the parent: it starts and kills clients, and measures latencies (`latency`) and memory of
//! the plugin (`plugin`) meanwhile. `client` is the process of a client, `actor` its state,
//! `behaviour` what it does and checks, `hostile` what no client should do, `object` what it
//! stores; `counts` is how it reports to the parent. `leaks` checks that nothing is left in the
//! end, `violation` is what a check finds, `summary` the result.

mod actor;
mod behaviour;
mod client;
mod counts;
mod hostile;
mod latency;
mod leaks;
mod object;
mod plugin;
mod run;
mod summary;
mod violation;

pub use client::{ParseClientError, SoakClient};
pub use latency::Latencies;
pub use plugin::{SoakError, SoakTarget};
pub use run::Soak;
pub use summary::Summary;
