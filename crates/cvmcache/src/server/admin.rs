//! The administration socket of a server: HTTP with JSON, on threads of its own.
//!
//! The I/O thread is not asked for anything but callbacks of the plugin, which are its to make: what it
//! counts and holds, it publishes in [`telemetry`](super::telemetry). A thread accepts connections, keeps
//! the counts of the last minute and sees to the socket's file; a few others serve one connection each, and end
//! when there is none. All that they wait for has a bound.

mod calls;
mod pool;
mod report;
mod routes;
mod schema;
mod state;
mod threads;
mod windows;

pub(super) use calls::Calls;
pub(super) use state::Administered;
pub(super) use threads::AdminThreads;
