//! The watchdog of the SDK, for C.

use std::ffi::OsStr;

/// Starts it.
pub(crate) fn spawn(_crash_dump: Option<&OsStr>) {}

/// Ends it.
pub(crate) fn terminate() {}
