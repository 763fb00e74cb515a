//! `libcvmfs_cache` for C and C++: the interface, revision 5, that existing CernVM-FS cache plugins
//! are written against, on top of the SDK.
//!
//! What a C program calls is in [`exports`], and what it shares with this library in [`layout`];
//! `include/libcvmfs_cache.h` says the same in C. Behind it:
//!
//! ```text
//!  exports ──► context ──► plugin ──► callbacks ──► the plugin's code
//!          │               transaction, listing     │
//!          ├─► options, hash, watchdog              │
//!          └─► session ◄────────────────────────────┘ its session
//! ```
//!
//! Pointers are dealt with where they come in (`exports`, `ffi`) and where they go out
//! (`callbacks`); the rest is safe Rust.

mod admin;
mod callbacks;
mod context;
pub mod exports;
mod ffi;
mod hash;
pub mod layout;
mod listing;
mod options;
mod plugin;
mod process;
mod references;
mod session;
mod state;
mod transaction;
mod watchdog;
