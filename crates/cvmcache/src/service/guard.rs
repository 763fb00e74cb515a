//! The guard around callbacks, which catches their panics.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use metrics::counter;
use tracing::error;

use crate::plugin::{PluginResult, Status};

/// Calls into a plugin. A panic becomes [`Status::IoErr`], a line in the log, and is counted.
pub(crate) fn guard<T>(
    callback: &'static str,
    call: impl FnOnce() -> PluginResult<T>,
) -> PluginResult<T> {
    // What a panic leaves behind is the plugin's own; nothing of ours is changed inside.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        error!(callback, panic = message(&*panic), "a callback of the plugin panicked");
        counter!("cvmcache_callback_panics_total").increment(1);
        Err(Status::IoErr)
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
