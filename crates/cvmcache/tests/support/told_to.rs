//! Numbers that are no signal's. The plugin that crashes and the tests that tell it to have them.

pub(crate) const NOTHING: u8 = 100;
pub(crate) const USE_NULL: u8 = 101;
pub(crate) const OVERFLOW: u8 = 102;
pub(crate) const OVERFLOW_IN_C: u8 = 103;
pub(crate) const ABORT: u8 = 104;
pub(crate) const PANIC: u8 = 105;
pub(crate) const EXIT: u8 = 106;
pub(crate) const CRASH_IN_HANDLER: u8 = 107;
