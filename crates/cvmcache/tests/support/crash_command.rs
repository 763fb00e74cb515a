//! The commands of the plugin that crashes, shared by plugin and tests: numbers that are no signal's.

#![allow(dead_code, unreachable_pub, reason = "every program uses a part of it")]

pub const NOTHING: u8 = 100;
pub const USE_NULL: u8 = 101;
pub const OVERFLOW: u8 = 102;
pub const OVERFLOW_IN_C: u8 = 103;
pub const ABORT: u8 = 104;
pub const PANIC: u8 = 105;
pub const EXIT: u8 = 106;
pub const CRASH_IN_HANDLER: u8 = 107;
pub const STICK: u8 = 108;
