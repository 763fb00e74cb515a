//! The threads that do the I/O with the server.

use std::io;

use cvmcache::threads;
use tokio::runtime::{Builder, Runtime};

/// Starts `count` threads.
///
/// # Errors
///
/// Those of the system, such as that it has no threads to spare. tokio would panic then, so that is found
/// out before.
pub(crate) fn start(count: usize) -> io::Result<Runtime> {
    threads::check(count + 1)?;
    Builder::new_multi_thread().worker_threads(count).thread_name("redis").enable_all().build()
}
