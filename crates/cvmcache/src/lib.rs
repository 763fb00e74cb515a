//! Write a cache plugin for CernVM-FS: implement one trait, the rest is handled inside.
//!
//! The CernVM-FS client can keep its files in a cache *plugin*: a separate process that stores
//! content-addressed objects and talks to the client over a socket. A plugin implements
//! [`CachePlugin`] and hands itself to [`run`], which is the whole main function of such a process.
//!
//! ```
//! use cvmcache::client::Client;
//! use cvmcache::plugin::*;
//! use cvmcache::{CachePlugin, Locator, Server, Session};
//!
//! /// A cache that always holds the same object, and takes no other.
//! struct Constant(ObjectId, bytes::Bytes);
//!
//! impl CachePlugin for Constant {
//!     fn capabilities(&self) -> Capabilities {
//!         Capabilities::NONE
//!     }
//!
//!     fn object_info(&self, _: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
//!         if *id != self.0 {
//!             return Err(Status::NoEntry);
//!         }
//!         Ok(ObjectInfo::new(self.1.len() as u64, ObjectType::Regular))
//!     }
//!
//!     fn read(&self, session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
//!         let size = self.object_info(session, id)?.size;
//!         if offset > size {
//!             return Err(Status::OutOfBounds);
//!         }
//!         let end = size.min(offset + u64::from(len));
//!         Ok(self.1.slice(offset as usize..end as usize).into())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let id: ObjectId = "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33".parse()?;
//! let plugin = Constant(id, "foo".into());
//!
//! // In a program of its own: cvmcache::run("constant", |context| …). In a test:
//! let directory = tempfile::tempdir()?;
//! let locator = Locator::Unix(directory.path().join("socket"));
//! let running = Server::builder(plugin).listen(&locator)?.spawn()?;
//! let mut client = Client::connect(&locator, "test.cern.ch:1")?;
//! assert_eq!(client.read(&id, 1, 100)?, "oo");
//! running.handle().terminate();
//! running.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! # When callbacks are called
//!
#![doc = include_str!("life-cycle.svg")]
//!
//! Clients may do the same at the same time, and stop at any point: what they leave behind is given
//! back as the last line says.
//!
//! # Where to go from here
//!
//! - [`CachePlugin`]: what a plugin can do, the life of an object, and what is taken care of.
//! - [`run`]: a plugin as a program; its configuration and how clients start it.
//! - [`Server`]: a plugin as a part of a program, or of a test.
//! - [`Options`], [`Limits`]: a plugin's configuration, and what clients can make it spend.
//! - [`Log`], [`Supervisor`], [`ServiceManager`]: parts of [`run`] for a main function of your own.
//! - [`MemoryLimit`]: how much memory the process may take.
//! - [`Watermarks`]: when a plugin that evicts cleans up, and when it asks clients to detach.
//! - [`client`]: the other end of the wire.
//! - [`watchdog`]: crash reports.
//! - [`service`]: the rules of the protocol without a socket, for other transports and for tests.
//!
//! # Features
//!
//! - `program` (default): [`run`] and its parts, [`Log`], [`Supervisor`], [`ServiceManager`] and the
//!   [`watchdog`]. Without it, the crate is a server and a client, for a program that has these
//!   already.
//! - `unwind` (default): where there is no gdb, the [`watchdog`] itself finds the stacks of a plugin
//!   that crashed.
//! - `prometheus`: [`run`] serves metrics to Prometheus (`CVMFS_CACHE_PLUGIN_METRICS`). With or without
//!   it, [`ServerBuilder::metrics`] are for a recorder of the program's own.
//!
//! # A promise to clients
//!
//! When the connection to its plugin closes, a client aborts, with all jobs on its mount. So a
//! server never closes a connection over a request that it can answer, and nothing a client sends
//! ends the process.

#[cfg(feature = "admin")]
pub mod admin;
pub mod client;
pub mod config_keys;
mod evictions;
mod files;
#[cfg(feature = "admin")]
mod http;
mod limits;
mod locator;
#[cfg(feature = "program")]
mod log;
mod memory;
mod options;
pub mod plugin;
mod plugin_context;
mod quota;
mod read_buffer;
#[cfg(feature = "program")]
mod run;
mod server;
mod server_handle;
pub mod service;
#[cfg(feature = "program")]
mod service_manager;
mod session;
mod sparse;
#[cfg(feature = "program")]
mod supervisor;
pub mod threads;
mod watermarks;

#[cfg(feature = "program")]
pub use cvmcache_watchdog as watchdog;

/// Without a program there is no watchdog, and threads need no preparation for it.
#[cfg(not(feature = "program"))]
mod watchdog {
    pub(crate) fn prepare_thread() {}
}

/// The target of the lines of a status report: it was requested, so none is suppressed.
pub(crate) const REPORT: &str = "cvmcache::report";

pub use config_keys::ConfigKey;
pub use evictions::EvictionCounter;
pub use files::read_regular_file;
pub use limits::{InvalidLimit, Limits};
pub use locator::{Locator, LocatorError};
#[cfg(feature = "program")]
pub use log::{Log, LogError, LogTarget};
pub use memory::{MemoryLimit, MemoryLimitSource};
pub use options::{Options, OptionsError};
pub use plugin::{CachePlugin, Transaction};
pub use plugin_context::PluginContext;
#[cfg(feature = "program")]
#[doc(hidden)]
pub use run::{CHECK_MARKER, lock_holder};
#[cfg(feature = "program")]
pub use run::{Findings, InvalidMetricsAddress, MetricsAddress, Program, run};
pub use server::{
    AccessError, BoundServer, Heartbeat, ListenError, Networks, RunningServer, Server,
    ServerBuilder, ServerError, Users,
};
pub use server_handle::ServerHandle;
#[cfg(feature = "program")]
pub use service_manager::{ServiceManager, ServiceManagerError};
pub use session::Session;
#[cfg(feature = "program")]
pub use supervisor::{Supervisor, SupervisorError};
pub use watermarks::{Watermarks, percent_of};

// The plugins in the READMEs, and what is code in the book, are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../../docs/porting.md")]
#[doc = include_str!("../../../docs/sessions.md")]
#[doc = include_str!("../../../docs/writing-a-plugin.md")]
struct Readme;
