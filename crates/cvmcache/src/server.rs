//! A plugin on a socket: from a [`CachePlugin`] to a server that runs.
//!
//! The steps are types, so that they cannot be taken out of order:
//!
//! ```text
//! Server::builder(plugin) ── listen(&locator) ──► BoundServer ── spawn() ──► RunningServer
//!                                                                            │ handle(), wait()
//! ```
//!
//! [`run`](crate::run) takes all of them for a program that is nothing but a plugin.

mod accept;
#[cfg(feature = "admin")]
mod admin;
mod buffers;
mod builder;
mod busy_poll;
mod connection;
mod discard;
mod error;
mod event_loop;
mod scheduler;
mod settings;
mod socket;
mod telemetry;
#[cfg(test)]
mod testing;
mod timers;
mod waker;
mod workers;

pub use accept::{AccessError, ListenError, Networks, Users};
#[cfg(feature = "program")]
pub(crate) use accept::{FoundSocket, LOCK_STEP, LOCK_STEPS, find_socket, locator_of, lock_path};
pub use builder::{BoundServer, RunningServer, Server, ServerBuilder};
pub use error::ServerError;
#[cfg(feature = "program")]
pub(crate) use settings::Settings;
#[cfg(feature = "prometheus")]
pub(crate) use telemetry::DURATION;
pub use telemetry::Heartbeat;
